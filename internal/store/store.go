package store

import (
	"bytes"
	"hash/maphash"
	"slices"
)

const (
	slabLen = 1 << 20
	// Dead bytes are reclaimed when they are more than one in deadShare of all slab bytes.
	deadShare   = 8
	reclaimMost = 8 // slabs rewritten for each one that is opened: bounds how long one Apply takes
)

// slab is a stretch of records. Its bytes are written once; only the Store reads the other fields that change.
type slab struct {
	buf   []byte // of full length from the start, so that readers see no slice header change
	base  int64  // what timestamps are relative to: the first record's
	used  int    // once another slab is being filled, this and the spans' hi change no more
	dead  int
	spans []span // by partition: where its records come from
}

// span is a stretch of one partition's offsets: a slab's records lie below hi, and those that live not below lo.
type span struct{ lo, hi int64 }

// Effect is what applying one record did to what a reader sees of its key.
type Effect struct {
	// Changed: a reader now sees another record, Now, or none.
	Changed bool
	// Deleted: the key has no live record any more.
	Deleted bool
	// Now is the key's record from here on, if Changed and not Deleted: a view.
	Now Record
	// Equal: Now's value is byte for byte what the key had before.
	Equal bool
}

// Store is described in the package comment.
type Store struct {
	seed  maphash.Seed
	gen   uint64 // above that of every snapshot taken
	index index
	locs  locs
	free  []uint32 // numbers of keys that are gone
	next  uint32   // the lowest number never given; 0 is none

	slabs    []*slab // nil: reclaimed
	slabsGen uint64
	holes    []int // indexes of reclaimed slabs
	cur      int   // the slab being filled, -1 before the first

	// shadows are the live records, but the winner, of keys that live in several partitions.
	shadows map[string][]loc

	order   order
	sorting *sorting // not nil from StartOrder to FinishOrder
	ordered bool

	tombs tombstones

	payload int64 // keys, values and headers of winners and shadows
	used    int64 // slab bytes with records
	dead    int64 // of these, those that belong to no live record
	total   int64 // slab bytes, room to come included
	spans   int   // of all slabs
}

// New makes an empty Store. Until FinishOrder it has no order: it is loaded faster so.
func New() *Store {
	return &Store{seed: maphash.MakeSeed(), gen: 1, next: 1, cur: -1, shadows: map[string][]loc{}, tombs: tombstones{limit: tombstonesUsual}}
}

// Len is the number of live keys.
func (s *Store) Len() int { return s.index.n }

// Bytes is the payload held: keys, values and headers of live records.
func (s *Store) Bytes() int64 { return s.payload }

// Conflicts is the number of keys that live in more than one partition (GUARANTEES rule 14).
func (s *Store) Conflicts() int { return len(s.shadows) }

// Memory says what the Store takes, in bytes.
type Memory struct {
	Payload    int64 // keys, values and headers of live records
	Slabs      int64 // all slabs: live records with their own fields, dead ones, room to come
	Live       int64 // of Slabs, what live records take with their own fields
	Dead       int64 // of Slabs, what belongs to no live record
	Index      int64 // hash index, locations and order
	Tombstones int64
}

// Total is all of it.
func (m Memory) Total() int64 { return m.Slabs + m.Index + m.Tombstones }

// Settled is what Total comes to, at most, once slabs are rewritten: an eighth of their bytes may stay dead, and one
// slab is being filled.
func (m Memory) Settled() int64 {
	return (m.Live*deadShare)/(deadShare-1) + slabLen + m.Index + m.Tombstones
}

// Memory counts what the Store itself takes now; what only snapshots keep alive is not in it.
func (s *Store) Memory() Memory {
	return Memory{Payload: s.payload, Slabs: s.total, Live: s.used - s.dead, Dead: s.dead, Tombstones: s.tombs.bytes,
		Index: s.index.bytes() + s.locs.bytes() + s.order.bytes() + int64(cap(s.free))*4 + int64(s.spans)*16}
}

func (s *Store) bytesAt(l loc) []byte { return s.slabs[l.slab()].buf[l.offset():] }

func (s *Store) key(id uint32) []byte { return keyOf(s.bytesAt(s.locs.get(id))) }

func (s *Store) read(l loc, r *Record) int {
	sl := s.slabs[l.slab()]
	return decode(sl.buf[l.offset():], r, sl.base)
}

func (s *Store) find(hash uint64, key []byte) uint32 {
	return s.index.find(hash, func(id uint32) bool { return bytes.Equal(s.key(id), key) })
}

// Get reads key's value into r, as views, and reports whether there is one. It allocates nothing.
func (s *Store) Get(key []byte, r *Record) bool {
	id := s.find(maphash.Bytes(s.seed, key), key)
	if id == 0 {
		return false
	}
	s.read(s.locs.get(id), r)
	r.Conflict = len(s.shadows) > 0 && s.shadows[string(key)] != nil
	return true
}

// Grows reports whether applying r would make live records take more bytes than now, in whole or in part.
func (s *Store) Grows(r *Record) bool {
	if r.Value == nil {
		return false
	}
	var old Record
	return !s.Get(r.Key, &old) || old.Partition != r.Partition || old.payload() < r.payload()
}

// Partitions lists the partitions in which key has a live record, the winner's first.
func (s *Store) Partitions(key []byte) []int32 {
	var r Record
	if !s.Get(key, &r) {
		return nil
	}
	ps := []int32{r.Partition}
	for _, l := range s.shadows[string(key)] {
		s.read(l, &r)
		ps = append(ps, r.Partition)
	}
	return ps
}

// Apply takes one record in, in log order per partition. The Store copies what it keeps.
func (s *Store) Apply(r *Record) Effect { return s.apply(r, false) }

// apply is Apply; expired: r, a tombstone, stands for the log's start having moved past what its partition had.
func (s *Store) apply(r *Record, expired bool) Effect {
	hash := maphash.Bytes(s.seed, r.Key)
	id := s.find(hash, r.Key)
	if r.Value == nil {
		s.tombs.add(r, expired)
	}
	if id == 0 {
		if r.Value == nil {
			return Effect{}
		}
		l := s.append(r)
		id = s.number()
		s.locs.set(s.gen, id, l)
		s.index.add(hash, id)
		s.arrived(id)
		e := Effect{Changed: true}
		s.read(l, &e.Now)
		return e
	}
	old := s.locs.get(id)
	var before Record
	s.read(old, &before)
	if before.Partition != r.Partition || len(s.shadows) > 0 && s.shadows[string(r.Key)] != nil {
		return s.applyAmong(hash, id, r, &before)
	}
	if r.Value == nil {
		s.bury(old, &before)
		s.gone(hash, id)
		s.reclaim(1)
		return Effect{Changed: true, Deleted: true}
	}
	l := s.append(r) // may rewrite slabs: old is looked up again
	e := Effect{Changed: true, Equal: bytes.Equal(before.Value, r.Value)}
	s.bury(s.locs.get(id), &before)
	s.locs.set(s.gen, id, l)
	s.read(l, &e.Now)
	return e
}

// applyAmong is Apply where the key lives, or will live, in several partitions.
func (s *Store) applyAmong(hash uint64, id uint32, r, before *Record) Effect {
	winner := loc(0)
	if r.Value != nil {
		winner = s.append(r) // before anything else is looked up, since it may rewrite slabs
	}
	was := s.locs.get(id)
	var live []loc // all but r's own partition's
	for _, l := range append([]loc{was}, s.shadows[string(r.Key)]...) {
		var o Record
		s.read(l, &o)
		if o.Partition == r.Partition {
			s.bury(l, &o)
		} else {
			live = append(live, l)
		}
	}
	delete(s.shadows, string(r.Key))
	if r.Value != nil {
		live = append(live, winner)
	}
	if len(live) == 0 {
		s.gone(hash, id)
		s.reclaim(1)
		return Effect{Changed: true, Deleted: true}
	}
	slices.SortFunc(live, func(a, b loc) int {
		var x, y Record
		s.read(a, &x)
		s.read(b, &y)
		if x.wins(&y) {
			return -1
		}
		return 1
	})
	if len(live) > 1 {
		s.shadows[string(r.Key)] = live[1:]
	}
	s.locs.set(s.gen, id, live[0])
	e := Effect{Changed: live[0] != was}
	s.read(live[0], &e.Now)
	e.Equal = e.Changed && bytes.Equal(e.Now.Value, before.Value)
	return e
}

// bury counts the record at l as dead; r is what stands there.
func (s *Store) bury(l loc, r *Record) {
	var again Record
	n := s.read(l, &again)
	s.slabs[l.slab()].dead += n
	s.dead += int64(n)
	s.payload -= r.payload()
}

// number gives a number to a key that comes.
func (s *Store) number() uint32 {
	if n := len(s.free); n > 0 {
		id := s.free[n-1]
		s.free = s.free[:n-1]
		return id
	}
	s.next++
	return s.next - 1
}

// arrived and gone keep the order, or note for the one being built what it must still learn.
func (s *Store) arrived(id uint32) {
	switch {
	case s.ordered:
		s.order.add(s.gen, id, s.key)
	case s.sorting != nil:
		s.sorting.since = append(s.sorting.since, id)
	}
}

func (s *Store) gone(hash uint64, id uint32) {
	s.index.remove(hash, id)
	switch {
	case s.ordered:
		s.order.remove(s.gen, id, s.key)
	case s.sorting != nil:
		s.sorting.since = append(s.sorting.since, id) // there no more; its number is not given again meanwhile
		s.sorting.gone = append(s.sorting.gone, id)
		return
	}
	s.free = append(s.free, id)
}

// append writes r to the slab being filled, and first, where that one is full, rewrites slabs that are mostly dead.
func (s *Store) append(r *Record) loc {
	need := maxRecordHeader + len(r.Key) + len(r.Value) + len(r.Headers)
	if s.cur < 0 || s.slabs[s.cur].used+need > len(s.slabs[s.cur].buf) {
		s.open(need, r.Timestamp)
		s.reclaim(reclaimMost)
		if s.slabs[s.cur].used+need > len(s.slabs[s.cur].buf) {
			s.open(need, r.Timestamp)
		}
	}
	l := s.write(r)
	s.payload += r.payload()
	return l
}

func (s *Store) write(r *Record) loc {
	sl := s.slabs[s.cur]
	l := loc(uint64(s.cur)<<32 | uint64(sl.used))
	n := encode(sl.buf[sl.used:], r, sl.base)
	sl.used += n
	s.used += int64(n)
	s.spans += sl.note(r.Partition, r.Offset)
	return l
}

// open starts a new slab; one record larger than a slab gets one of its own size.
func (s *Store) open(need int, base int64) {
	if s.cur >= 0 {
		s.trim(s.cur)
	}
	sl := &slab{buf: make([]byte, max(slabLen, need)), base: base}
	s.total += int64(len(sl.buf))
	if n := len(s.holes); n > 0 {
		s.ownSlabs()
		s.cur = s.holes[n-1]
		s.holes = s.holes[:n-1]
		s.slabs[s.cur] = sl
		return
	}
	s.cur = len(s.slabs)
	s.slabs = append(s.slabs, sl) // a snapshot reads no further than its own length
}

// trim gives back the room of a slab that was closed nearly empty, which is so for one record of several slabs' size.
func (s *Store) trim(i int) {
	sl := s.slabs[i]
	if room := len(sl.buf) - sl.used; room > slabLen/4 {
		s.ownSlabs()
		c := *sl
		c.buf = append(make([]byte, 0, sl.used), sl.buf[:sl.used]...)
		s.slabs[i] = &c
		s.total -= int64(room)
	}
}

// ownSlabs makes the list one that no snapshot sees, before an entry of it changes.
func (s *Store) ownSlabs() {
	if s.slabsGen != s.gen {
		s.slabs, s.slabsGen = append(make([]*slab, 0, cap(s.slabs)), s.slabs...), s.gen
	}
}

// reclaim rewrites the deadest slabs, up to most of them, while more than one in deadShare of the bytes is dead. It
// waits while an order is built, for which keys that are gone must stay readable.
func (s *Store) reclaim(most int) {
	if s.sorting != nil {
		return
	}
	for ; most > 0 && s.dead > slabLen && s.dead*deadShare > s.used; most-- {
		worst, share := -1, 0.0
		for i, sl := range s.slabs {
			if sl == nil || i == s.cur || sl.used == 0 {
				continue
			}
			if d := float64(sl.dead) / float64(sl.used); d > share {
				worst, share = i, d
			}
		}
		if worst < 0 {
			return
		}
		s.rewrite(worst)
	}
}

// rewrite appends the slab's live records anew and lets go of it. Snapshots and views keep what they need of it.
func (s *Store) rewrite(i int) {
	old := s.slabs[i]
	for at := 0; at < old.used && old.dead < old.used; {
		var r Record
		n := decode(old.buf[at:], &r, old.base)
		was := loc(uint64(i)<<32 | uint64(at))
		at += n
		id := s.index.find(maphash.Bytes(s.seed, r.Key), func(id uint32) bool {
			return s.locs.get(id) == was || len(s.shadows) > 0 && bytes.Equal(s.key(id), r.Key)
		})
		if id == 0 {
			continue
		}
		shadow := -1
		if s.locs.get(id) != was {
			if shadow = slices.Index(s.shadows[string(r.Key)], was); shadow < 0 {
				continue
			}
		}
		if s.slabs[s.cur].used+n+maxRecordHeader > len(s.slabs[s.cur].buf) { // its timestamp may take more bytes there
			s.open(n+maxRecordHeader, r.Timestamp)
		}
		l := s.write(&r)
		if shadow >= 0 {
			s.shadows[string(r.Key)][shadow] = l
		} else {
			s.locs.set(s.gen, id, l)
		}
	}
	s.used -= int64(old.used)
	s.dead -= int64(old.dead)
	s.total -= int64(len(old.buf))
	s.spans -= len(old.spans)
	s.ownSlabs()
	s.slabs[i] = nil
	s.holes = append(s.holes, i)
}

// sorting is an order being built while writes go on.
type sorting struct {
	since []uint32 // numbers of keys that came or went since
	gone  []uint32 // numbers to be given again afterwards
}

// StartOrder returns a function that sorts the keys held now, which takes about 0.2 s for a million. It may run
// on any goroutine, without the lock and while Apply goes on; its result is for FinishOrder.
func (s *Store) StartOrder() func() *Order {
	snap := s.snapshot()
	s.sorting = &sorting{}
	ids := make([]uint32, 0, s.index.n)
	for i := range s.index.shards {
		for _, e := range s.index.shards[i].entries {
			if e != 0 {
				ids = append(ids, uint32(e>>32))
			}
		}
	}
	gen := s.gen
	return func() *Order { return &Order{order: sortIDs(gen, ids, snap.key)} }
}

// Order is what StartOrder's function has built.
type Order struct{ order order }

// FinishOrder puts the order in force, with the keys that came or went while it was built. From then on snapshots
// can be listed.
func (s *Store) FinishOrder(o *Order) {
	built := s.sorting
	s.order, s.sorting, s.ordered = o.order, nil, true
	// A number in since may have come, gone, or both; keys that are gone are still found by their last record.
	seen := map[uint32]bool{}
	for _, id := range built.since {
		if seen[id] {
			continue
		}
		seen[id] = true
		key := s.key(id)
		is := s.find(maphash.Bytes(s.seed, key), key) == id
		li, i := s.order.seek(key, s.key)
		was := li < len(s.order.leaves) && i < s.order.leaves[li].n && s.order.leaves[li].ids[i] == id
		switch {
		case is && !was:
			s.order.add(s.gen, id, s.key)
		case !is && was:
			s.order.remove(s.gen, id, s.key)
		}
	}
	s.free = append(s.free, built.gone...)
}

// Ordered reports whether snapshots can be listed: FinishOrder has been called.
func (s *Store) Ordered() bool { return s.ordered }
