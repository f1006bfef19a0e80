package store

// index maps the hash of a key to its number, by open addressing with linear probing. It is split in shards, each of
// which grows by itself and by a third, so that neither spare room nor growing takes much memory at a time.
//
// An entry is number<<32 | the low half of the hash. Its home is in proportion to that half, so that a shard's entries
// lie in the order of their hashes, growing is one pass, and no key need be looked at.
type index struct {
	shards [256]shard
	n      int
	room   int // entries of all shards
}

type shard struct {
	entries []uint64 // 0: free
	n       int
}

const (
	shardMin = 8
	fullNum  = 7 // a shard grows when more than fullNum/fullDen of it is taken
	fullDen  = 8
)

func (x *index) shard(hash uint64) *shard { return &x.shards[hash>>56] }

func (s *shard) home(low uint32) int { return int(uint64(low) * uint64(len(s.entries)) >> 32) }

// find returns the number of the key with this hash for which same holds, 0 if there is none.
func (x *index) find(hash uint64, same func(id uint32) bool) uint32 {
	s := x.shard(hash)
	if s.n == 0 {
		return 0
	}
	low := uint32(hash)
	for i := s.home(low); s.entries[i] != 0; {
		if e := s.entries[i]; uint32(e) == low && same(uint32(e>>32)) {
			return uint32(e >> 32)
		}
		if i++; i == len(s.entries) {
			i = 0
		}
	}
	return 0
}

// add takes in a key that find has not found.
func (x *index) add(hash uint64, id uint32) {
	s := x.shard(hash)
	if (s.n+1)*fullDen > len(s.entries)*fullNum {
		x.room += s.grow()
	}
	s.put(uint64(id)<<32 | uint64(uint32(hash)))
	s.n++
	x.n++
}

func (s *shard) put(e uint64) {
	i := s.home(uint32(e))
	for s.entries[i] != 0 {
		if i++; i == len(s.entries) {
			i = 0
		}
	}
	s.entries[i] = e
}

// grow returns how many entries more there are.
func (s *shard) grow() int {
	old := s.entries
	s.entries = make([]uint64, max(shardMin, len(old)+len(old)/3))
	for _, e := range old {
		if e != 0 {
			s.put(e)
		}
	}
	return len(s.entries) - len(old)
}

// remove forgets the key, closing the gap so that searches need no marks of what was deleted.
func (x *index) remove(hash uint64, id uint32) {
	s := x.shard(hash)
	want := uint64(id)<<32 | uint64(uint32(hash))
	i := s.home(uint32(hash))
	for s.entries[i] != want {
		if i++; i == len(s.entries) {
			i = 0
		}
	}
	n := len(s.entries)
	for j := i; ; {
		if j++; j == n {
			j = 0
		}
		e := s.entries[j]
		if e == 0 {
			break
		}
		// e may fill the gap at i unless its home lies behind the gap, cyclically within (i, j].
		if h := s.home(uint32(e)); (j-h+n)%n >= (j-i+n)%n {
			s.entries[i] = e
			i = j
		}
	}
	s.entries[i] = 0
	s.n--
	x.n--
}

func (x *index) bytes() int64 { return int64(x.room) * 8 }
