package kkv

import (
	"fmt"

	"github.com/kkv-project/kkv/internal/position"
)

// Position says how far in the topic something has come: a read, a write, a watch. It is immutable and safe for
// concurrent use. The zero value knows nothing, and every Position covers it.
//
// Its text is opaque: store it, send it to another process, give it to any replica of the topic, but do not take it
// apart. It consists of characters that need no escaping in a URL.
type Position struct {
	p position.Position
}

// ParsePosition reads what [Position.String] wrote; the empty string is the zero Position.
func ParsePosition(s string) (Position, error) {
	p, err := position.Parse(s)
	if err != nil {
		return Position{}, fmt.Errorf("kkv: %w", err)
	}
	return Position{p}, nil
}

// String is the position's opaque text, "" for the zero Position.
func (p Position) String() string { return p.p.String() }

// MarshalText is String, for encoding/json and friends.
func (p Position) MarshalText() ([]byte, error) { return p.p.MarshalText() }

// UnmarshalText is [ParsePosition].
func (p *Position) UnmarshalText(b []byte) (err error) {
	*p, err = ParsePosition(string(b))
	return err
}

// IsZero reports whether p knows nothing.
func (p Position) IsZero() bool { return p.p.IsZero() }

// Covers reports whether everything that q has seen, p has seen too. Of two positions neither may cover the other;
// positions of a topic and of its re-creation never do.
func (p Position) Covers(q Position) bool { return p.p.Covers(q.p) }

// Merge is the lowest position that covers both. Of a topic and its re-creation it keeps the newer one.
func (p Position) Merge(q Position) Position { return Position{p.p.Merge(q.p)} }
