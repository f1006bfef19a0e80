package main

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/kkv-project/kkv/internal/config"
	"github.com/kkv-project/kkv/internal/wire"
)

// runLs is `kkv ls`: keys in their order, and what else the format names.
func runLs(ctx context.Context, s *config.Ls, stdout io.Writer, logger *slog.Logger) error {
	f, err := parseFormat(s.Output, &s.Keys)
	if err != nil {
		return err
	}
	prefix, err := decodeKey(&s.Keys, s.Prefix)
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
	// The time is for the list to begin: how long it takes is its reader's business.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(s.Timeout, func() { cancel(context.DeadlineExceeded) })
	how = append(how, func(h http.Header) { h.Set("Kkv-Timeout", (s.Timeout * 7 / 8).String()) })
	list := c.Keys
	if f.values {
		list = c.List
	}
	out := bufio.NewWriterSize(stdout, 64<<10)
	var line []byte
	for e, err := range list(ctx, prefix, how...) {
		late.Stop()
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return err
		}
		line = f.append(line[:0], wire.Put, &e, "")
		if _, err := out.Write(line); err != nil {
			return err
		}
	}
	return out.Flush()
}
