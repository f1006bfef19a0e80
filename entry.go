package kkv

import (
	"strconv"
	"time"

	"github.com/kkv-project/kkv/internal/wire"
)

// Header is a Kafka record header.
type Header struct {
	// Key is the header's name. [Client.Get] learns it from an HTTP header, whose names have no case: there it
	// comes in the canonical form ("Trace-Id"). A Mirror and a Watch give it exactly.
	Key   string
	Value []byte
}

// Entry is a key with its newest record. An Entry from a [Mirror] shares its memory with the mirror: neither Value
// nor Headers may be modified.
type Entry struct {
	Key string // any bytes; not always UTF-8
	// Value is the record's value, byte for byte. It is nil only where no value was sent: in a delete, and in a
	// watch with KeysOnly.
	Value     []byte
	Partition int32
	// Offset is the record's offset in Partition, -1 where it is not known (see [Mirror.OnUpdate]).
	Offset    int64
	Timestamp time.Time // the record's own, in milliseconds; zero if unknown
	Headers   []Header
}

// Update is a change of a [Mirror]: the key's new Entry, or, if Deleted, the key with the record that took it away.
type Update struct {
	Entry
	Deleted bool
}

// Kind tells what a [Change] is about.
type Kind uint8

// The kinds of Change.
const (
	Put      Kind = iota + 1 // the key has this value
	Delete                   // the key is gone
	Synced                   // up to here came the state, or after a resume what changed since: now all is told up to Position
	Progress                 // nothing changed; the stream is current as of Position
	Reset                    // forget every key that is not put again before the next Synced
)

// String is the kind's name on the wire, such as "put".
func (k Kind) String() string {
	switch k {
	case Put:
		return wire.Put
	case Delete:
		return wire.Delete
	case Synced:
		return wire.Synced
	case Progress:
		return wire.Progress
	case Reset:
		return wire.Reset
	}
	return "kind " + strconv.Itoa(int(k))
}

// Change is one event of a [Client.Watch].
type Change struct {
	Entry // of a Put and a Delete
	Kind  Kind
	// Position is where the stream stands after this event. It is zero for the events of a state before its
	// Synced, and inside a batch, whose last event has it.
	Position Position
	// Reason says why a Reset came, or "expired" for a key that retention took away.
	Reason string
}

func kindOf(typ string) (Kind, bool) {
	for k := Put; k <= Reset; k++ {
		if k.String() == typ {
			return k, true
		}
	}
	return 0, false
}

// entryOf takes over the bytes of c.
func entryOf(c *wire.Change) Entry {
	e := Entry{Key: string(c.Key), Value: c.Value, Partition: c.Partition, Offset: c.Offset}
	if c.Timestamp > 0 {
		e.Timestamp = time.UnixMilli(c.Timestamp)
	}
	if len(c.Headers) > 0 {
		e.Headers = make([]Header, len(c.Headers))
		for i, h := range c.Headers {
			e.Headers[i] = Header{Key: h.Key, Value: h.Value}
		}
	}
	return e
}
