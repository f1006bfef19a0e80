package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strconv"

	"github.com/kkv-project/kkv"
	"github.com/kkv-project/kkv/internal/config"
	"github.com/kkv-project/kkv/internal/wire"
)

// runGet is `kkv get`: one value, byte for byte.
func runGet(ctx context.Context, s *config.Get, stdout io.Writer, logger *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	f, err := parseFormat(s.Output, &s.Keys)
	if err != nil {
		return err
	}
	key, err := decodeKey(&s.Keys, s.Key)
	if err != nil {
		return err
	}
	how, err := readOptions(&s.Read)
	if err != nil {
		return err
	}
	c, err := newClient(s.Client, logger)
	if err != nil {
		return err
	}
	e, err := c.Get(ctx, key, how...)
	if errors.Is(err, kkv.ErrNotFound) {
		return &clientError{exitNotFound, "there is no key " + strconv.Quote(key)}
	} else if err != nil {
		return err
	}
	out := f.append(nil, wire.Put, &e, c.Position().String())
	if len(out) > 0 && out[len(out)-1] != '\n' && isTerminal(stdout) {
		out = append(out, '\n')
	}
	_, err = stdout.Write(out)
	return err
}
