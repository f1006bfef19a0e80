package store

import (
	"bytes"
	"slices"
)

const leafLen = 256

// leaf holds numbers of keys in the keys' order.
type leaf struct {
	gen uint64
	n   int
	ids [leafLen]uint32
}

// order is the numbers of all live keys in the keys' order: a list of leaves, none empty. Leaves, and the list, are
// copied before a change if a snapshot may share them.
type order struct {
	gen    uint64 // of the slice leaves
	leaves []*leaf
	n      int
}

func (o *order) bytes() int64 {
	return int64(len(o.leaves))*(leafLen*4+16) + int64(cap(o.leaves))*8
}

// seek returns the place of the first key not below key: its leaf and its place in it. Past the last key it is the
// end of the last leaf.
func (o *order) seek(key []byte, keyOf func(uint32) []byte) (li, i int) {
	if len(o.leaves) == 0 {
		return 0, 0
	}
	li, found := slices.BinarySearchFunc(o.leaves, key, func(l *leaf, key []byte) int { return bytes.Compare(keyOf(l.ids[0]), key) })
	if found {
		return li, 0
	}
	if li > 0 {
		li--
	}
	l := o.leaves[li]
	i, _ = slices.BinarySearchFunc(l.ids[:l.n], key, func(id uint32, key []byte) int { return bytes.Compare(keyOf(id), key) })
	return li, i
}

// own makes the leaf at li, and the list, ones that no snapshot sees.
func (o *order) own(gen uint64, li int) *leaf {
	o.ownList(gen)
	l := o.leaves[li]
	if l.gen != gen {
		c := *l
		c.gen = gen
		l = &c
		o.leaves[li] = l
	}
	return l
}

func (o *order) ownList(gen uint64) {
	if o.gen != gen {
		o.leaves, o.gen = append(make([]*leaf, 0, len(o.leaves)+len(o.leaves)/8+1), o.leaves...), gen
	}
}

// add takes in a key that is not there.
func (o *order) add(gen uint64, id uint32, keyOf func(uint32) []byte) {
	o.n++
	if len(o.leaves) == 0 {
		o.ownList(gen)
		l := &leaf{gen: gen, n: 1}
		l.ids[0] = id
		o.leaves = append(o.leaves, l)
		return
	}
	li, i := o.seek(keyOf(id), keyOf)
	l := o.own(gen, li)
	if l.n == leafLen {
		half := leafLen / 2
		if li == len(o.leaves)-1 && i == leafLen {
			half = leafLen - 1 // keys that come in order fill their leaves
		}
		r := &leaf{gen: gen, n: leafLen - half}
		copy(r.ids[:], l.ids[half:])
		l.n = half
		o.leaves = slices.Insert(o.leaves, li+1, r)
		if i > half {
			l, i = r, i-half
		}
	}
	copy(l.ids[i+1:l.n+1], l.ids[i:l.n])
	l.ids[i] = id
	l.n++
}

// remove forgets a key that is there.
func (o *order) remove(gen uint64, id uint32, keyOf func(uint32) []byte) {
	o.n--
	li, i := o.seek(keyOf(id), keyOf)
	l := o.own(gen, li)
	copy(l.ids[i:], l.ids[i+1:l.n])
	l.n--
	// A leaf that runs low joins its neighbour, so that many deletes do not leave many leaves.
	if l.n >= leafLen/4 {
		return
	}
	if li+1 < len(o.leaves) && l.n+o.leaves[li+1].n <= leafLen*3/4 {
		r := o.leaves[li+1]
		l.n += copy(l.ids[l.n:], r.ids[:r.n])
		o.leaves = slices.Delete(o.leaves, li+1, li+2)
	} else if li > 0 && l.n+o.leaves[li-1].n <= leafLen*3/4 {
		p := o.own(gen, li-1)
		p.n += copy(p.ids[p.n:], l.ids[:l.n])
		o.leaves = slices.Delete(o.leaves, li, li+1)
	} else if l.n == 0 {
		o.leaves = slices.Delete(o.leaves, li, li+1)
	}
}
