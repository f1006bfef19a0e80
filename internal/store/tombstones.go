package store

// tombstones remembers deletions, so that a reader who resumes can be told of them (GUARANTEES rules 9 and 11): the
// newest, of all partitions together, up to a number of bytes.
type tombstones struct {
	slabs   []*slab // oldest first; shared with snapshots, which read no further than the slabs' used at their time
	bytes   int64
	limit   int64
	horizon []int64 // by partition: tombstones below it may be missing
}

const (
	tombSlabLen   = 64 << 10
	tombstonesMin = 4 << 20 // bytes that are kept in any case
)

func (t *tombstones) add(r *Record) {
	m := Record{Key: r.Key, Partition: r.Partition, Offset: r.Offset, Epoch: r.Epoch, Timestamp: r.Timestamp}
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
	sl.used += encode(sl.buf[sl.used:], &m, sl.base)
}

// drop lets go of the oldest beyond the limit and moves the horizons past them.
func (t *tombstones) drop() {
	for t.bytes > max(t.limit, tombstonesMin) && len(t.slabs) > 1 {
		old := t.slabs[0]
		var r Record
		for at := 0; at < old.used; {
			at += decode(old.buf[at:], &r, old.base)
			for int(r.Partition) >= len(t.horizon) {
				t.horizon = append(t.horizon, 0)
			}
			t.horizon[r.Partition] = max(t.horizon[r.Partition], r.Offset+1)
		}
		t.bytes -= int64(len(old.buf))
		t.slabs = append([]*slab(nil), t.slabs[1:]...)
	}
}

// LimitTombstones sets how many bytes of tombstones are remembered at most; below 4 MiB means 4 MiB.
func (s *Store) LimitTombstones(bytes int64) {
	s.tombs.limit = bytes
	s.tombs.drop()
}

// Horizon is the offset in partition from which on every tombstone that was applied is remembered.
func (s *Store) Horizon(partition int32) int64 {
	if int(partition) < len(s.tombs.horizon) {
		return s.tombs.horizon[partition]
	}
	return 0
}

// Tombstones calls f for every remembered tombstone for which since, by its partition, is at or below its offset. The
// key may have been put again meanwhile. The Record is reused; its key is a view.
func (s *Store) Tombstones(since func(partition int32) int64, f func(*Record)) {
	var r Record
	for _, sl := range s.tombs.slabs {
		for at := 0; at < sl.used; {
			at += decode(sl.buf[at:], &r, sl.base)
			if r.Offset >= since(r.Partition) {
				f(&r)
			}
		}
	}
}
