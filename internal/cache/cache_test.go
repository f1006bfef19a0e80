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

	"github.com/kkv-project/kkv/internal/feed"
	"github.com/kkv-project/kkv/internal/ingest"
	"github.com/kkv-project/kkv/internal/kafka"
	"github.com/kkv-project/kkv/internal/position"
	"github.com/kkv-project/kkv/internal/store"
)

// world is a kfake cluster in a synctest bubble, with one producer.
type world struct {
	t     *testing.T
	vn    *kfake.VirtualNetwork
	fake  *kfake.Cluster
	admin *kgo.Client
}

func newWorld(t *testing.T, opts ...kfake.Opt) *world {
	w := &world{t: t, vn: &kfake.VirtualNetwork{}}
	fake, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.Ports(9092), kfake.ListenFn(w.vn.Listen)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	w.fake = fake
	t.Cleanup(func() {
		fake.Close()
		pass(time.Second) // for what a control still sleeps
	})
	w.admin = w.client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))
	return w
}

func (w *world) client(opts ...kgo.Opt) *kgo.Client {
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(w.fake.ListenAddrs()...), kgo.Dialer(w.vn.DialContext))...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(cl.Close)
	return cl
}

func (w *world) put(partition int32, key, value string) {
	w.t.Helper()
	w.produce(&kgo.Record{Topic: "t", Partition: partition, Key: []byte(key), Value: []byte(value)})
}

func (w *world) del(partition int32, key string) {
	w.t.Helper()
	w.produce(&kgo.Record{Topic: "t", Partition: partition, Key: []byte(key)})
}

func (w *world) produce(r *kgo.Record) {
	w.t.Helper()
	if err := w.admin.ProduceSync(w.t.Context(), r).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
}

// start runs a Cache until the test's end.
func (w *world) start(change ...func(*Options)) *Cache {
	o := Options{Ingest: ingest.Options{Kafka: kafka.Config{Bootstrap: w.fake.ListenAddrs(), Dial: w.vn.DialContext}, Topic: "t", Logger: slog.New(slog.DiscardHandler)}}
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

func bubble(t *testing.T, opts []kfake.Opt, f func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) { f(t, newWorld(t, opts...)) })
}

var two = []kfake.Opt{kfake.SeedTopics(2, "t")}

func TestLoadThenFollow(t *testing.T) {
	bubble(t, two, func(t *testing.T, w *world) {
		w.put(0, "a", "1")
		w.put(1, "b", "1")
		w.put(0, "a", "2")
		w.put(0, "gone", "1")
		w.del(0, "gone")
		w.produce(&kgo.Record{Topic: "t", Partition: 1, Value: []byte("no key")})
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
	bubble(t, two, func(t *testing.T, w *world) {
		c := w.start()
		w.ready(c)
		w.wantState(c, "")
	})
}

// TestMarkersAndAbortedRecords: what no poll shows still counts as read.
func TestMarkersAndAbortedRecords(t *testing.T) {
	bubble(t, two, func(t *testing.T, w *world) {
		tx := w.client(kgo.TransactionalID("x"), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic("t"))
		do := func(how kgo.TransactionEndTry, partition int32, key string) {
			t.Helper()
			if err := tx.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			if err := tx.ProduceSync(t.Context(), &kgo.Record{Partition: partition, Key: []byte(key), Value: []byte("v")}).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if err := tx.EndTransaction(t.Context(), how); err != nil {
				t.Fatal(err)
			}
		}
		do(kgo.TryCommit, 0, "committed")
		do(kgo.TryAbort, 1, "aborted") // partition 1 holds nothing that a poll shows
		c := w.start()
		w.ready(c)
		w.wantState(c, "committed=v")
		do(kgo.TryAbort, 0, "aborted")
		do(kgo.TryCommit, 0, "later")
		w.eventually(c, "committed=v later=v")
	})
}

func TestOpenTransactionHoldsNothingUp(t *testing.T) {
	bubble(t, two, func(t *testing.T, w *world) {
		w.put(0, "a", "1")
		tx := w.client(kgo.TransactionalID("x"), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic("t"))
		if err := tx.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := tx.ProduceSync(t.Context(), &kgo.Record{Key: []byte("open"), Value: []byte("1")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		w.put(0, "a", "2")
		c := w.start()
		w.ready(c) // on what was stable at start
		w.wantState(c, "a=1")
		if err := tx.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
			t.Fatal(err)
		}
		w.eventually(c, "a=2 open=1")
	})
}

func TestLogStartAboveZero(t *testing.T) {
	bubble(t, two, func(t *testing.T, w *world) {
		for i := range 5 {
			w.put(0, "a", fmt.Sprint(i))
			w.put(1, "b", fmt.Sprint(i))
		}
		if err := errors.Join(w.fake.DeleteRecords("t", 0, 5), w.fake.DeleteRecords("t", 1, 4)); err != nil {
			t.Fatal(err)
		}
		c := w.start()
		w.ready(c)
		w.wantState(c, "b=4")
		if m, _ := c.Mark(); m.Position.Partition(0).Next != 5 {
			t.Errorf("an empty partition's position is its log start, got %v", m.Position)
		}
	})
}

func TestMissingTopicIsWaitedFor(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		c := w.start()
		pass(3 * time.Second)
		if st := c.Status(); !errors.Is(st.Trouble, ingest.ErrNoTopic) || st.Stage != Assigning {
			t.Errorf("status %+v", st)
		}
		if _, err := c.Mark(); !errors.Is(err, ErrNotReady) || !strings.Contains(err.Error(), "--create-topic") {
			t.Errorf("Get: %v", err)
		}
		if err := w.fake.CreateTopic("t", 2, nil); err != nil {
			t.Fatal(err)
		}
		w.put(1, "a", "1")
		w.ready(c)
		w.eventually(c, "a=1")
		if st := c.Status(); st.Trouble != nil {
			t.Errorf("status %+v", st)
		}
	})
}

func TestTopicMadeAgainWithFewerRecords(t *testing.T) {
	bubble(t, two, func(t *testing.T, w *world) {
		for i := range 5 {
			w.put(0, fmt.Sprint("old", i), "1")
		}
		c := w.start()
		w.ready(c)
		pass(time.Second)
		rd := c.Reader()
		if err := w.fake.DeleteTopic("t"); err != nil {
			t.Fatal(err)
		}
		pass(3 * time.Second)
		w.wantState(c, "old0=1 old1=1 old2=1 old3=1 old4=1") // served on, and health says so
		if st := c.Status(); !errors.Is(st.Trouble, ingest.ErrNoTopic) || !st.Ready {
			t.Errorf("status %+v", st)
		}
		if age, ok := c.cur.readMark().Age(); !ok || age < 2*time.Second {
			t.Errorf("age %v, %v", age, ok)
		}
		if err := w.fake.CreateTopic("t", 1, nil); err != nil {
			t.Fatal(err)
		}
		w.admin = w.client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
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
	bubble(t, two, func(t *testing.T, w *world) {
		w.put(0, "a", "1")
		c := w.start()
		w.ready(c)
		req := kmsg.NewPtrCreatePartitionsRequest()
		topic := kmsg.NewCreatePartitionsRequestTopic()
		topic.Topic, topic.Count = "t", 4
		req.Topics = append(req.Topics, topic)
		if resp, err := req.RequestWith(t.Context(), w.admin); err != nil || kerr.ErrorForCode(resp.Topics[0].ErrorCode) != nil {
			t.Fatal(err, resp)
		}
		w.admin = w.client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
		w.put(3, "b", "1")
		w.eventually(c, "a=1 b=1")
	})
}

// TestRecordsDeletedUnderneath: the log start moves past what is being read.
func TestRecordsDeletedUnderneath(t *testing.T) {
	bubble(t, two, func(t *testing.T, w *world) {
		w.put(0, "a", "1")
		c := w.start()
		w.ready(c)
		hold := w.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.KafkaStorageError, Count: -1})
		pass(2 * time.Second)
		w.put(0, "a", "2")
		w.put(0, "b", "2")
		if err := w.fake.DeleteRecords("t", 0, 2); err != nil {
			t.Fatal(err)
		}
		hold.Remove()
		w.eventually(c, "b=2")
	})
}

func TestKafkaAwayAndBack(t *testing.T) {
	bubble(t, two, func(t *testing.T, w *world) {
		w.put(0, "a", "1")
		c := w.start()
		w.ready(c)
		pass(time.Second)
		h := w.fake.Fault(kfake.Fault{Err: kerr.BrokerNotAvailable, Count: -1, Keys: []kmsg.Key{kmsg.Fetch, kmsg.Metadata, kmsg.ListOffsets}})
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

// TestChangedSince: what a reader that fell off the ring needs.
func TestChangedSince(t *testing.T) {
	bubble(t, two, func(t *testing.T, w *world) {
		w.put(0, "a", "1")
		w.put(1, "b", "1")
		c := w.start()
		w.ready(c)
		m, _ := c.Mark()
		w.put(0, "c", "1")
		w.put(1, "b", "2")
		w.eventually(c, "a=1 b=2 c=1")
		keys := func(since position.Position) (s string) {
			c.ChangedSince(since, func(ch feed.Change) { s += string(ch.Key) })
			return s
		}
		if got := keys(m.Position); got != "bc" {
			t.Errorf("changed since %v: %q", m.Position, got)
		}
		if got := keys(position.Position{}); got != "abc" {
			t.Errorf("changed since ever: %q", got)
		}
	})
}

func TestWaitForEndsWithItsContext(t *testing.T) {
	bubble(t, two, func(t *testing.T, w *world) {
		c := w.start()
		w.ready(c)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := c.WaitFor(ctx, [16]byte{}, 0, 7); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("WaitFor: %v", err)
		}
	})
}

// pass lets d of the bubble's time pass.
func pass(d time.Duration) { <-time.After(d) }
