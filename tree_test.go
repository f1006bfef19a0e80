package kkv

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// checkTree fails unless n is an ordered AVL tree, and returns its keys.
func checkTree(t *testing.T, n *node) (keys []string) {
	t.Helper()
	var walk func(n *node) int
	walk = func(n *node) int {
		if n == nil {
			return 0
		}
		l := walk(n.l)
		keys = append(keys, n.e.Key)
		r := walk(n.r)
		if d := l - r; d < -1 || d > 1 {
			t.Fatalf("node %q leans by %d", n.e.Key, d)
		}
		if n.h != 1+max(l, r) {
			t.Fatalf("node %q says height %d, not %d", n.e.Key, n.h, 1+max(l, r))
		}
		return n.h
	}
	walk(n)
	if !slices.IsSorted(keys) {
		t.Fatalf("keys out of order: %q", keys)
	}
	return keys
}

// Random changes against a plain map; every older tree stays what it was.
func TestTreeModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	type snapshot struct {
		root *node
		want map[string]*Entry
	}
	var snapshots []snapshot
	var root *node
	model := make(map[string]*Entry)
	for i := range 5000 {
		key := strconv.Itoa(rng.IntN(400))
		if rng.IntN(100) < 45 {
			var was *Entry
			root, was = root.without(key)
			if was != model[key] {
				t.Fatalf("step %d: without %q took %v, want %v", i, key, was, model[key])
			}
			delete(model, key)
		} else {
			e := &Entry{Key: key, Offset: int64(i)}
			var was *Entry
			root, was = root.with(e)
			if was != model[key] {
				t.Fatalf("step %d: with %q replaced %v, want %v", i, key, was, model[key])
			}
			model[key] = e
		}
		if i%250 == 0 {
			snapshots = append(snapshots, snapshot{root, maps.Clone(model)})
		}
	}
	snapshots = append(snapshots, snapshot{root, model}, snapshot{build(model), model}, snapshot{})
	for _, s := range snapshots {
		if got, want := checkTree(t, s.root), slices.Sorted(maps.Keys(s.want)); !slices.Equal(got, want) {
			t.Fatalf("keys %q, want %q", got, want)
		}
		for key := range 400 {
			key := strconv.Itoa(key)
			if got := s.root.get(key); got != s.want[key] {
				t.Fatalf("get %q = %v, want %v", key, got, s.want[key])
			}
		}
		for _, prefix := range []string{"", "1", "39", "399", "4", "no"} {
			var got, want []string
			for e := range s.root.prefixed(prefix) {
				got = append(got, e.Key)
			}
			for _, k := range slices.Sorted(maps.Keys(s.want)) {
				if strings.HasPrefix(k, prefix) {
					want = append(want, k)
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("prefix %q: %q, want %q", prefix, got, want)
			}
		}
	}
}

func TestTreeStopsEarly(t *testing.T) {
	m := make(map[string]*Entry)
	for i := range 100 {
		m[strconv.Itoa(i)] = &Entry{Key: strconv.Itoa(i)}
	}
	n := 0
	for range build(m).prefixed("1") {
		if n++; n == 3 {
			break
		}
	}
	equal(t, "entries seen", n, 3)
}

func BenchmarkTreeGet(b *testing.B) {
	m := make(map[string]*Entry)
	for i := range 1_000_000 {
		k := strconv.Itoa(i)
		m[k] = &Entry{Key: k}
	}
	root := build(m)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if root.get(strconv.Itoa(i%1_000_000)) == nil {
			b.Fatal(i)
		}
	}
}
