package store

import "math"

// tombstones remembers what went: deletions, and records that the log's start moved past. So a reader who resumes can
// be told of them (GUARANTEES rules 9, 11, 13). It keeps the newest, of all partitions together, up to a number of
// bytes.
type tombstones struct {
	slabs   []*slab // oldest first; a snapshot reads no further than its own length, and of the last no further than its used then
	bytes   int64
	limit   int64
	horizon []Cut // by partition: what went below Next, or expired below LogStart, may be missing
}

const (
	tombSlabLen     = 64 << 10
	tombstonesUsual = 4 << 20 // bytes that are kept where LimitTombstones says nothing
)

// add remembers that r's key went at r's offset: by a tombstone, or, where expired, by expiry of the record there.
func (t *tombstones) add(r *Record, expired bool) {
	m := Record{Key: r.Key, Partition: r.Partition, Offset: r.Offset, Epoch: r.Epoch, Timestamp: r.Timestamp}
	if expired {
		m.Value = []byte{} // marks it: a tombstone has none
	}
	need := maxRecordHeader + len(m.Key)
	n := len(t.slabs)
	if n == 0 || t.slabs[n-1].used+need > len(t.slabs[n-1].buf) {
		sl := &slab{buf: make([]byte, max(tombSlabLen, need)), base: m.Timestamp}
		t.slabs = append(t.slabs, sl)
		t.bytes += int64(len(sl.buf))
		t.drop()
		n = len(t.slabs)
	}
	sl := t.slabs[n-1]
	if sl.note(m.Partition, m.Offset); expired {
		sl.note(m.Partition, math.MaxInt64-1) // is told by the log's start, not by its offset: missed looks into every such slab
	}
	sl.used += encode(sl.buf[sl.used:], &m, sl.base)
}

// drop lets go of the oldest beyond the limit and moves the horizons past them.
func (t *tombstones) drop() {
	first := 0
	for ; t.bytes > t.limit && first < len(t.slabs)-1; first++ {
		old := t.slabs[first]
		var r Record
		for at := 0; at < old.used; {
			at += decode(old.buf[at:], &r, old.base)
			for int(r.Partition) >= len(t.horizon) {
				t.horizon = append(t.horizon, Cut{})
			}
			if h := &t.horizon[r.Partition]; r.Value == nil {
				h.Next = max(h.Next, r.Offset+1)
			} else {
				h.LogStart = max(h.LogStart, r.Offset+1)
			}
		}
		t.bytes -= int64(len(old.buf))
	}
	if first > 0 {
		t.slabs = append([]*slab(nil), t.slabs[first:]...)
	}
}

// LimitTombstones sets how many bytes of tombstones are remembered at most, and one slab of 64 KiB in any case; before,
// it is 4 MiB.
func (s *Store) LimitTombstones(bytes int64) {
	s.tombs.limit = bytes
	s.tombs.drop()
}

// Gone is a key of which a reader who was with another state has to be told.
type Gone struct {
	Record       // a tombstone for it, whose offset is its place; or the one that it had
	Expired bool // and which has expired
}

// Inherit remembers, besides what s has seen go itself, what went of old, whose place s takes, and the keys that went or
// went back to another partition's record with that.
func (s *Store) Inherit(old *Store, gone []Gone) {
	own := s.tombs.slabs
	s.tombs.slabs = append(append(make([]*slab, 0, len(old.tombs.slabs)+len(own)), old.tombs.slabs...), own...)
	s.tombs.bytes += old.tombs.bytes
	for p, h := range old.tombs.horizon {
		for p >= len(s.tombs.horizon) {
			s.tombs.horizon = append(s.tombs.horizon, Cut{})
		}
		mine := &s.tombs.horizon[p]
		mine.Next, mine.LogStart = max(mine.Next, h.Next), max(mine.LogStart, h.LogStart)
	}
	for i := range gone {
		s.tombs.add(&gone[i].Record, gone[i].Expired)
	}
	s.tombs.drop()
}

// Horizon is the lowest cut of partition from which on all that went is remembered.
func (s *Store) Horizon(partition int32) Cut {
	if int(partition) < len(s.tombs.horizon) {
		return s.tombs.horizon[partition]
	}
	return Cut{}
}
