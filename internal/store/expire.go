package store

import (
	"hash/maphash"
	"math"
	"slices"
)

// note keeps in mind that the slab has a record from there, and returns how many partitions it has one of for the first
// time, lower ones included.
func (sl *slab) note(partition int32, offset int64) (more int) {
	for int(partition) >= len(sl.spans) {
		sl.spans = append(sl.spans, span{lo: math.MaxInt64})
		more++
	}
	sp := &sl.spans[partition]
	sp.lo, sp.hi = min(sp.lo, offset), max(sp.hi, offset+1)
	return more
}

// Expire removes live records of partition that lie below offset, at most so many of them, and remembers that they
// went (GUARANTEES rule 13). It calls f with each and what that did to its key, and reports whether none are left.
func (s *Store) Expire(partition int32, offset int64, most int, f func(gone *Record, e Effect)) (all bool) {
	var found []Record
	for i := 0; i < len(s.slabs) && len(found) < most; i++ {
		sl := s.slabs[i]
		if sl == nil || sl.dead == sl.used || int(partition) >= len(sl.spans) || sl.spans[partition].lo >= offset {
			continue
		}
		var r Record
		for at := 0; at < sl.used && len(found) < most; {
			l := loc(uint64(i)<<32 | uint64(at))
			at += decode(sl.buf[at:], &r, sl.base)
			if r.Partition == partition && r.Offset < offset && s.lives(&r, l) {
				found = append(found, r)
			}
		}
		if len(found) < most {
			sl.spans[partition].lo = offset // what there was below is found, and goes: it is not looked for again
		}
	}
	for i := range found {
		r := &found[i]
		e := s.apply(&Record{Key: r.Key, Partition: partition, Offset: r.Offset, Epoch: r.Epoch, Timestamp: r.Timestamp}, true)
		f(r, e)
	}
	return len(found) < most
}

// lives: r, which lies at l, is its key's value, or would be but for one in another partition.
func (s *Store) lives(r *Record, l loc) bool {
	id := s.find(maphash.Bytes(s.seed, r.Key), r.Key)
	if id == 0 {
		return false
	}
	return s.locs.get(id) == l || len(s.shadows) > 0 && slices.Contains(s.shadows[string(r.Key)], l)
}
