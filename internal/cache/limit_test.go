package cache

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kkv-project/kkv/internal/ingest"
	"github.com/kkv-project/kkv/internal/store"
)

// TestMemoryLimit: at the limit a partition stands still at the first record that needs more, tombstones and
// smaller values go on elsewhere, nothing is evicted, and it goes on by itself once there is room.
func TestMemoryLimit(t *testing.T) {
	bubble(t, 2, func(t *testing.T, w *world) {
		c := w.start(func(o *Options) { o.MaxBytes = 4 << 20 })
		w.ready(c)
		const each = 100_000
		value := strings.Repeat("x", each)
		const n = 60
		for i := range n {
			w.put(int32(i%2), fmt.Sprintf("k%02d", i), value)
		}
		pass(5 * time.Second)
		st := c.Status()
		if len(st.Held) != 2 || !st.Ready || st.Keys >= n || st.Full() < 0.9 {
			t.Fatalf("keys %d, held %v, full %v", st.Keys, st.Held, st.Full())
		}
		if used := st.Memory.Total(); used > 5<<20 {
			t.Errorf("the store takes %d bytes of 4 MiB", used)
		}
		behind := st.Partitions[0].End - st.Partitions[0].Next
		if behind <= 0 {
			t.Errorf("partition 0 stands at %d of %d", st.Partitions[0].Next, st.Partitions[0].End)
		}
		var r store.Record
		for i := range n {
			below := int64(i/2) < st.Partitions[i%2].Next
			if ok, _, _ := c.Get(fmt.Appendf(nil, "k%02d", i), &r); ok != below || ok && len(r.Value) != each {
				t.Fatalf("k%02d is below its partition's position: %v, is there: %v", i, below, ok)
			}
		}
		// Behind what is held, in the same partitions: nothing can be taken out of order. The way out is a larger
		// limit, or room by deletes that come from a third partition's point of view; here the limit is raised.
		c.mu.Lock()
		c.o.MaxBytes = 16 << 20
		c.mu.Unlock()
		pass(5 * time.Second)
		if st := c.Status(); st.Keys != n || len(st.Held) != 0 {
			t.Fatalf("after there is room: keys %d, held %v", st.Keys, st.Held)
		}
		w.put(0, "k00", "small")
		w.del(1, "k01")
		pass(time.Second)
		if ok, _, _ := c.Get([]byte("k01"), &r); ok {
			t.Error("k01 was deleted")
		}
	})
}

// TestRoomByTombstones: deletes in one partition let another go on.
func TestRoomByTombstones(t *testing.T) {
	bubble(t, 2, func(t *testing.T, w *world) {
		c := w.start(func(o *Options) { o.MaxBytes = 4 << 20 })
		w.ready(c)
		value := strings.Repeat("x", 100_000)
		const n = 20
		for i := range n {
			w.put(0, fmt.Sprintf("a%02d", i), value)
		}
		pass(time.Second)
		for i := range n {
			w.put(1, fmt.Sprintf("b%02d", i), value)
		}
		pass(5 * time.Second)
		if st := c.Status(); len(st.Held) != 1 || st.Held[0] != 1 {
			t.Fatalf("keys %d, held %v", st.Keys, st.Held)
		}
		w.put(0, "a00", "shrunk")
		for i := 1; i < n; i++ {
			w.del(0, fmt.Sprintf("a%02d", i))
		}
		pass(5 * time.Second)
		if st := c.Status(); len(st.Held) != 0 || st.Keys != n+1 {
			t.Fatalf("keys %d, held %v", st.Keys, st.Held)
		}
	})
}

// TestLoadingBeyondTheLimitIsNeverReady.
func TestLoadingBeyondTheLimitIsNeverReady(t *testing.T) {
	bubble(t, 1, func(t *testing.T, w *world) {
		value := strings.Repeat("x", 100_000)
		for i := range 60 {
			w.put(0, fmt.Sprintf("k%02d", i), value)
		}
		c := w.start(func(o *Options) { o.MaxBytes = 4 << 20 })
		pass(10 * time.Second)
		st := c.Status()
		if st.Ready || len(st.Held) != 1 || st.Replay == nil || st.Replay.Done <= 0 || st.Replay.Done >= 1 {
			t.Errorf("ready %v, held %v, replay %+v", st.Ready, st.Held, st.Replay)
		}
	})
}

// TestTombstonesLeaveRoom: what is remembered of keys that are gone takes a tenth of the limit, not the room of those to come.
func TestTombstonesLeaveRoom(t *testing.T) {
	c := New(Options{MaxBytes: 4 << 20})
	c.Load(ingest.Incarnation{TopicID: [16]byte{1}, Partitions: []ingest.Progress{{}}, Ends: []int64{0}}, "")
	c.Loaded()
	at := int64(0)
	apply := func(value []byte) []ingest.Held {
		at++
		return c.Apply(&ingest.Batch{Records: []ingest.Record{{Key: fmt.Appendf(nil, "session-%d", (at-1)/2), Value: value, Offset: at}},
			Progress: []ingest.Progress{{Next: at + 1}}})
	}
	for range 200_000 {
		if held := append(apply([]byte("1")), apply(nil)...); len(held) > 0 {
			t.Fatalf("after %d records, with %d keys, there is no room: %+v", at, c.Status().Keys, c.Status().Memory)
		}
	}
	if m := c.Status().Memory; m.Tombstones > 4<<20/10+64<<10 {
		t.Errorf("tombstones take %d bytes", m.Tombstones)
	}
}
