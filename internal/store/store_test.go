package store

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestModel holds random puts, tombstones and snapshots over several partitions against plain maps.
func TestModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	const partitions = 3
	s := New()
	model := map[string]map[int32]Record{} // key -> partition -> live record
	winner := func(recs map[int32]Record) Record {
		var w Record
		for _, r := range recs {
			if w.Key == nil || r.wins(&w) {
				w = r
			}
		}
		return w
	}
	type held struct {
		snap Snapshot
		want map[string]string
	}
	var snaps []held
	check := func(h held) {
		t.Helper()
		got := map[string]string{}
		var order []string
		for r := range h.snap.All(nil, nil) {
			got[string(r.Key)] = string(r.Value)
			order = append(order, string(r.Key))
		}
		if !maps.Equal(got, h.want) || h.snap.Len() != len(h.want) || !slices.IsSorted(order) {
			t.Fatalf("snapshot: got %v, want %v", got, h.want)
		}
	}
	var offsets [partitions]int64
	for i := range 20_000 {
		key := fmt.Sprintf("key-%d", rnd.IntN(200))
		p := int32(0)
		if rnd.IntN(4) == 0 {
			p = rnd.Int32N(partitions)
		}
		r := Record{Key: []byte(key), Partition: p, Offset: offsets[p], Timestamp: int64(i + rnd.IntN(20))}
		offsets[p] += 1 + rnd.Int64N(3)
		if rnd.IntN(5) > 0 {
			r.Value = fmt.Append(nil, rnd.IntN(3))
		}
		before, had := winner(model[key]), len(model[key]) > 0
		if model[key] == nil {
			model[key] = map[int32]Record{}
		}
		if r.Value == nil {
			delete(model[key], p)
		} else {
			model[key][p] = r
		}
		if len(model[key]) == 0 {
			delete(model, key)
		}
		scratch := r
		scratch.Key, scratch.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
		eff := s.Apply(&scratch)
		clear(scratch.Key) // the store must not have kept the caller's bytes
		clear(scratch.Value)
		now, has := winner(model[key]), len(model[key]) > 0
		same := had && has && before.Partition == now.Partition && before.Offset == now.Offset
		if eff.Changed != (had != has || has && !same) || eff.Deleted != (had && !has) {
			t.Fatalf("step %d %v: effect %+v, before %v, now %v", i, r, eff, before, now)
		}
		if eff.Changed && has && (eff.Now.Offset != now.Offset || eff.Now.Partition != now.Partition || eff.Equal != (had && bytes.Equal(before.Value, now.Value))) {
			t.Fatalf("step %d: effect %+v, want %v", i, eff, now)
		}
		got, ok := s.Get([]byte(key))
		if ok != has || ok && (string(got.Key) != key || !bytes.Equal(got.Value, now.Value) || got.Offset != now.Offset) {
			t.Fatalf("step %d: Get(%s) = %v, %v, want %v", i, key, got, ok, now)
		}
		if ps := s.Partitions([]byte(key)); len(ps) != len(model[key]) || has && ps[0] != now.Partition {
			t.Fatalf("step %d: Partitions = %v", i, ps)
		}
		if rnd.IntN(500) == 0 {
			want := map[string]string{}
			for k, recs := range model {
				want[k] = string(winner(recs).Value)
			}
			snaps = append(snaps, held{s.Snapshot(), want})
		}
	}
	for _, h := range snaps {
		check(h)
	}
	var n int64
	conflicts := 0
	for _, recs := range model {
		if len(recs) > 1 {
			conflicts++
		}
		for _, r := range recs {
			n += r.bytes()
		}
	}
	if s.Bytes() != n || s.Conflicts() != conflicts || s.Len() != len(model) {
		t.Errorf("bytes %d, want %d; conflicts %d, want %d; keys %d, want %d", s.Bytes(), n, s.Conflicts(), conflicts, s.Len(), len(model))
	}
}

func TestAllByPrefixAndAfter(t *testing.T) {
	s := New()
	for i, k := range []string{"", "a", "a\x00", "aa", "ab", "b", "\xff", "\xff\xff"} {
		s.Apply(&Record{Key: []byte(k), Value: []byte("v"), Offset: int64(i)})
	}
	snap := s.Snapshot()
	for _, tc := range []struct {
		prefix string
		after  []byte
		want   []string
	}{
		{"", nil, []string{"", "a", "a\x00", "aa", "ab", "b", "\xff", "\xff\xff"}},
		{"", []byte(""), []string{"a", "a\x00", "aa", "ab", "b", "\xff", "\xff\xff"}},
		{"a", nil, []string{"a", "a\x00", "aa", "ab"}},
		{"a", []byte("a"), []string{"a\x00", "aa", "ab"}},
		{"a", []byte("aaa"), []string{"ab"}},
		{"b", []byte("a"), []string{"b"}},
		{"a", []byte("b"), nil},
		{"\xff", nil, []string{"\xff", "\xff\xff"}},
		{"x", nil, nil},
	} {
		var got []string
		for r := range snap.All([]byte(tc.prefix), tc.after) {
			got = append(got, string(r.Key))
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("All(%q, %q) = %q, want %q", tc.prefix, tc.after, got, tc.want)
		}
	}
}
