package main

import (
	"context"
	"strconv"
	"strings"
)

// inProcess runs the program inprocess, in rounds, and takes in the lines that it prints.
func (b *bench) inProcess(ctx context.Context, what string) error {
	for range b.rounds() {
		out, err := output(ctx, b.program("inprocess"), "-what", what, "-scale", strconv.Itoa(b.scale))
		if err != nil {
			return err
		}
		for l := range strings.Lines(out) {
			if err := b.results.addLine(strings.TrimSpace(l)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *bench) store(ctx context.Context) error  { return b.inProcess(ctx, "store") }
func (b *bench) replay(ctx context.Context) error { return b.inProcess(ctx, "replay") }
