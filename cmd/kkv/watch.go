package main

import (
	"context"
	"errors"
	"io"
	"log/slog"

	"github.com/kkv-project/kkv"
	"github.com/kkv-project/kkv/internal/config"
	"github.com/kkv-project/kkv/internal/wire"
)

// runWatch is `kkv watch`: the state, and every change, until it is interrupted or nobody reads any more.
func runWatch(ctx context.Context, s *config.Watch, stdout io.Writer, logger *slog.Logger) error {
	f, err := parseFormat(s.Output, &s.Keys)
	if err != nil {
		return err
	}
	o := kkv.WatchOptions{KeysOnly: !f.values}
	if o.Key, err = decodeKey(&s.Keys, s.Key); err != nil {
		return err
	}
	if o.Prefix, err = decodeKey(&s.Keys, s.Prefix); err != nil {
		return err
	}
	if s.Since == "now" {
		o.SinceNow = true
	} else if o.Since, err = kkv.ParsePosition(s.Since); err != nil {
		return usage("--since: %v; give one that a watch printed, or now", err)
	}
	c, err := newClient(s.Client, logger)
	if err != nil {
		return err
	}
	var out []byte
	keys := 0 // of the state that is being sent: its puts have no position
	for ch, err := range c.Watch(ctx, o) {
		switch {
		case errors.Is(err, context.Canceled):
			return nil // the usual end
		case err != nil:
			return err
		}
		if ch.Kind == kkv.Put && ch.Position.IsZero() {
			keys++
		}
		out = appendChange(out[:0], f, &ch, keys)
		if ch.Kind != kkv.Put && ch.Kind != kkv.Delete || !ch.Position.IsZero() {
			keys = 0
		}
		if len(out) > 0 {
			if _, err := stdout.Write(out); err != nil {
				return err
			}
		}
	}
	return nil
}

// appendChange writes a change; a pattern has no words for what is not about a key. keys is how many make up the state, at
// its end.
func appendChange(b []byte, f *format, ch *kkv.Change, keys int) []byte {
	position := ch.Position.String()
	switch {
	case ch.Kind == kkv.Put || ch.Kind == kkv.Delete:
		return f.append(b, ch.Kind.String(), &ch.Entry, position)
	case f.json:
		return wire.AppendNDJSON(b, &wire.Change{Type: ch.Kind.String(), Position: position, Reason: ch.Reason, Keys: keys, AgeMs: -1})
	}
	return b
}
