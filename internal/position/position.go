// Package position is the one type in which everything that waits, resumes or proves freshness speaks:
// the vector of a topic's fetch positions, its order, and its text form (GUARANTEES rule 1).
//
// It is a leaf: it knows neither Kafka clients nor HTTP.
package position

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Absent is the Next of a partition that a Position says nothing about.
const Absent int64 = -1

// EpochUnknown is the leader epoch of a component whose issuer did not learn it, as after a produce.
const EpochUnknown int32 = -1

const (
	maxText       = 1 << 20 // bytes of text that Parse reads
	maxPartitions = 1 << 16 // Kafka clusters end well below this
)

// ErrSyntax is wrapped by every error of Parse.
var ErrSyntax = errors.New("malformed position")

// Partition is one component of a Position.
type Partition struct {
	// Next is the offset of the first record not yet covered; Absent where the Position says nothing.
	Next int64
	// Epoch is the leader epoch of the last record before Next (KIP-101), EpochUnknown if not learnt.
	Epoch int32
	// LogStart is the partition's log start offset as the issuer knew it.
	LogStart int64
}

// Position is an immutable vector of fetch positions of one incarnation of a topic. The zero value knows
// nothing and is covered by every Position. It is safe for concurrent use.
type Position struct {
	topicID [16]byte
	asOf    int64 // milliseconds since the Unix epoch; 0: issued by a write, never proved current
	parts   []Partition
}

// New makes a Position of the topic's incarnation topicID. asOf is the time at which the issuer had proved the
// vector current, the zero time if it never did (a position that comes from a write alone). parts is indexed by
// partition number and copied.
func New(topicID [16]byte, asOf time.Time, parts []Partition) Position {
	p := Position{topicID: topicID, parts: slices.Clone(parts)}
	if !asOf.IsZero() {
		p.asOf = asOf.UnixMilli()
	}
	p.trim()
	return p
}

// FromWrite is the Position of one acknowledged record: at or after offset+1 in its partition.
func FromWrite(topicID [16]byte, partition int32, offset int64) Position {
	parts := make([]Partition, partition+1)
	for i := range parts {
		parts[i].Next = Absent
	}
	parts[partition] = Partition{Next: offset + 1, Epoch: EpochUnknown}
	return Position{topicID: topicID, parts: parts}
}

func (p *Position) trim() {
	n := len(p.parts)
	for n > 0 && p.parts[n-1].Next < 0 {
		n--
	}
	p.parts = p.parts[:n]
	for i := range p.parts {
		if p.parts[i].Next < 0 {
			p.parts[i] = Partition{Next: Absent}
		}
	}
}

// IsZero reports whether p knows nothing at all.
func (p Position) IsZero() bool { return p.topicID == [16]byte{} && len(p.parts) == 0 }

// TopicID is Kafka's ID of the topic's incarnation (KIP-516).
func (p Position) TopicID() [16]byte { return p.topicID }

// AsOf is the time, in milliseconds, at which the issuer had proved p current; the zero time if never.
func (p Position) AsOf() time.Time {
	if p.asOf == 0 {
		return time.Time{}
	}
	return time.UnixMilli(p.asOf)
}

// Len is one more than the highest partition that p speaks about.
func (p Position) Len() int { return len(p.parts) }

// Partition is p's component for partition i; its Next is Absent where p says nothing.
func (p Position) Partition(i int32) Partition {
	if i < 0 || int(i) >= len(p.parts) {
		return Partition{Next: Absent}
	}
	return p.parts[i]
}

// Covers reports whether everything that q has seen, p has seen too: the same incarnation, and no component
// of q ahead of p's. It is a partial order: of two positions neither may cover the other.
func (p Position) Covers(q Position) bool {
	if q.IsZero() {
		return true
	}
	if p.topicID != q.topicID {
		return false
	}
	for i, c := range q.parts {
		if c.Next > p.Partition(int32(i)).Next {
			return false
		}
	}
	return true
}

// Same reports whether p and q are one vector, log starts and epochs included, whenever either was proved current.
func (p Position) Same(q Position) bool {
	return p.topicID == q.topicID && slices.Equal(p.parts, q.parts)
}

// Merge is the lowest Position that covers both. Of two incarnations it keeps the one proved current later,
// and q where neither ever was. Unless one covers the other, the result is as of the older of the two, since
// only then both were proved; with a write's position it is proved at no time.
func (p Position) Merge(q Position) Position {
	switch {
	case p.Covers(q):
		return p
	case q.Covers(p):
		return q
	case p.topicID != q.topicID:
		if p.asOf > q.asOf {
			return p
		}
		return q
	}
	m := Position{topicID: p.topicID, asOf: min(p.asOf, q.asOf), parts: slices.Clone(p.parts)}
	for i, c := range q.parts {
		switch {
		case i >= len(m.parts):
			m.parts = append(m.parts, c)
		case c.Next > m.parts[i].Next:
			m.parts[i] = c
		}
	}
	return m
}

// String is the text form: "" for the zero value, else
//
//	<topic ID, base64url> "~" <as of, ms in base 36> "~" <component> *("." <component>)
//	component = [ next [ "-" [ epoch ] ] [ "_" log-start ] ]
//
// in which an empty component is absent, no "-" means epoch 0, "-" without digits an unknown epoch, and no "_"
// a log start of 0. Every character is unreserved in URLs (RFC 3986). The form is opaque by contract.
func (p Position) String() string {
	if p.IsZero() {
		return ""
	}
	b := make([]byte, 0, 32+8*len(p.parts))
	b = base64.RawURLEncoding.AppendEncode(b, p.topicID[:])
	b = append(b, '~')
	if p.asOf != 0 {
		b = strconv.AppendInt(b, p.asOf, 36)
	}
	b = append(b, '~')
	for i, c := range p.parts {
		if i > 0 {
			b = append(b, '.')
		}
		if c.Next < 0 {
			continue
		}
		b = strconv.AppendInt(b, c.Next, 10)
		switch {
		case c.Epoch < 0:
			b = append(b, '-')
		case c.Epoch > 0:
			b = append(b, '-')
			b = strconv.AppendInt(b, int64(c.Epoch), 10)
		}
		if c.LogStart > 0 {
			b = append(b, '_')
			b = strconv.AppendInt(b, c.LogStart, 10)
		}
	}
	return string(b)
}

// MarshalText is String, for encoding/json and friends.
func (p Position) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText is Parse.
func (p *Position) UnmarshalText(b []byte) (err error) {
	*p, err = Parse(string(b))
	return err
}

// Parse reads what String wrote; the empty string is the zero Position. Errors wrap ErrSyntax.
func Parse(s string) (Position, error) {
	if s == "" {
		return Position{}, nil
	}
	bad := func(why string) (Position, error) {
		return Position{}, fmt.Errorf("%w: %s; pass back a Kkv-Position exactly as it was answered", ErrSyntax, why)
	}
	if len(s) > maxText {
		return bad("too long")
	}
	id, rest, ok := strings.Cut(s, "~")
	asOf, parts, ok2 := strings.Cut(rest, "~")
	if !ok || !ok2 {
		return bad("want three fields joined by ~")
	}
	var p Position
	raw, err := base64.RawURLEncoding.Strict().DecodeString(id)
	if err != nil || len(raw) != len(p.topicID) {
		return bad("the topic ID is not 16 bytes of base64url")
	}
	copy(p.topicID[:], raw)
	if asOf != "" {
		if p.asOf, err = strconv.ParseInt(asOf, 36, 64); err != nil || p.asOf <= 0 || asOf[0] == '+' {
			return bad("the time is not a number in base 36")
		}
	}
	if parts != "" {
		if strings.Count(parts, ".") >= maxPartitions {
			return bad("too many partitions")
		}
		for c := range strings.SplitSeq(parts, ".") {
			comp, ok := parseComponent(c)
			if !ok {
				return bad("component " + strconv.Quote(c) + " is not next[-epoch][_start]")
			}
			p.parts = append(p.parts, comp)
		}
	}
	p.trim()
	return p, nil
}

func parseComponent(s string) (Partition, bool) {
	if s == "" {
		return Partition{Next: Absent}, true
	}
	var c Partition
	var ok bool
	if i := strings.IndexByte(s, '_'); i >= 0 {
		if c.LogStart, ok = digits(s[i+1:], 63); !ok {
			return c, false
		}
		s = s[:i]
	}
	if i := strings.IndexByte(s, '-'); i >= 0 {
		if i+1 == len(s) {
			c.Epoch = EpochUnknown
		} else {
			e, ok := digits(s[i+1:], 31)
			if !ok {
				return c, false
			}
			c.Epoch = int32(e)
		}
		s = s[:i]
	}
	c.Next, ok = digits(s, 63)
	return c, ok
}

func digits(s string, bits int) (int64, bool) {
	if s == "" || s[0] < '0' || s[0] > '9' {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, bits)
	return int64(n), err == nil
}
