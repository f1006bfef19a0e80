package kkv

import (
	"iter"
	"slices"
	"strings"
)

// node is an immutable AVL tree of entries in key order. A change copies the path to it, so whoever holds a root
// holds that state for as long as it likes, without a lock: this is what makes Mirror.All one position and
// Mirror.Get free of waiting. The nil node is the empty tree.
type node struct {
	e    *Entry
	l, r *node
	h    int
}

func (n *node) height() int {
	if n == nil {
		return 0
	}
	return n.h
}

func join(l *node, e *Entry, r *node) *node {
	return &node{e: e, l: l, r: r, h: 1 + max(l.height(), r.height())}
}

// balance is join for subtrees whose heights may differ by two.
func balance(l *node, e *Entry, r *node) *node {
	switch d := l.height() - r.height(); {
	case d > 1:
		if l.l.height() >= l.r.height() {
			return join(l.l, l.e, join(l.r, e, r))
		}
		return join(join(l.l, l.e, l.r.l), l.r.e, join(l.r.r, e, r))
	case d < -1:
		if r.r.height() >= r.l.height() {
			return join(join(l, e, r.l), r.e, r.r)
		}
		return join(join(l, e, r.l.l), r.l.e, join(r.l.r, r.e, r.r))
	}
	return join(l, e, r)
}

func (n *node) get(key string) *Entry {
	for n != nil {
		switch c := strings.Compare(key, n.e.Key); {
		case c == 0:
			return n.e
		case c < 0:
			n = n.l
		default:
			n = n.r
		}
	}
	return nil
}

// with is n and e, and the entry that e replaces, or nil.
func (n *node) with(e *Entry) (root *node, old *Entry) {
	if n == nil {
		return join(nil, e, nil), nil
	}
	switch c := strings.Compare(e.Key, n.e.Key); {
	case c == 0:
		return join(n.l, e, n.r), n.e
	case c < 0:
		l, old := n.l.with(e)
		return balance(l, n.e, n.r), old
	default:
		r, old := n.r.with(e)
		return balance(n.l, n.e, r), old
	}
}

// without is n less key, and the entry that went, or nil; then the tree is n itself.
func (n *node) without(key string) (root *node, old *Entry) {
	if n == nil {
		return nil, nil
	}
	switch c := strings.Compare(key, n.e.Key); {
	case c < 0:
		l, old := n.l.without(key)
		if old == nil {
			return n, nil
		}
		return balance(l, n.e, n.r), old
	case c > 0:
		r, old := n.r.without(key)
		if old == nil {
			return n, nil
		}
		return balance(n.l, n.e, r), old
	}
	switch {
	case n.l == nil:
		return n.r, n.e
	case n.r == nil:
		return n.l, n.e
	}
	first, r := n.r.popFirst()
	return balance(n.l, first, r), n.e
}

func (n *node) popFirst() (*Entry, *node) {
	if n.l == nil {
		return n.e, n.r
	}
	first, l := n.l.popFirst()
	return first, balance(l, n.e, n.r)
}

// ascend calls f for every entry whose key is at or above from, in key order, until f returns false.
func (n *node) ascend(from string, f func(*Entry) bool) bool {
	if n == nil {
		return true
	}
	if n.e.Key < from {
		return n.r.ascend(from, f)
	}
	return n.l.ascend(from, f) && f(n.e) && n.r.ascend(from, f)
}

// prefixed is every entry whose key begins with prefix, in key order.
func (n *node) prefixed(prefix string) iter.Seq[*Entry] {
	return func(yield func(*Entry) bool) {
		n.ascend(prefix, func(e *Entry) bool { return strings.HasPrefix(e.Key, prefix) && yield(e) })
	}
}

// build makes a tree of a whole state, in less time than one insert a key would take.
func build(m map[string]*Entry) *node {
	es := make([]*Entry, 0, len(m))
	for _, e := range m {
		es = append(es, e)
	}
	slices.SortFunc(es, func(a, b *Entry) int { return strings.Compare(a.Key, b.Key) })
	return buildSorted(es)
}

func buildSorted(es []*Entry) *node {
	if len(es) == 0 {
		return nil
	}
	mid := len(es) / 2
	return join(buildSorted(es[:mid]), es[mid], buildSorted(es[mid+1:]))
}
