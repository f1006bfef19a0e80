package store

import (
	"bytes"
	"encoding/binary"
	"slices"
)

const (
	buckets    = 256
	bucketMin  = 4096 // keys: fewer are sorted in one go
	sampleEach = 8    // keys looked at for each bucket, so that buckets come out alike
)

// sortIDs packs keys, given by their numbers in any order, which it permutes, into leaves. Beyond ids and the leaves it
// takes a byte a key: sorting all keys at once would take four times ids, at the very moment at which a load takes most.
func sortIDs(gen uint64, ids []uint32, keyOf func(uint32) []byte) order {
	p := packer{gen: gen, order: order{gen: gen, leaves: make([]*leaf, 0, len(ids)/leafFill+1), n: len(ids)}}
	splits := splitters(ids, keyOf)
	bounds := distribute(ids, splits, keyOf)
	var keys []sortKey
	for b, end := range bounds {
		from := 0
		if b > 0 {
			from = bounds[b-1]
		}
		keys = keys[:0]
		for _, id := range ids[from:end] {
			keys = append(keys, sortKey{id: id})
		}
		depth := 0
		if b > 0 && b < len(splits) { // what both ends of a bucket begin with, all keys between them do
			depth = commonPrefix(splits[b-1], splits[b])
		}
		sortByKey(keys, depth, keyOf)
		for i := range keys {
			p.add(keys[i].id)
		}
	}
	return p.order
}

// splitters are keys, in order, that part all keys into buckets of about one size. ids come in the order of a hash, so that the
// first are as good a sample as any.
func splitters(ids []uint32, keyOf func(uint32) []byte) (splits [][]byte) {
	n := min(buckets, len(ids)/bucketMin)
	if n < 2 {
		return nil
	}
	sample := make([][]byte, 0, n*sampleEach)
	for _, id := range ids[:n*sampleEach] {
		sample = append(sample, keyOf(id))
	}
	slices.SortFunc(sample, bytes.Compare)
	for i := sampleEach; i < len(sample); i += sampleEach {
		splits = append(splits, sample[i])
	}
	return splits
}

// distribute permutes ids in place so that those of one bucket lie together, and returns where each bucket ends. A key belongs
// to the bucket of the number of splitters at or below it.
func distribute(ids []uint32, splits [][]byte, keyOf func(uint32) []byte) (ends []int) {
	next, ends := make([]int, len(splits)+1), make([]int, len(splits)+1)
	of := make([]uint8, len(ids))
	find := finder(splits)
	for i, id := range ids {
		b := find(keyOf(id))
		of[i] = uint8(b)
		ends[b]++
	}
	for b := 1; b < len(ends); b++ {
		next[b] = ends[b-1]
		ends[b] += ends[b-1]
	}
	for b := range ends {
		for next[b] < ends[b] {
			i := next[b]
			if to := int(of[i]); to != b {
				j := next[to]
				ids[i], ids[j], of[i], of[j] = ids[j], ids[i], of[j], of[i]
				next[to]++
			} else {
				next[b]++
			}
		}
	}
	return ends
}

// finder returns a function that counts the splitters at or below a key. It compares eight bytes, from where splitters begin to
// differ, before it compares whole keys.
func finder(splits [][]byte) func(key []byte) int {
	if len(splits) == 0 {
		return func([]byte) int { return 0 }
	}
	depth := commonPrefix(splits[0], splits[len(splits)-1])
	prefix := splits[0][:depth]
	chunks := make([]uint64, len(splits))
	for i, s := range splits {
		chunks[i], _ = chunk(s[depth:])
	}
	return func(key []byte) int {
		if !bytes.HasPrefix(key, prefix) { // below all splitters or above all
			if bytes.Compare(key, prefix) < 0 {
				return 0
			}
			return len(splits)
		}
		c, _ := chunk(key[depth:])
		n, above := 0, len(chunks)
		for n < above {
			if m := int(uint(n+above) / 2); chunks[m] <= c {
				n = m + 1
			} else {
				above = m
			}
		}
		for n > 0 && chunks[n-1] == c && bytes.Compare(splits[n-1], key) > 0 {
			n--
		}
		return n
	}
}

func commonPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// leafFill is how many keys a leaf gets when it is packed: there is room for some to come.
const leafFill = leafLen * 9 / 10

// packer makes leaves of keys that come in order.
type packer struct {
	gen   uint64
	order order
}

func (p *packer) add(id uint32) {
	n := len(p.order.leaves)
	if n == 0 || p.order.leaves[n-1].n == leafFill {
		p.order.leaves = append(p.order.leaves, &leaf{gen: p.gen})
		n++
	}
	l := p.order.leaves[n-1]
	l.ids[l.n] = id
	l.n++
}

// sortKey is a key's number with eight of its bytes.
type sortKey struct {
	chunk uint64
	id    uint32
	ends  bool // the key ends within these eight bytes, which zeros fill up
}

// chunk is the first eight bytes of a key's rest as a number, zeros filling up one that ends within them.
func chunk(rest []byte) (c uint64, ends bool) {
	if len(rest) >= 8 {
		return binary.BigEndian.Uint64(rest), false
	}
	var b [8]byte
	copy(b[:], rest)
	return binary.BigEndian.Uint64(b[:]), true
}

// sortByKey sorts numbers by their keys, eight bytes at a time: keys are fetched once for each eight bytes that
// groups of them share, not once for each comparison, for fetching is what takes the time.
func sortByKey(ids []sortKey, depth int, keyOf func(uint32) []byte) {
	for i := range ids {
		k := &ids[i]
		k.chunk, k.ends = chunk(keyOf(k.id)[depth:])
	}
	slices.SortFunc(ids, func(a, b sortKey) int {
		if a.chunk < b.chunk {
			return -1
		}
		if a.chunk > b.chunk {
			return 1
		}
		return 0
	})
	for len(ids) > 0 {
		n, ends := 1, ids[0].ends
		for n < len(ids) && ids[n].chunk == ids[0].chunk {
			ends = ends || ids[n].ends
			n++
		}
		switch run := ids[:n]; {
		case n == 1:
		case n <= 16 || ends: // a key that ends here looks like one that goes on with zeros
			slices.SortFunc(run, func(a, b sortKey) int { return bytes.Compare(keyOf(a.id)[depth:], keyOf(b.id)[depth:]) })
		default:
			sortByKey(run, depth+8, keyOf)
		}
		ids = ids[n:]
	}
}
