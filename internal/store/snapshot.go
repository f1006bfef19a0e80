package store

import (
	"bytes"
	"iter"
)

// Snapshot is one state of a Store. The zero value is an empty one.
type Snapshot struct {
	slabs     []*slab
	cur, used int // the slab that was being filled, and how far
	pages     []*page
	order     order
}

// Snapshot takes the present state, in O(1). The Store must be Ordered.
func (s *Store) Snapshot() Snapshot {
	if !s.ordered {
		panic("store: a snapshot before FinishOrder")
	}
	return s.snapshot()
}

func (s *Store) snapshot() Snapshot {
	s.gen++ // from here on, what exists is shared
	snap := Snapshot{slabs: s.slabs, cur: s.cur, pages: s.locs.pages, order: s.order}
	if s.cur >= 0 {
		snap.used = s.slabs[s.cur].used
	}
	return snap
}

// Len is the number of keys.
func (s Snapshot) Len() int { return s.order.n }

func (s Snapshot) loc(id uint32) loc { return s.pages[id/pageLen].locs[id%pageLen] }

func (s Snapshot) key(id uint32) []byte {
	l := s.loc(id)
	return keyOf(s.slabs[l.slab()].buf[l.offset():])
}

// All yields the records of keys that begin with prefix and are greater than after, in key order. A nil after
// means from the first. The Record is reused from one to the next; its bytes are views that stay good.
func (s Snapshot) All(prefix, after []byte) iter.Seq[*Record] {
	return func(yield func(*Record) bool) {
		from := prefix
		if after != nil {
			if next := append(bytes.Clone(after), 0); bytes.Compare(next, from) > 0 {
				from = next
			}
		}
		li, i := s.order.seek(from, s.key)
		var r Record
		for ; li < len(s.order.leaves); li, i = li+1, 0 {
			l := s.order.leaves[li]
			for _, id := range l.ids[i:l.n] {
				at := s.loc(id)
				sl := s.slabs[at.slab()]
				decode(sl.buf[at.offset():], &r, sl.base)
				if !bytes.HasPrefix(r.Key, prefix) || !yield(&r) {
					return
				}
			}
		}
	}
}

// Get reads key's value into r, as views, and reports whether there is one.
func (s Snapshot) Get(key []byte, r *Record) bool {
	li, i := s.order.seek(key, s.key)
	if li == len(s.order.leaves) || i == s.order.leaves[li].n {
		return false
	}
	at := s.loc(s.order.leaves[li].ids[i])
	sl := s.slabs[at.slab()]
	decode(sl.buf[at.offset():], r, sl.base)
	return bytes.Equal(r.Key, key)
}
