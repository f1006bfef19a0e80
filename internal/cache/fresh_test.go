package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kkv-project/kkv/internal/ingest"
	"github.com/kkv-project/kkv/internal/position"
	"github.com/kkv-project/kkv/internal/store"
)

// within runs f under a timeout of the bubble's time.
func within(t *testing.T, d time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	return f(ctx)
}

func value(c *Cache, key string) string {
	var r store.Record
	if ok, _, _ := c.Get([]byte(key), &r); !ok {
		return "<none>"
	}
	return string(r.Value)
}

// TestFreshSeesWhatWasAcknowledged although the fetch is answered late.
func TestFreshSeesWhatWasAcknowledged(t *testing.T) {
	bubble(t, 2, func(t *testing.T, w *world) {
		c := w.start()
		w.ready(c)
		w.Delay(kmsg.Fetch, 300*time.Millisecond)
		for i := range 20 {
			w.put(int32(i%2), "k", fmt.Sprint(i)) // the later timestamp wins, or the higher partition
			if err := within(t, 10*time.Second, c.Fresh); err != nil {
				t.Fatal(err)
			}
			if got := value(c, "k"); got != fmt.Sprint(i) && i%2 == 1 {
				t.Fatalf("after %d was acknowledged, a fresh read sees %s", i, got)
			}
			if m, _ := c.Mark(); m.Position.Partition(int32(i%2)).Next != int64(i/2)+1 {
				t.Fatalf("after %d was acknowledged, a fresh read is at %v", i, m.Position)
			}
		}
	})
}

// TestFreshNeverSharesAQuestionUnderWay: a reader that comes while the leaders are being asked waits for the next
// question, for the answer to this one may be older than the reader's own writes; and readers share it.
func TestFreshNeverSharesAQuestionUnderWay(t *testing.T) {
	bubble(t, 2, func(t *testing.T, w *world) {
		c := w.start()
		w.ready(c)
		pass(time.Second)
		var asked atomic.Int64
		w.Fake.ControlKey(int16(kmsg.ListOffsets), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
			w.Fake.KeepControl()
			if req := kreq.(*kmsg.ListOffsetsRequest); req.Topics[0].Partitions[0].Timestamp == -1 {
				asked.Add(1)
			}
			return nil, nil, false
		})
		w.Delay(kmsg.Fetch, 200*time.Millisecond)
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				w.put(0, fmt.Sprint("k", i), "1")
				if err := within(t, 20*time.Second, c.Fresh); err != nil {
					t.Error(err)
				}
				if value(c, fmt.Sprint("k", i)) != "1" {
					t.Errorf("reader %d does not see its own write", i)
				}
			})
		}
		wg.Wait()
		t.Logf("200 readers asked %d times", asked.Load())
		if n := asked.Load(); n > 100 {
			t.Errorf("200 readers asked %d times", n)
		}
	})
}

// TestFreshIsNotAnsweredByAnEarlierQuestion: a leader's answer to a question that was under way when a write was
// acknowledged comes late, and knows nothing of it.
func TestFreshIsNotAnsweredByAnEarlierQuestion(t *testing.T) {
	bubble(t, 1, func(t *testing.T, w *world) {
		c := w.start()
		w.ready(c)
		pass(time.Second)
		undo := w.Delay(kmsg.Fetch, 3*time.Second) // so that only waiting shows the write
		var end atomic.Int64
		w.Fake.ControlKey(int16(kmsg.ListOffsets), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
			w.Fake.KeepControl()
			req := kreq.(*kmsg.ListOffsetsRequest)
			if req.Topics[0].Partitions[0].Timestamp != -1 {
				return nil, nil, false
			}
			resp := req.ResponseKind().(*kmsg.ListOffsetsResponse)
			rt := kmsg.NewListOffsetsResponseTopic()
			rt.Topic = "t"
			rp := kmsg.NewListOffsetsResponseTopicPartition()
			rp.Offset = end.Load() // as of now
			rt.Partitions = append(rt.Partitions, rp)
			resp.Topics = append(resp.Topics, rt)
			w.Fake.SleepControl(func() { <-time.After(100 * time.Millisecond) })
			return resp, nil, true
		})
		for i := range 5 {
			var early sync.WaitGroup
			early.Go(func() { _ = within(t, 20*time.Second, c.Fresh) })
			pass(50 * time.Millisecond) // its question is under way
			w.put(0, "k", fmt.Sprint(i))
			end.Store(int64(i) + 1)
			if err := within(t, 20*time.Second, c.Fresh); err != nil || value(c, "k") != fmt.Sprint(i) {
				t.Errorf("write %d is acknowledged, and a fresh read sees %s, %v", i, value(c, "k"), err)
			}
			early.Wait()
		}
		undo()
	})
}

func TestFreshBehindAnOpenTransaction(t *testing.T) {
	bubble(t, 2, func(t *testing.T, w *world) {
		c := w.start()
		w.ready(c)
		tx := w.Begin("x").Put(0, "open", "1")
		w.put(0, "plain", "acknowledged")
		pass(2 * time.Second)
		err := within(t, 3*time.Second, c.Fresh)
		b, ok := errors.AsType[*Behind](err)
		if !ok || b.Reason != BehindOpenTx || b.Partition != 0 || b.Wanted != 2 || b.Have != 0 {
			t.Fatalf("Fresh behind an open transaction: %v", err)
		}
		if value(c, "plain") != "<none>" {
			t.Error("read_committed shows what stands behind the last stable offset")
		}
		tx.Commit()
		if err := within(t, 3*time.Second, c.Fresh); err != nil || value(c, "plain") != "acknowledged" || value(c, "open") != "1" {
			t.Errorf("after the commit: %v, %s", err, shows(c))
		}
	})
}

// TestFreshDoesNotAskForWhatIsStable: the commit of a transaction is answered before its markers stand, so that the last
// stable offset lies below what was acknowledged; the high watermark does not (measured on Kafka, not on kfake).
func TestFreshDoesNotAskForWhatIsStable(t *testing.T) {
	bubble(t, 1, func(t *testing.T, w *world) {
		c := w.start()
		w.ready(c)
		pass(time.Second)
		w.Fake.ControlKey(int16(kmsg.ListOffsets), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
			w.Fake.KeepControl()
			req := kreq.(*kmsg.ListOffsetsRequest)
			if req.IsolationLevel != 1 {
				return nil, nil, false
			}
			resp := req.ResponseKind().(*kmsg.ListOffsetsResponse)
			rt := kmsg.NewListOffsetsResponseTopic()
			rt.Topic = "t"
			rp := kmsg.NewListOffsetsResponseTopicPartition()
			rp.Offset = 0
			rt.Partitions = append(rt.Partitions, rp)
			resp.Topics = append(resp.Topics, rt)
			return resp, nil, true
		})
		undo := w.Delay(kmsg.Fetch, 300*time.Millisecond)
		for i := range 5 {
			w.Begin("x").Put(0, "k", fmt.Sprint(i)).Commit()
			if err := within(t, 10*time.Second, c.Fresh); err != nil || value(c, "k") != fmt.Sprint(i) {
				t.Fatalf("commit %d was answered, and a fresh read sees %s, %v", i, value(c, "k"), err)
			}
		}
		undo()
	})
}

// TestFreshWhenLeadersMove: a leader that does not know its high watermark yet (KIP-207), or is none any more, is
// asked again.
func TestFreshWhenLeadersMove(t *testing.T) {
	bubble(t, 2, func(t *testing.T, w *world) {
		c := w.start()
		w.ready(c)
		for _, e := range []*kerr.Error{kerr.OffsetNotAvailable, kerr.NotLeaderForPartition, kerr.FencedLeaderEpoch, kerr.UnknownLeaderEpoch, kerr.LeaderNotAvailable, kerr.KafkaStorageError} {
			w.put(0, "k", e.Message)
			h := w.Fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Err: e, Count: 5})
			if err := within(t, 5*time.Second, c.Fresh); err != nil || value(c, "k") != e.Message {
				t.Errorf("%s: %v, sees %s", e.Message, err, value(c, "k"))
			}
			h.Remove()
		}
		if err := w.Fake.MoveTopicPartition("t", 0, 0); err != nil {
			t.Fatal(err)
		}
		w.put(0, "k", "moved")
		if err := within(t, 5*time.Second, c.Fresh); err != nil || value(c, "k") != "moved" {
			t.Errorf("after a move: %v, sees %s", err, value(c, "k"))
		}
	})
}

func TestFreshAndMaxStaleWithKafkaAway(t *testing.T) {
	bubble(t, 2, func(t *testing.T, w *world) {
		w.put(0, "k", "1")
		c := w.start()
		w.ready(c)
		pass(time.Second)
		if err := within(t, time.Second, func(ctx context.Context) error { return c.MaxStale(ctx, 2*time.Second) }); err != nil {
			t.Errorf("MaxStale with Kafka there: %v", err)
		}
		h := w.Fake.Fault(kfake.Fault{Err: kerr.BrokerNotAvailable, Count: -1, Keys: []kmsg.Key{kmsg.Fetch, kmsg.Metadata, kmsg.ListOffsets}})
		pass(10 * time.Second)
		err := within(t, 3*time.Second, c.Fresh)
		if b, ok := errors.AsType[*Behind](err); !ok || b.Reason != BehindLeader {
			t.Errorf("Fresh with Kafka away: %v", err)
		}
		stale := func(d time.Duration) error {
			return within(t, time.Second, func(ctx context.Context) error { return c.MaxStale(ctx, d) })
		}
		if err := stale(2 * time.Second); !errors.Is(err, ErrTooStale) {
			t.Errorf("MaxStale with Kafka away: %v", err)
		}
		if err := stale(time.Hour); err != nil {
			t.Errorf("an hour: %v", err)
		}
		h.Remove()
		if err := within(t, 10*time.Second, c.Fresh); err != nil {
			t.Errorf("Fresh with Kafka back: %v", err)
		}
	})
}

func TestAtLeast(t *testing.T) {
	bubble(t, 2, func(t *testing.T, w *world) {
		w.put(0, "k", "1")
		c := w.start()
		w.ready(c)
		m, _ := c.Mark()
		at := func(p position.Position) error {
			return within(t, 2*time.Second, func(ctx context.Context) error { return c.AtLeast(ctx, p) })
		}
		id := m.Position.TopicID()
		if err := errors.Join(at(position.Position{}), at(m.Position), at(position.FromWrite(id, 0, 0))); err != nil {
			t.Error(err)
		}
		done := make(chan error)
		go func() { done <- at(position.FromWrite(id, 1, 0)) }()
		synctest.Wait()
		w.put(1, "later", "1")
		if err := <-done; err != nil || value(c, "later") != "1" {
			t.Errorf("a write that comes: %v", err)
		}
		if b, ok := errors.AsType[*Behind](at(position.FromWrite(id, 0, 7))); !ok || b.Wanted != 8 || b.Have != 1 || b.Reason != BehindPlain {
			t.Errorf("a write that does not come: %v", b)
		}
		if err := at(position.FromWrite([16]byte{1}, 0, 0)); !errors.Is(err, ErrOtherTopic) {
			t.Errorf("another topic's: %v", err)
		}
		if b, ok := errors.AsType[*Behind](at(position.FromWrite(id, 5, 0))); !ok || b.Partition != 5 {
			t.Errorf("a partition that is not there: %v", b)
		}
	})
}

// TestAtLeastAcrossATopicMadeAgain: the position of the new incarnation makes the replica that still holds the old
// one look, and wait; the old one's is refused.
func TestAtLeastAcrossATopicMadeAgain(t *testing.T) {
	bubble(t, 2, func(t *testing.T, w *world) {
		w.put(0, "old", "1")
		c := w.start()
		w.ready(c)
		pass(time.Second)
		old, _ := c.Mark()
		w.DeleteTopic()
		w.CreateTopic(2, nil)
		w.put(0, "new", "1")
		id := w.Fake.TopicInfo("t").TopicID
		if err := within(t, 20*time.Second, func(ctx context.Context) error { return c.AtLeast(ctx, position.FromWrite(id, 0, 0)) }); err != nil || value(c, "new") != "1" {
			t.Errorf("the new one's position: %v, %s", err, shows(c))
		}
		if err := within(t, 2*time.Second, func(ctx context.Context) error { return c.AtLeast(ctx, old.Position) }); !errors.Is(err, ErrOtherTopic) {
			t.Errorf("the old one's position: %v", err)
		}
	})
}

// TestLineage: a position whose records were replaced under a later leader epoch is refused.
func TestLineage(t *testing.T) {
	p := &part{}
	for _, e := range []epochStart{{0, 0}, {2, 10}, {2, 11}, {5, 20}} {
		p.under(e.epoch, e.start)
	}
	for _, tc := range []struct {
		next  int64
		epoch int32
		want  bool
	}{{5, 0, true}, {10, 0, true}, {11, 0, false}, {20, 2, true}, {21, 2, false}, {21, 5, true}, {99, 6, true}, {11, 1, false}, {15, position.EpochUnknown, true}} {
		if got := p.holds(position.Partition{Next: tc.next, Epoch: tc.epoch}); got != tc.want {
			t.Errorf("holds(next %d, epoch %d) = %v", tc.next, tc.epoch, got)
		}
	}
}

// TestAWaitThatFailsLeavesNothingBehind: once its time is over, Kafka is asked no more than before.
func TestAWaitThatFailsLeavesNothingBehind(t *testing.T) {
	bubble(t, 2, func(t *testing.T, w *world) {
		c := w.start()
		w.ready(c)
		h := w.Fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Observe: true, Count: -1})
		in := func(d time.Duration) int {
			before := h.Hits()
			pass(d)
			return h.Hits() - before
		}
		idle := in(10 * time.Second)
		if err := within(t, time.Second, func(ctx context.Context) error { return c.WaitFor(ctx, [16]byte{}, 0, 1000) }); err == nil {
			t.Error("waited for a record that is not there, and got it")
		}
		pass(time.Minute)
		if after := in(10 * time.Second); after > idle+5 {
			t.Errorf("%d metadata requests in 10 s, %d before", after, idle)
		}
	})
}

// TestReadingRefused: without the right to read, a load ends with Kafka's word.
func TestReadingRefused(t *testing.T) {
	bubble(t, 2, func(t *testing.T, w *world) {
		w.put(0, "a", "1")
		w.Fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.TopicAuthorizationFailed, Count: -1})
		c := New(Options{Ingest: ingest.Options{Kafka: w.Config(), Topic: "t"}})
		if err := within(t, time.Minute, c.Run); !errors.Is(err, kerr.TopicAuthorizationFailed) {
			t.Errorf("Run: %v", err)
		}
	})
}

// TestAtLeastInAGap: the record waited for was compacted away, for the sake of one that is still to be read.
func TestAtLeastInAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Options{})
		id := [16]byte{1}
		c.Load(ingest.Incarnation{TopicID: id, Partitions: []ingest.Progress{{}}, Ends: []int64{0}}, "")
		c.Loaded()
		read := func(next, gap, settled int64, key, value string) {
			c.Apply(&ingest.Batch{Records: []ingest.Record{{Key: []byte(key), Value: []byte(value), Offset: next - 1}},
				Progress: []ingest.Progress{{Partition: 0, Next: next, Gap: gap, Settled: settled}}})
		}
		served := func(offset int64) bool {
			at := within(t, time.Second, func(ctx context.Context) error { return c.AtLeast(ctx, position.FromWrite(id, 0, offset)) })
			wait := within(t, time.Second, func(ctx context.Context) error { return c.WaitFor(ctx, id, 0, offset) })
			if (at == nil) != (wait == nil) {
				t.Errorf("offset %d: AtLeast says %v, WaitFor %v", offset, at, wait)
			}
			return at == nil
		}
		read(1, 0, 0, "k", "old") // k's next value was at 1, and the one after at 8
		read(5, 4, 10, "x", "1")
		if !served(0) || served(1) || served(4) {
			t.Error("at 5 of 10, after a gap, only what came before the gap is known")
		}
		read(9, 0, 0, "k", "new")
		if served(1) {
			t.Error("at 9 of 10")
		}
		read(10, 0, 0, "y", "1")
		if !served(1) || !served(4) || !served(9) {
			t.Error("at 10 of 10")
		}
		read(11, 0, 0, "y", "2")
		if !served(10) {
			t.Error("beyond the gap")
		}
	})
}
