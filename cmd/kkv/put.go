package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/kkv-project/kkv"
	"github.com/kkv-project/kkv/internal/config"
)

// runPut is `kkv put`: it prints the position from which on the value can be read.
func runPut(ctx context.Context, s *config.Put, stdout io.Writer, logger *slog.Logger) error {
	key, err := decodeKey(&s.Keys, s.Key)
	if err != nil {
		return err
	}
	c, err := newClient(s.Client, logger)
	if err != nil {
		return err
	}
	value := []byte(s.Value)
	if s.Value == "-" {
		if value, err = io.ReadAll(os.Stdin); err != nil {
			return fmt.Errorf("read the value from standard input: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	p, err := c.Put(ctx, key, value)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(stdout, p)
	return err
}

// runDel is `kkv del`: every key is deleted, and one position printed that covers them all.
func runDel(ctx context.Context, s *config.Del, stdout io.Writer, logger *slog.Logger) error {
	keys := make([]string, len(s.Key))
	for i := range keys {
		var err error
		if keys[i], err = decodeKey(&s.Keys, s.Key[i]); err != nil {
			return err
		}
	}
	c, err := newClient(s.Client, logger)
	if err != nil {
		return err
	}
	var at kkv.Position
	for _, key := range keys {
		p, err := deleteOne(ctx, c, key, s)
		if err != nil {
			return err
		}
		at = at.Merge(p)
	}
	_, err = fmt.Fprintln(stdout, at)
	return err
}

func deleteOne(ctx context.Context, c *kkv.Client, key string, s *config.Del) (kkv.Position, error) {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	return c.Delete(ctx, key)
}
