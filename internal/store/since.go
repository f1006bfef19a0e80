package store

import (
	"bytes"
	"iter"
)

// Cut is how far a reader was in one partition.
type Cut struct {
	Next     int64 // it has seen every record below this offset
	LogStart int64 // and knew that records below this one had expired
}

// Kind is what became of a key.
type Kind uint8

// The kinds.
const (
	Put     Kind = iota // it has this value
	Deleted             // a tombstone took it
	Expired             // the log's start moved past its record
)

// Diff is what became of the keys that a reader at some cuts has missed, all at one position (GUARANTEES rule 11). Any
// goroutine may read it, without a lock.
type Diff struct {
	snap    Snapshot
	cuts    []Cut
	shadows [][]byte // keys with a live record at or after the cut that is not their value
	tombs   []*slab
	last    int // used bytes of the last of tombs
}

// Since takes the difference between the present state and what a reader at cuts has seen. cuts is indexed by partition;
// one that it lacks is read from its start. The Store must be Ordered. It takes O(1), and O(keys that live in several
// partitions).
func (s *Store) Since(cuts []Cut) *Diff {
	d := &Diff{snap: s.Snapshot(), cuts: cuts, tombs: s.tombs.slabs}
	if n := len(d.tombs); n > 0 {
		d.last = d.tombs[n-1].used
	}
	var r Record
	for key, among := range s.shadows {
		for _, l := range among {
			if s.read(l, &r); d.missed(&r) {
				d.shadows = append(d.shadows, []byte(key))
				break
			}
		}
	}
	return d
}

func (d *Diff) cut(partition int32) Cut {
	if int(partition) < len(d.cuts) {
		return d.cuts[partition]
	}
	return Cut{}
}

// missed: the reader has not seen the live record or tombstone r.
func (d *Diff) missed(r *Record) bool { return r.Offset >= d.cut(r.Partition).Next }

// All yields the keys that begin with prefix, each once, with what became of it: its record where it is a Put, else
// the last one that took it, without a value. First come the puts whose record is new. The Record is reused from one to
// the next; its bytes are views that stay good.
func (d *Diff) All(prefix []byte) iter.Seq2[*Record, Kind] {
	return func(yield func(*Record, Kind) bool) {
		for r := range d.live(prefix) {
			if !yield(r, Put) {
				return
			}
		}
		told := map[string]struct{}{}
		var now Record
		tell := func(key []byte, gone *Record) bool {
			if _, again := told[string(key)]; again || !bytes.HasPrefix(key, prefix) {
				return true
			}
			told[string(key)] = struct{}{}
			switch {
			case d.snap.Get(key, &now):
				return d.missed(&now) || yield(&now, Put) // if missed it was told above
			case gone == nil:
				return true
			case gone.Value != nil:
				gone.Value = nil
				return yield(gone, Expired)
			}
			return yield(gone, Deleted)
		}
		for _, key := range d.shadows {
			if !tell(key, nil) {
				return
			}
		}
		d.gone(func(r *Record) bool { return tell(r.Key, r) })
	}
}

// live yields the winning records that the reader has not seen. It looks only into slabs that hold any; where that is
// most of them, it goes by the order of keys, which reads each key once.
func (d *Diff) live(prefix []byte) iter.Seq[*Record] {
	return func(yield func(*Record) bool) {
		var hot []int
		for i, sl := range d.snap.slabs {
			if sl != nil && (i == d.snap.cur || sl.missed(d)) {
				hot = append(hot, i)
			}
		}
		if len(prefix) > 0 || len(hot) > 2 && len(hot)*4 > len(d.snap.slabs) {
			for r := range d.snap.All(prefix, nil) {
				if d.missed(r) && !yield(r) {
					return
				}
			}
			return
		}
		var r, now Record
		for _, i := range hot {
			sl, used := d.snap.slabs[i], d.snap.used
			if i != d.snap.cur {
				used = sl.used
			}
			for at := 0; at < used; {
				at += decode(sl.buf[at:], &r, sl.base)
				// Of a key's records, only one is its value now: the one with its partition and offset.
				if d.missed(&r) && d.snap.Get(r.Key, &now) && now.Partition == r.Partition && now.Offset == r.Offset && !yield(&r) {
					return
				}
			}
		}
	}
}

// missed: the slab holds, or held, something that the reader has not seen.
func (sl *slab) missed(d *Diff) bool {
	for p := range sl.spans { // the writer may change lo meanwhile
		if sl.spans[p].hi > d.cut(int32(p)).Next {
			return true
		}
	}
	return false
}

// gone calls f for what went that the reader has not seen going, the newest first, until f is false.
func (d *Diff) gone(f func(*Record) bool) {
	var starts []int
	var r Record
	for i := len(d.tombs) - 1; i >= 0; i-- {
		sl, used := d.tombs[i], d.last
		if i < len(d.tombs)-1 {
			if used = sl.used; !sl.missed(d) {
				continue
			}
		}
		starts = starts[:0]
		for at := 0; at < used; {
			starts = append(starts, at)
			at += decode(sl.buf[at:], &r, sl.base)
		}
		for n := len(starts) - 1; n >= 0; n-- {
			decode(sl.buf[starts[n]:], &r, sl.base)
			unseen := d.missed(&r)
			if r.Value != nil {
				unseen = r.Offset >= d.cut(r.Partition).LogStart
			}
			if unseen && !f(&r) {
				return
			}
		}
	}
}
