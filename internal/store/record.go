package store

import (
	"encoding/binary"

	"github.com/kkv-project/kkv/internal/wire"
)

// Record is one record of the log. The bytes of a Record that a Store returns are the Store's: never change them.
type Record struct {
	Key       []byte
	Value     []byte // nil: a tombstone
	Partition int32
	Offset    int64
	Epoch     int32 // leader epoch of the record's batch (KIP-101), -1 where Kafka named none
	Timestamp int64 // milliseconds since the Unix epoch
	Headers   wire.Headers
	Conflict  bool // of Get: the key lives in other partitions, too (GUARANTEES rule 14)
}

// wins tells which of two live records of one key in two partitions is its value: the later timestamp, then the
// higher partition, so that the value is a function of the compacted partitions alone (GUARANTEES rule 14).
func (r *Record) wins(o *Record) bool {
	if r.Timestamp != o.Timestamp {
		return r.Timestamp > o.Timestamp
	}
	return r.Partition > o.Partition
}

// payload is what a user has given: key, value and headers, in bytes.
func (r *Record) payload() int64 { return int64(len(r.Key) + len(r.Value) + len(r.Headers)) }

// A record in a slab, all numbers as varints (those marked z zigzag-encoded):
//
//	partition<<1 | has headers, offset, z epoch, z timestamp - the slab's first, len(key), len(value)+1 or 0 for a
//	tombstone, [len(headers)], key, value, [headers]
const maxRecordHeader = 7 * binary.MaxVarintLen64

// encode writes r to the start of b, which has room, and returns how many bytes it took.
func encode(b []byte, r *Record, base int64) int {
	flag := uint64(0)
	if len(r.Headers) > 0 {
		flag = 1
	}
	n := binary.PutUvarint(b, uint64(r.Partition)<<1|flag)
	n += binary.PutUvarint(b[n:], uint64(r.Offset))
	n += binary.PutVarint(b[n:], int64(r.Epoch))
	n += binary.PutVarint(b[n:], r.Timestamp-base)
	n += binary.PutUvarint(b[n:], uint64(len(r.Key)))
	if r.Value == nil {
		n += binary.PutUvarint(b[n:], 0)
	} else {
		n += binary.PutUvarint(b[n:], uint64(len(r.Value))+1)
	}
	if flag != 0 {
		n += binary.PutUvarint(b[n:], uint64(len(r.Headers)))
	}
	n += copy(b[n:], r.Key)
	n += copy(b[n:], r.Value)
	return n + copy(b[n:], r.Headers)
}

// decode reads the record at the start of b into r, as views, and returns how many bytes it takes.
func decode(b []byte, r *Record, base int64) int {
	n := 0
	next := func() uint64 {
		v := uint64(b[n])
		n++
		if v < 0x80 {
			return v
		}
		v &= 0x7f
		for shift := 7; ; shift += 7 {
			c := uint64(b[n])
			n++
			v |= (c & 0x7f) << shift
			if c < 0x80 {
				return v
			}
		}
	}
	zigzag := func() int64 {
		v := next()
		return int64(v>>1) ^ -int64(v&1)
	}
	first := next()
	r.Partition = int32(first >> 1)
	r.Offset = int64(next())
	r.Epoch = int32(zigzag())
	r.Timestamp = zigzag() + base
	key, value, headers := int(next()), int(next()), 0
	if first&1 != 0 {
		headers = int(next())
	}
	r.Key = b[n : n+key : n+key]
	n += key
	r.Value = nil
	if value > 0 {
		r.Value = b[n : n+value-1 : n+value-1]
		n += value - 1
	}
	r.Headers = nil
	if headers > 0 {
		r.Headers = b[n : n+headers : n+headers]
		n += headers
	}
	return n
}

// keyOf is decode for the key alone.
func keyOf(b []byte) []byte {
	n := 0
	for range 4 {
		for b[n] >= 0x80 {
			n++
		}
		n++
	}
	key, w := binary.Uvarint(b[n:])
	n += w
	_, w = binary.Uvarint(b[n:])
	n += w
	if b[0]&1 != 0 {
		_, w = binary.Uvarint(b[n:])
		n += w
	}
	return b[n : n+int(key) : n+int(key)]
}
