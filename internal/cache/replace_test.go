package cache

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kkv-project/kkv/internal/feed"
	"github.com/kkv-project/kkv/internal/ingest"
	"github.com/kkv-project/kkv/internal/position"
)

// batches are what rd has, as text.
func batches(t *testing.T, rd *feed.Reader) (out []string) {
	t.Helper()
	for {
		b, _, err := rd.TryNext()
		if err != nil {
			t.Fatal(err)
		}
		if b == nil {
			return out
		}
		if b.Reset != "" {
			out = append(out, "reset "+b.Reset)
		}
		for _, ch := range b.Changes {
			s := fmt.Sprintf("%s=%s@%d", ch.Key, ch.Value, ch.Offset)
			if ch.Deleted {
				s = fmt.Sprintf("-%s@%d", ch.Key, ch.Offset)
			}
			out = append(out, strings.TrimSpace(s+" "+ch.Reason))
		}
	}
}

func wantBatches(t *testing.T, rd *feed.Reader, want ...string) {
	t.Helper()
	if got := batches(t, rd); !slices.Equal(got, want) {
		t.Errorf("the feed has %q, want %q", got, want)
	}
}

// TestLogStartMoves is rule 13: what expires is removed, told, and remembered; and a replica that starts afterwards is
// at the same state.
func TestLogStartMoves(t *testing.T) {
	bubble(t, 2, func(t *testing.T, w *world) {
		for i := range 3000 {
			w.Client().Produce(t.Context(), &kgo.Record{Topic: "t", Key: fmt.Appendf(nil, "k%04d", i), Value: []byte("1")}, nil)
		}
		w.put(1, "both", "in 1")
		w.put(0, "both", "in 0")
		w.put(0, "kept", "1")
		c := w.start()
		w.ready(c)
		pass(time.Second)
		rd, before := c.Reader(), at(c)
		w.DeleteRecords(0, 2999)
		w.DeleteRecords(1, 1)
		pass(10 * time.Second) // nothing is written: it is noticed all the same
		w.wantState(c, "both=in 0 k2999=1 kept=1")
		if p := at(c).Partition(0); p.LogStart != 2999 || p.Next != 3002 {
			t.Errorf("position %+v", p)
		}
		told := 0
		for _, s := range batches(t, rd) {
			if strings.HasPrefix(s, "-k") && strings.HasSuffix(s, ReasonExpired) {
				told++
			} else if s != "both=in 0@3000 expired" {
				t.Errorf("told %q", s)
			}
		}
		if told != 2999 {
			t.Errorf("%d deletes were told", told)
		}
		got := strings.Fields(changed(c, before))
		if len(got) != 2999+2 || got[0] != "-k0000expired" {
			t.Errorf("since before: %d changes, %.40q", len(got), got)
		}
		wantChanged(t, c, at(c), "")
		again := w.start()
		w.ready(again)
		pass(time.Second)
		w.wantState(again, shows(c))
		if !at(again).Covers(at(c)) || at(again).Partition(0) != at(c).Partition(0) {
			t.Errorf("a new replica is at %v, the old one at %v", at(again), at(c))
		}
		if got := changed(again, before); !strings.HasPrefix(got, ResetHorizon) {
			t.Errorf("a replica that never saw what expired says %.60q", got)
		}
	})
}

// TestRebuild is rule 12: records that this replica never read are gone with those that it had. The old state is
// served meanwhile, the keys that vanished are told as deleted, and a reader from before is told exactly what changed.
func TestRebuild(t *testing.T) {
	bubble(t, 1, func(t *testing.T, w *world) {
		for _, k := range []string{"a", "b", "c"} {
			w.put(0, k, "1")
		}
		c := w.start()
		w.ready(c)
		pass(time.Second)
		rd, before := c.Reader(), at(c)
		hold := w.Fail(kerr.KafkaStorageError, kmsg.Fetch)
		pass(2 * time.Second)
		w.del(0, "a")
		w.put(0, "came and went", "1")
		w.put(0, "d", "1")
		w.put(0, "c", "2")
		elsewhere := position.New(before.TopicID(), time.Now(), []position.Partition{{Next: 5}}) // saw what came and went
		w.DeleteRecords(0, 5)
		pass(time.Second)
		w.wantState(c, "a=1 b=1 c=1")
		hold.Remove()
		pass(10 * time.Second)
		w.wantState(c, "c=2 d=1")
		wantBatches(t, rd, "reset partition-rebuilt", "-a@0 expired", "-b@1 expired")
		wantChanged(t, c, before, "-aexpired -bexpired c=2 d=1")
		wantChanged(t, c, elsewhere, ResetHorizon+": c=2 d=1")
		wantChanged(t, c, at(c), "")
		after := at(c)
		w.put(0, "e", "1")
		w.fresh(c)
		wantChanged(t, c, after, "e=1")
		wantChanged(t, c, before, "-aexpired -bexpired c=2 d=1 e=1")
	})
}

// TestRecreatedTellsWhatVanished: offsets begin again, so that no position of before says anything.
func TestRecreatedTellsWhatVanished(t *testing.T) {
	bubble(t, 1, func(t *testing.T, w *world) {
		w.put(0, "a", "1")
		w.put(0, "b", "1")
		c := w.start()
		w.ready(c)
		pass(time.Second)
		rd, before := c.Reader(), at(c)
		w.DeleteTopic()
		w.CreateTopic(1, nil)
		w.put(0, "b", "2")
		pass(20 * time.Second)
		w.wantState(c, "b=2")
		wantBatches(t, rd, "reset topic-recreated", "-a@0")
		wantChanged(t, c, before, ResetRecreated+": b=2")
	})
}

// TestAtLeastKnowsAtOnce: a position of a log that was cut shorter is refused as soon as the leader was asked, and one
// whose lineage is another right away.
func TestAtLeastKnowsAtOnce(t *testing.T) {
	bubble(t, 1, func(t *testing.T, w *world) {
		w.put(0, "a", "1")
		c := w.start()
		w.ready(c)
		pass(time.Second)
		id := at(c).TopicID()
		began := time.Now()
		err := within(t, time.Minute, func(ctx context.Context) error {
			return c.AtLeast(ctx, position.New(id, began, []position.Partition{{Next: 9}}))
		})
		if err != ErrTruncated || time.Since(began) > 2*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		err = within(t, time.Second, func(ctx context.Context) error { // an empty partition that is not there yet
			return c.AtLeast(ctx, position.New(id, began, []position.Partition{{Next: 1}, {Next: 0}}))
		})
		if b, ok := err.(*Behind); !ok || b.Partition != 1 {
			t.Errorf("a partition to come: %v", err)
		}
	})
}

// TestAgeWhileAlwaysALittleBehind: the age is what reading lags, not the time since it last had everything.
func TestAgeWhileAlwaysALittleBehind(t *testing.T) {
	c := New(Options{})
	c.Load(ingest.Incarnation{TopicID: [16]byte{1}, Partitions: []ingest.Progress{{}}, Ends: []int64{0}}, "")
	c.Loaded()
	began := time.Now()
	for i := range int64(100) {
		c.Current(0, 10*i+10, -1, began.Add(time.Duration(i)*500*time.Millisecond))
		c.Apply(&ingest.Batch{Progress: []ingest.Progress{{Partition: 0, Next: 10 * i}}})
	}
	if asOf := c.cur.parts[0].asOf; asOf.Before(began.Add(97 * 500 * time.Millisecond)) {
		t.Errorf("proved current %v after the beginning, of 50 s", asOf.Sub(began))
	}
}
