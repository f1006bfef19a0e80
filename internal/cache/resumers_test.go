package cache

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kkv-project/kkv/internal/position"
)

// resumer is a reader that comes and goes, on any replica, with no more than its position and what it was told.
type resumer struct {
	pos    position.Position
	view   map[string]string
	resets int
}

// resume goes to c, and holds its view to c's whole state at the same position.
func (r *resumer) resume(t *testing.T, c *Cache) {
	t.Helper()
	err := within(t, time.Minute, func(ctx context.Context) error { return c.AtLeast(ctx, r.pos) })
	if err != nil && !errors.Is(err, ErrOtherTopic) && !errors.Is(err, ErrTruncated) {
		t.Fatalf("%v at %v; status %+v", err, r.pos, c.Status())
	}
	for {
		res, err := c.Resume(r.pos)
		if err != nil {
			t.Fatal(err)
		}
		all, err := c.Resume(position.Position{})
		if err != nil {
			t.Fatal(err)
		}
		if res.Mark.Text != all.Mark.Text {
			continue // it has moved in between
		}
		if res.Reset != "" {
			r.resets++
			clear(r.view)
		}
		told := map[string]bool{}
		for ch := range res.All(nil) {
			key := string(ch.Key)
			if told[key] {
				t.Fatalf("%s is told twice", key)
			}
			told[key] = true
			if ch.Deleted {
				delete(r.view, key)
			} else {
				r.view[key] = string(ch.Value)
			}
		}
		want := map[string]string{}
		for ch := range all.All(nil) {
			want[string(ch.Key)] = string(ch.Value)
		}
		if !maps.Equal(r.view, want) {
			t.Fatalf("resumed from %v to %v (reset %q): %v, want %v", r.pos, res.Mark.Position, res.Reset, r.view, want)
		}
		r.pos = res.Mark.Position
		return
	}
}

// TestResumers: random writes, transactions, expiry, partitions, outages and topics made anew, and readers that resume
// on either of two replicas and on ones just started: each view is what the replica shows.
func TestResumers(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for range 4 {
		seed++
		bubble(t, 2, func(t *testing.T, w *world) {
			rnd := rand.New(rand.NewPCG(seed, 0))
			partitions, starts := int32(2), map[int32]int64{}
			caches := []*Cache{w.start(), w.start()}
			readers := make([]*resumer, 5)
			for i := range readers {
				readers[i] = &resumer{view: map[string]string{}}
			}
			for _, c := range caches {
				w.ready(c)
			}
			for i := range 300 {
				key, p := fmt.Sprint("k", rnd.IntN(20)), rnd.Int32N(partitions)
				switch n := rnd.IntN(100); {
				case n < 45:
					w.put(p, key, fmt.Sprint(i))
				case n < 65:
					w.del(p, key)
				case n < 70:
					x := w.Begin("x").Put(p, key, fmt.Sprint(i)).Delete(p, "k0")
					if rnd.IntN(2) == 0 {
						x.Commit()
					} else {
						x.Abort()
					}
				case n < 73:
					if info := w.Fake.PartitionInfo("t", p); info.HighWatermark > starts[p] {
						starts[p] += 1 + rnd.Int64N(info.HighWatermark-starts[p])
						w.DeleteRecords(p, starts[p])
					}
				case n < 74 && partitions < 4:
					partitions++
					w.AddPartitions(partitions)
				case n < 75:
					w.DeleteTopic()
					w.CreateTopic(partitions, nil)
					clear(starts)
				case n < 77:
					h := w.Fail(kerr.KafkaStorageError, kmsg.Fetch)
					pass(time.Duration(rnd.IntN(3000)) * time.Millisecond)
					h.Remove()
				case n < 78:
					caches[rnd.IntN(2)] = w.start()
					w.ready(caches[0])
					w.ready(caches[1])
				case n < 85:
					pass(time.Duration(rnd.IntN(8000)) * time.Millisecond)
				default:
					readers[rnd.IntN(len(readers))].resume(t, caches[rnd.IntN(2)])
				}
			}
			resets := 0
			for _, r := range readers {
				r.resume(t, caches[rnd.IntN(2)])
				resets += r.resets
			}
			st := caches[0].Status()
			t.Logf("%d resets; one replica counts %d resumes, %d resets", resets, st.Resumes, st.Resets)
		})
	}
}
