package store

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kkv-project/kkv/internal/wire"
)

func newRand(t testing.TB) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// ordered builds the order in one go.
func ordered(s *Store) *Store {
	s.FinishOrder(s.StartOrder()())
	return s
}

// model is what a Store should hold: key -> partition -> live record.
type model map[string]map[int32]Record

func (m model) winner(key string) (w Record, ok bool) {
	for _, r := range m[key] {
		if !ok || r.wins(&w) {
			w, ok = r, true
		}
	}
	return w, ok
}

func (m model) apply(r Record) {
	key := string(r.Key)
	if r.Value == nil {
		delete(m[key], r.Partition)
		if len(m[key]) == 0 {
			delete(m, key)
		}
		return
	}
	if m[key] == nil {
		m[key] = map[int32]Record{}
	}
	m[key][r.Partition] = r
}

func (m model) values() map[string]string {
	out := map[string]string{}
	for k := range m {
		w, _ := m.winner(k)
		out[k] = string(w.Value)
	}
	return out
}

func checkSnapshot(t *testing.T, what string, snap Snapshot, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	var keys []string
	for r := range snap.All(nil, nil) {
		got[string(r.Key)] = string(r.Value)
		keys = append(keys, string(r.Key))
	}
	if !slices.IsSorted(keys) || len(slices.Compact(keys)) != snap.Len() {
		t.Fatalf("%s: keys out of order or twice, or not %d", what, snap.Len())
	}
	if !maps.Equal(got, want) {
		t.Fatalf("%s: %d keys, want %d; or other values", what, len(got), len(want))
	}
}

// TestModel holds random puts, tombstones, snapshots, the building of the order and slab rewrites, over several
// partitions, against plain maps.
func TestModel(t *testing.T) {
	for _, tc := range []struct {
		name               string
		keys, steps, value int
		elsewhere          int // one in so many records goes to another partition than the key's own
	}{
		{"few keys", 30, 30_000, 20, 4},
		{"many keys", 5000, 60_000, 20, 1000},
		{"large values", 300, 6000, 20_000, 50},
		{"one partition each", 2000, 60_000, 600, 0},
	} {
		t.Run(tc.name, func(t *testing.T) { runModel(t, tc.keys, tc.steps, tc.value, tc.elsewhere) })
	}
}

func runModel(t *testing.T, keys, steps, valueLen, elsewhere int) {
	rnd := newRand(t)
	const partitions = 3
	s, m := New(), model{}
	type held struct {
		snap Snapshot
		want map[string]string
		step int
	}
	var snaps []held
	var readers []reader
	var building func() *Order
	var offsets, starts [partitions]int64
	filler := bytes.Repeat([]byte("x"), valueLen)
	for i := range steps {
		key := fmt.Sprintf("%s-%d", []string{"key", "a", "longer-prefix-than-eight"}[rnd.IntN(3)], rnd.IntN(keys))
		p := int32(len(key) % partitions)
		if elsewhere > 0 && rnd.IntN(elsewhere) == 0 {
			p = rnd.Int32N(partitions)
		}
		r := Record{Key: []byte(key), Partition: p, Offset: offsets[p], Epoch: rnd.Int32N(3) - 1, Timestamp: int64(i + rnd.IntN(20))}
		offsets[p] += 1 + rnd.Int64N(3)
		if rnd.IntN(5) > 0 {
			r.Value = append(fmt.Append(nil, rnd.IntN(3)), filler[:rnd.IntN(valueLen)]...)
		}
		if rnd.IntN(10) == 0 {
			r.Headers = r.Headers.Append("h", []byte("v")).Append("null", nil)
		}
		before, had := m.winner(key)
		m.apply(r)
		now, has := m.winner(key)
		scratch := r
		scratch.Key, scratch.Value, scratch.Headers = bytes.Clone(r.Key), bytes.Clone(r.Value), bytes.Clone(r.Headers)
		eff := s.Apply(&scratch)
		clear(scratch.Key) // the store must not have kept the caller's bytes
		clear(scratch.Value)
		clear(scratch.Headers)
		same := had && has && before.Partition == now.Partition && before.Offset == now.Offset
		if eff.Changed != (had != has || has && !same) || eff.Deleted != (had && !has) {
			t.Fatalf("step %d: effect %+v, before %v, now %v", i, eff, before, now)
		}
		if eff.Changed && has && (!equal(&eff.Now, &now) || eff.Equal != (had && bytes.Equal(before.Value, now.Value))) {
			t.Fatalf("step %d: effect %+v, want %v", i, eff, now)
		}
		var got Record
		if ok := s.Get([]byte(key), &got); ok != has || ok && !equal(&got, &now) {
			t.Fatalf("step %d: Get(%s) = %v, %v, want %v", i, key, got, ok, now)
		}
		if ps := s.Partitions([]byte(key)); len(ps) != len(m[key]) || has && ps[0] != now.Partition {
			t.Fatalf("step %d: Partitions = %v", i, ps)
		}
		switch {
		case i == steps/4:
			building = s.StartOrder()
		case i == steps/3:
			s.FinishOrder(building())
			checkSnapshot(t, "first order", s.Snapshot(), m.values())
		case s.Ordered() && rnd.IntN(steps/20) == 0:
			snaps = append(snaps, held{s.Snapshot(), m.values(), i})
			rd := reader{view: m.values()}
			for p := range partitions {
				rd.cuts = append(rd.cuts, Cut{offsets[p], starts[p]})
			}
			readers = append(readers, rd)
		case s.Ordered() && rnd.IntN(steps/10) == 0:
			p := rnd.IntN(partitions)
			starts[p] += rnd.Int64N(offsets[p] - starts[p])
			expire(t, s, m, int32(p), starts[p])
		case len(readers) > 0 && rnd.IntN(steps/30) == 0:
			rd := &readers[rnd.IntN(len(readers))]
			rd.catchUp(t, s.Since(rd.cuts), m.values())
			for p := range partitions {
				rd.cuts[p] = Cut{offsets[p], starts[p]}
			}
		}
	}
	for _, rd := range readers {
		rd.catchUp(t, s.Since(rd.cuts), m.values())
	}
	snaps = append(snaps, held{s.Snapshot(), m.values(), steps})
	for _, h := range snaps {
		checkSnapshot(t, fmt.Sprintf("snapshot of step %d", h.step), h.snap, h.want)
	}
	checkAccounts(t, s, m)
}

// reader is one that saw all up to some cuts, and what it saw.
type reader struct {
	cuts []Cut
	view map[string]string
}

// catchUp holds Since to what rule 11 says: applied to the old view, it makes the new one, and names no key twice.
func (rd *reader) catchUp(t *testing.T, d *Diff, want map[string]string) {
	t.Helper()
	seen := map[string]bool{}
	for r, kind := range d.All(nil) {
		key := string(r.Key)
		if seen[key] {
			t.Fatalf("%s is told twice", key)
		}
		seen[key] = true
		if kind == Put {
			rd.view[key] = string(r.Value)
		} else {
			delete(rd.view, key)
		}
	}
	if !maps.Equal(rd.view, want) {
		t.Fatalf("caught up to %d keys, want %d; or to other values", len(rd.view), len(want))
	}
	for _, prefix := range []string{"a-", "a-1"} {
		for r := range d.All([]byte(prefix)) {
			if key := string(r.Key); !seen[key] || !strings.HasPrefix(key, prefix) {
				t.Fatalf("%s is told under the prefix %s", key, prefix)
			}
		}
		for key := range seen {
			if !strings.HasPrefix(key, prefix) {
				delete(seen, key)
			}
		}
		n := 0
		for range d.All([]byte(prefix)) {
			n++
		}
		if n != len(seen) {
			t.Fatalf("%d keys under the prefix %s, want %d", n, prefix, len(seen))
		}
	}
}

// expire moves the partition's log start, a few records at a time.
func expire(t *testing.T, s *Store, m model, partition int32, start int64) {
	t.Helper()
	for all := false; !all; {
		all = s.Expire(partition, start, 7, func(gone *Record, e Effect) {
			r, ok := m[string(gone.Key)][partition]
			if !ok || !equal(&r, gone) || r.Offset >= start {
				t.Fatalf("%v expired, the model has %v", gone, r)
			}
			before, _ := m.winner(string(gone.Key))
			m.apply(Record{Key: gone.Key, Partition: partition})
			if now, has := m.winner(string(gone.Key)); e.Deleted == has || e.Changed != (before.Partition == partition) || has && e.Changed && !equal(&e.Now, &now) {
				t.Fatalf("effect %+v, now %v", e, now)
			}
		})
	}
	for key, recs := range m {
		if r, ok := recs[partition]; ok && r.Offset < start {
			t.Fatalf("%s did not expire", key)
		}
	}
}

func equal(a, b *Record) bool {
	return bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value) && (a.Value == nil) == (b.Value == nil) && a.Partition == b.Partition &&
		a.Offset == b.Offset && a.Epoch == b.Epoch && a.Timestamp == b.Timestamp && bytes.Equal(a.Headers, b.Headers)
}

// checkAccounts counts everything again.
func checkAccounts(t *testing.T, s *Store, m model) {
	t.Helper()
	var payload int64
	conflicts := 0
	for _, recs := range m {
		if len(recs) > 1 {
			conflicts++
		}
		for _, r := range recs {
			payload += r.payload()
		}
	}
	if s.Bytes() != payload || s.Conflicts() != conflicts || s.Len() != len(m) {
		t.Errorf("payload %d, want %d; conflicts %d, want %d; keys %d, want %d", s.Bytes(), payload, s.Conflicts(), conflicts, s.Len(), len(m))
	}
	var used, dead, total int64
	for _, sl := range s.slabs {
		if sl != nil {
			used, dead, total = used+int64(sl.used), dead+int64(sl.dead), total+int64(len(sl.buf))
		}
	}
	mem := s.Memory()
	if used != s.used || dead != s.dead || total != mem.Slabs || mem.Dead != dead {
		t.Errorf("slabs: used %d, counted %d; dead %d, counted %d; total %d, counted %d", used, s.used, dead, s.dead, total, mem.Slabs)
	}
	if limit := used/deadShare + 2*slabLen; dead > limit {
		t.Errorf("dead %d of %d", dead, used)
	}
	if live := used - dead; live < payload {
		t.Errorf("live %d below payload %d", live, payload)
	}
}

func TestAllByPrefixAndAfter(t *testing.T) {
	s := New()
	for i, k := range []string{"", "a", "a\x00", "aa", "ab", "b", "\xff", "\xff\xff"} {
		s.Apply(&Record{Key: []byte(k), Value: []byte("v"), Offset: int64(i)})
	}
	snap := ordered(s).Snapshot()
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

// TestSortIDs: keys of all lengths, with zeros at their ends and long common beginnings.
func TestSortIDs(t *testing.T) {
	rnd := newRand(t)
	seen := map[string]bool{}
	keys := []string{""}
	for len(keys) < 20_000 {
		b := []byte([]string{"", "common/prefix/", "common/prefix/of/some/length/"}[rnd.IntN(3)])
		for range rnd.IntN(12) {
			b = append(b, "\x00\x00\x01ab\xff"[rnd.IntN(6)])
		}
		if k := string(b); k != "" && !seen[k] {
			seen[k] = true
			keys = append(keys, k)
		}
	}
	for _, n := range []int{0, 1, 100, len(keys)} { // from bucketMin on in buckets
		ids := make([]uint32, n)
		for i := range ids {
			ids[i] = uint32(i)
		}
		o := sortIDs(1, ids, func(id uint32) []byte { return []byte(keys[id]) })
		var got []string
		for _, l := range o.leaves {
			for _, id := range l.ids[:l.n] {
				got = append(got, keys[id])
			}
		}
		if want := slices.Sorted(slices.Values(keys[:n])); !slices.Equal(got, want) || o.n != n {
			t.Errorf("%d keys are not sorted", n)
		}
	}
}

// TestHeldSnapshot stays byte-equal under churn, and its memory comes back once it is let go.
func TestHeldSnapshot(t *testing.T) {
	const keys, size = 20_000, 1000
	s := New()
	value := make([]byte, size)
	put := func(round, i int) {
		copy(value, fmt.Sprintf("%d of round %d", i, round))
		s.Apply(&Record{Key: fmt.Appendf(nil, "key-%d", i), Value: value, Offset: int64(round*keys + i)})
	}
	for i := range keys {
		put(0, i)
	}
	ordered(s)
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	alone := heap()
	snap := s.Snapshot()
	for round := 1; round <= 10; round++ {
		for i := range keys {
			put(round, i)
		}
	}
	n := 0
	for r := range snap.All(nil, nil) {
		if !bytes.HasSuffix(bytes.TrimRight(r.Value, "\x00"), []byte(" of round 0")) {
			t.Fatalf("%s: %.40q", r.Key, r.Value)
		}
		n++
	}
	if n != keys {
		t.Fatalf("%d keys", n)
	}
	with := heap()
	runtime.KeepAlive(snap)
	snap = Snapshot{}
	without := heap()
	t.Logf("heap: %d before, %d with the snapshot, %d without", alone, with, without)
	if with-without < keys*size*8/10 || without > alone*13/10 {
		t.Error("a snapshot's memory does not come back, or churn leaves more behind than it should")
	}
	runtime.KeepAlive(s)
}

// TestAtOnce is for the race detector: readers under the lock, snapshots without it, views kept beyond it.
func TestAtOnce(t *testing.T) {
	const keys = 2000
	s := New()
	for i := range keys {
		s.Apply(&Record{Key: fmt.Append(nil, i), Value: []byte("0"), Offset: int64(i)})
	}
	ordered(s)
	var mu sync.RWMutex
	var wg sync.WaitGroup
	done := make(chan struct{})
	for g := range 3 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 0))
			var r Record
			for {
				select {
				case <-done:
					return
				default:
				}
				key := fmt.Append(nil, rnd.IntN(keys))
				mu.RLock()
				ok := s.Get(key, &r)
				mu.RUnlock()
				if ok && (!bytes.Equal(r.Key, key) || len(bytes.Trim(r.Value, string(r.Value[:1]))) > 0) {
					t.Errorf("read %q for %s", r.Value, key)
				}
			}
		})
	}
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			mu.Lock()
			snap := s.Snapshot()
			mu.Unlock()
			n := 0
			for r := range snap.All(nil, nil) {
				if len(bytes.Trim(r.Value, string(r.Value[:1]))) > 0 {
					t.Errorf("listed %q", r.Value)
				}
				n++
			}
			if n != snap.Len() {
				t.Errorf("listed %d of %d", n, snap.Len())
			}
		}
	})
	rnd := newRand(t)
	for i := range 40_000 {
		r := Record{Key: fmt.Append(nil, rnd.IntN(keys)), Offset: int64(keys + i)}
		if rnd.IntN(10) > 0 {
			r.Value = bytes.Repeat([]byte{byte('a' + i%26)}, 1+rnd.IntN(500))
		}
		mu.Lock()
		s.Apply(&r)
		mu.Unlock()
	}
	close(done)
	wg.Wait()
}

func TestGetAllocatesNothing(t *testing.T) {
	s := New()
	for i := range 1000 {
		s.Apply(&Record{Key: fmt.Append(nil, i), Value: []byte("value"), Headers: wire.Headers(nil).Append("h", []byte("v"))})
	}
	key := []byte("500")
	var r Record
	if n := testing.AllocsPerRun(100, func() { s.Get(key, &r) }); n != 0 {
		t.Errorf("Get allocates %v times", n)
	}
}

func TestTombstones(t *testing.T) {
	s := ordered(New())
	since := func(offset int64) (keys []string) {
		for r, kind := range s.Since([]Cut{{Next: offset}, {Next: offset}, {Next: offset}}).All(nil) {
			keys = append(keys, fmt.Sprintf("%s@%d/%d:%d", r.Key, r.Partition, r.Offset, kind))
		}
		return keys
	}
	s.Apply(&Record{Key: []byte("a"), Value: []byte("1"), Offset: 0})
	s.Apply(&Record{Key: []byte("a"), Offset: 1})
	s.Apply(&Record{Key: []byte("unknown"), Partition: 2, Offset: 7})
	if got := since(0); !slices.Equal(got, []string{"unknown@2/7:1", "a@0/1:1"}) {
		t.Errorf("since 0: %q", got)
	}
	if got := since(2); !slices.Equal(got, []string{"unknown@2/7:1"}) || s.Horizon(0).Next != 0 {
		t.Errorf("since 2: %q, horizon %d", got, s.Horizon(0))
	}
	const n = 200_000
	for i := range n {
		s.Apply(&Record{Key: fmt.Appendf(nil, "a-key-of-some-length-%d", i), Offset: int64(2 + i)})
	}
	if m := s.Memory().Tombstones; m > tombstonesUsual+tombSlabLen {
		t.Errorf("tombstones take %d bytes", m)
	}
	h := s.Horizon(0).Next
	if got := since(h); h < 2 || int64(len(got)) != 2+n-h {
		t.Errorf("since the horizon %d: %d tombstones, want %d", h, len(got), 2+n-h)
	}
}

// TestSinceReadsOnWhileWritesGoOn: a Diff is of one state, whatever happens next; for the race detector, too.
func TestSinceReadsOnWhileWritesGoOn(t *testing.T) {
	s := ordered(New())
	write := func(from, to int) {
		for i := from; i < to; i++ {
			s.Apply(&Record{Key: fmt.Appendf(nil, "k%d", i%5000), Value: make([]byte, 300), Offset: int64(i)})
			s.Apply(&Record{Key: fmt.Appendf(nil, "gone%d", i), Offset: int64(i)})
		}
	}
	write(0, 20_000)
	d := s.Since([]Cut{{Next: 19_000}})
	done := make(chan int)
	go func() {
		n := 0
		for range d.All(nil) {
			n++
		}
		done <- n
	}()
	write(20_000, 30_000)
	for !s.Expire(0, 27_000, 100, func(*Record, Effect) {}) {
	}
	write(30_000, 40_000)
	if n := <-done; n != 2000 {
		t.Errorf("%d keys have changed, want 2000", n)
	}
}

// FuzzRecord: any record comes back from its bytes, with its key found by itself.
func FuzzRecord(f *testing.F) {
	f.Add([]byte("key"), []byte("value"), false, int32(7), int64(1<<40), int32(-1), int64(-5), "h", []byte("v"))
	f.Fuzz(func(t *testing.T, key, value []byte, tombstone bool, partition int32, offset int64, epoch int32, timestamp int64, header string, hv []byte) {
		if partition < 0 || offset < 0 {
			return
		}
		in := Record{Key: key, Value: append([]byte{}, value...), Partition: partition, Offset: offset, Epoch: epoch, Timestamp: timestamp}
		if tombstone {
			in.Value = nil
		}
		if header != "" {
			in.Headers = in.Headers.Append(header, hv).Append("again", nil)
		}
		b := make([]byte, maxRecordHeader+len(key)+len(value)+len(in.Headers))
		n := encode(b, &in, 1_700_000_000_000)
		var out Record
		if m := decode(b, &out, 1_700_000_000_000); m != n || !equal(&in, &out) || !bytes.Equal(keyOf(b), key) {
			t.Fatalf("%d bytes, then %d: %+v, then %+v", n, m, in, out)
		}
		if header != "" {
			var hs []string
			for k, v := range out.Headers.All() {
				hs = append(hs, fmt.Sprint(k, v == nil, string(v)))
			}
			if want := []string{fmt.Sprint(header, hv == nil, string(hv)), "againtrue"}; len(hs) != 2 || hs[0] != want[0] {
				t.Fatalf("headers %q, want %q", hs, want)
			}
		}
	})
}
