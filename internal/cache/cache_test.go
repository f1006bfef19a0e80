package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kkv-project/kkv/internal/ingest"
	"github.com/kkv-project/kkv/internal/kafkatest"
	"github.com/kkv-project/kkv/internal/position"
	"github.com/kkv-project/kkv/internal/store"
)

// world is a kfake cluster in a synctest bubble, with caches.
type world struct {
	*kafkatest.Cluster
	t *testing.T
}

func (w *world) put(partition int32, key, value string) { w.t.Helper(); w.Put(partition, key, value) }

func (w *world) del(partition int32, key string) { w.t.Helper(); w.Delete(partition, key) }

// start runs a Cache until the test's end.
func (w *world) start(change ...func(*Options)) *Cache {
	o := Options{Ingest: ingest.Options{Kafka: w.Config(), Topic: "t", Logger: slog.New(slog.DiscardHandler)}}
	for _, f := range change {
		f(&o)
	}
	c := New(o)
	ctx, cancel := context.WithCancel(w.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := c.Run(ctx); err != nil {
			w.t.Errorf("Run: %v", err)
		}
	})
	w.t.Cleanup(func() { cancel(); wg.Wait() })
	return c
}

func (w *world) ready(c *Cache) {
	w.t.Helper()
	select {
	case <-c.Ready():
	case <-time.After(time.Minute):
		w.t.Fatalf("not ready: %+v", c.Status())
	}
}

// shows is everything c shows, as "key=value" in key order.
func shows(c *Cache) string {
	snap, _, err := c.Snapshot()
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for r := range snap.All(nil, nil) {
		fmt.Fprintf(&b, "%s=%s ", r.Key, r.Value)
	}
	return strings.TrimSpace(b.String())
}

func (w *world) wantState(c *Cache, want string) {
	w.t.Helper()
	if got := shows(c); got != want {
		w.t.Errorf("the cache shows %q, want %q", got, want)
	}
}

// fresh waits until c has all that was written.
func (w *world) fresh(c *Cache) {
	w.t.Helper()
	if err := within(w.t, time.Minute, c.Fresh); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) eventually(c *Cache, want string) {
	w.t.Helper()
	for range 600 {
		if shows(c) == want {
			return
		}
		pass(100 * time.Millisecond)
	}
	w.t.Fatalf("the cache shows %q, want %q; status %+v", shows(c), want, c.Status())
}

// bubble runs f with a topic "t" of so many partitions; none: it does not exist.
func bubble(t *testing.T, partitions int32, f func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) { f(t, &world{kafkatest.Start(t, "t", partitions), t}) })
}

func TestLoadThenFollow(t *testing.T) {
	bubble(t, 2, func(t *testing.T, w *world) {
		w.put(0, "a", "1")
		w.put(1, "b", "1")
		w.put(0, "a", "2")
		w.put(0, "gone", "1")
		w.del(0, "gone")
		w.Produce(&kgo.Record{Topic: "t", Partition: 1, Value: []byte("no key")})
		c := w.start()
		if _, err := c.Mark(); !errors.Is(err, ErrNotReady) {
			t.Errorf("Get before ready: %v", err)
		}
		w.ready(c)
		w.wantState(c, "a=2 b=1")
		rd := c.Reader()
		w.put(0, "c", "1")
		if err := c.WaitFor(t.Context(), [16]byte{}, 0, 4); err != nil {
			t.Fatal(err)
		}
		w.wantState(c, "a=2 b=1 c=1")
		w.put(0, "c", "1")
		w.del(1, "b")
		w.eventually(c, "a=2 c=1")
		var got []string
		for len(got) < 3 {
			b, err := rd.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, ch := range b.Changes {
				got = append(got, fmt.Sprintf("%s=%s deleted:%v equal:%v at %d/%d", ch.Key, ch.Value, ch.Deleted, ch.Equal, ch.Partition, ch.Offset))
				if n := b.Position.Partition(ch.Partition).Next; n <= ch.Offset {
					t.Errorf("batch position %v does not cover its change %v", b.Position, ch)
				}
			}
		}
		want := []string{"c=1 deleted:false equal:false at 0/4", "c=1 deleted:false equal:true at 0/5", "b= deleted:true equal:false at 1/2"}
		if strings.Join(got, "; ") != strings.Join(want, "; ") {
			t.Errorf("feed: %q, want %q", got, want)
		}
		if st := c.Status(); st.NullKeys != 1 || st.Keys != 2 || st.Stage != Polling {
			t.Errorf("status %+v", st)
		}
		var r store.Record
		_, m, _ := c.Get([]byte("a"), &r)
		if p, err := position.Parse(m.Text); err != nil || r.Offset != 1 || !p.Covers(m.Position) {
			t.Errorf("Get: %v at %s, %v", r, m.Text, err)
		}
		pass(time.Second)
		m, _ = c.Mark()
		if age, ok := m.Age(); !ok || age > time.Second {
			t.Errorf("age %v, %v", age, ok)
		}
	})
}

func TestEmptyTopicIsReady(t *testing.T) {
	bubble(t, 2, func(t *testing.T, w *world) {
		c := w.start()
		w.ready(c)
		w.wantState(c, "")
	})
}

// TestMarkersAndAbortedRecords: what no poll shows still counts as read.
func TestMarkersAndAbortedRecords(t *testing.T) {
	bubble(t, 2, func(t *testing.T, w *world) {
		w.Begin("x").Put(0, "committed", "v").Commit()
		w.Begin("x").Put(1, "aborted", "v").Abort() // partition 1 holds nothing that a poll shows
		c := w.start()
		w.ready(c)
		w.wantState(c, "committed=v")
		w.Begin("x").Put(0, "aborted", "v").Abort()
		w.Begin("x").Put(0, "later", "v").Commit()
		w.eventually(c, "committed=v later=v")
	})
}

func TestOpenTransactionHoldsNothingUp(t *testing.T) {
	bubble(t, 2, func(t *testing.T, w *world) {
		w.put(0, "a", "1")
		tx := w.Begin("x").Put(0, "open", "1")
		w.put(0, "a", "2")
		c := w.start()
		w.ready(c) // on what was stable at start
		w.wantState(c, "a=1")
		tx.Commit()
		w.eventually(c, "a=2 open=1")
	})
}

func TestLogStartAboveZero(t *testing.T) {
	bubble(t, 2, func(t *testing.T, w *world) {
		for i := range 5 {
			w.put(0, "a", fmt.Sprint(i))
			w.put(1, "b", fmt.Sprint(i))
		}
		w.DeleteRecords(0, 5)
		w.DeleteRecords(1, 4)
		c := w.start()
		w.ready(c)
		w.wantState(c, "b=4")
		if m, _ := c.Mark(); m.Position.Partition(0).Next != 5 {
			t.Errorf("an empty partition's position is its log start, got %v", m.Position)
		}
	})
}

func TestMissingTopicIsWaitedFor(t *testing.T) {
	bubble(t, 0, func(t *testing.T, w *world) {
		c := w.start()
		pass(3 * time.Second)
		if st := c.Status(); !errors.Is(st.Trouble, ingest.ErrNoTopic) || st.Stage != Assigning {
			t.Errorf("status %+v", st)
		}
		if _, err := c.Mark(); !errors.Is(err, ErrNotReady) || !strings.Contains(err.Error(), "--create-topic") {
			t.Errorf("Get: %v", err)
		}
		w.CreateTopic(2, nil)
		w.put(1, "a", "1")
		w.ready(c)
		w.eventually(c, "a=1")
		if st := c.Status(); st.Trouble != nil {
			t.Errorf("status %+v", st)
		}
	})
}

func TestTopicMadeAgainWithFewerRecords(t *testing.T) {
	bubble(t, 2, func(t *testing.T, w *world) {
		for i := range 5 {
			w.put(0, fmt.Sprint("old", i), "1")
		}
		c := w.start()
		w.ready(c)
		pass(time.Second)
		rd := c.Reader()
		w.DeleteTopic()
		pass(3 * time.Second)
		w.wantState(c, "old0=1 old1=1 old2=1 old3=1 old4=1") // served on, and health says so
		if st := c.Status(); !errors.Is(st.Trouble, ingest.ErrNoTopic) || !st.Ready {
			t.Errorf("status %+v", st)
		}
		if age, ok := c.cur.readMark().Age(); !ok || age < 2*time.Second {
			t.Errorf("age %v, %v", age, ok)
		}
		w.CreateTopic(1, nil)
		w.put(0, "new", "1")
		w.eventually(c, "new=1")
		var reset string
		for reset == "" {
			b, err := rd.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			reset = b.Reset
		}
		if reset != ingest.ReasonRecreated {
			t.Errorf("reset %q", reset)
		}
	})
}

func TestPartitionsAddedWhileRunning(t *testing.T) {
	bubble(t, 2, func(t *testing.T, w *world) {
		w.put(0, "a", "1")
		c := w.start()
		w.ready(c)
		w.AddPartitions(4)
		w.put(3, "b", "1")
		w.eventually(c, "a=1 b=1")
	})
}

// TestRecordsDeletedUnderneath: the log start moves past what is being read.
func TestRecordsDeletedUnderneath(t *testing.T) {
	bubble(t, 2, func(t *testing.T, w *world) {
		w.put(0, "a", "1")
		c := w.start()
		w.ready(c)
		hold := w.Fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.KafkaStorageError, Count: -1})
		pass(2 * time.Second)
		w.put(0, "a", "2")
		w.put(0, "b", "2")
		w.DeleteRecords(0, 2)
		hold.Remove()
		w.eventually(c, "b=2")
	})
}

func TestKafkaAwayAndBack(t *testing.T) {
	bubble(t, 2, func(t *testing.T, w *world) {
		w.put(0, "a", "1")
		c := w.start()
		w.ready(c)
		pass(time.Second)
		h := w.Fake.Fault(kfake.Fault{Err: kerr.BrokerNotAvailable, Count: -1, Keys: []kmsg.Key{kmsg.Fetch, kmsg.Metadata, kmsg.ListOffsets}})
		pass(time.Minute)
		w.wantState(c, "a=1")
		st := c.Status()
		if !st.Ready || st.Trouble == nil || st.Partitions[0].Age < 50*time.Second {
			t.Errorf("status %+v", st)
		}
		h.Remove()
		w.put(0, "a", "2")
		w.eventually(c, "a=2")
		pass(10 * time.Second)
		if st := c.Status(); st.Trouble != nil || st.Partitions[0].Age > 2*time.Second {
			t.Errorf("status %+v", st)
		}
	})
}

func TestWaitForEndsWithItsContext(t *testing.T) {
	bubble(t, 2, func(t *testing.T, w *world) {
		c := w.start()
		w.ready(c)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := c.WaitFor(ctx, [16]byte{}, 0, 7); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("WaitFor: %v", err)
		}
	})
}

var pass = kafkatest.Pass
