package ingest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kkv-project/kkv/internal/kafkatest"
)

// TestWhatNoPollShows: markers, aborted records and what compaction left out count as read, whether they stand at the
// end when a load begins or come later.
func TestWhatNoPollShows(t *testing.T) {
	for name, tc := range map[string]struct {
		write func(g *rig)
		state string
		next  int64
	}{
		"nothing":              {func(*rig) {}, "", 0},
		"a commit's marker":    {func(g *rig) { g.Begin("x").Put(0, "k", "1").Commit() }, "0/k=1", 2},
		"an abort's marker":    {func(g *rig) { g.Put(0, "k", "1"); g.Begin("x").Put(0, "k", "2").Abort() }, "0/k=1", 3},
		"only aborted records": {func(g *rig) { g.Begin("x").Put(0, "k", "1").Put(0, "l", "1").Abort() }, "", 3},
		"two, one after the other": {func(g *rig) {
			g.Begin("x").Put(0, "k", "1").Delete(0, "k").Commit()
			g.Begin("y").Put(0, "k", "2").Abort()
		}, "", 5},
		"a tombstone, and put again": {func(g *rig) { g.Put(0, "k", "1"); g.Delete(0, "k"); g.Put(0, "k", "3") }, "0/k=3", 3},
		"all expired":                {func(g *rig) { g.Put(0, "k", "1"); g.Put(0, "k", "2"); g.DeleteRecords(0, 2) }, "", 2},
		"no key": {func(g *rig) {
			g.Produce(&kgo.Record{Partition: 0, Value: []byte("1")})
		}, "0/=1", 1},
		"older timestamps later": {func(g *rig) {
			g.Produce(&kgo.Record{Key: []byte("k"), Value: []byte("1"), Timestamp: time.Now()})
			g.Produce(&kgo.Record{Key: []byte("k"), Value: []byte("2"), Timestamp: time.Now().Add(-time.Hour)})
		}, "0/k=2", 2},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 1, func(t *testing.T, g *rig) {
				tc.write(g)
				g.run()
				g.want(5*time.Second, tc.state)
				if at := g.at(0); at.Next != tc.next {
					t.Errorf("loaded at %+v, want %d", at, tc.next)
				}
			})
			bubble(t, 1, func(t *testing.T, g *rig) {
				g.run()
				g.want(5*time.Second, "")
				tc.write(g)
				g.reaches(0, tc.next)
				kafkatest.Pass(6 * time.Second)
				if start := g.Fake.PartitionInfo("t", 0).LogStartOffset; start > 0 { // the sink's to remove, once it is told
					if at := g.at(0); at.LogStart != start {
						t.Errorf("the log starts at %d, and %+v was told", start, at)
					}
					return
				}
				g.want(time.Second, tc.state)
				g.wantLoads("")
			})
		})
	}
}

// TestCompactedTopic: keys whose records compaction took, the first and the last of the log among them.
func TestCompactedTopic(t *testing.T) {
	bubble(t, 0, func(t *testing.T, g *rig) {
		g.CreateTopic(1, map[string]string{"cleanup.policy": "compact", "delete.retention.ms": "1"})
		for i := range 20 {
			g.Put(0, fmt.Sprint("k", i%3), fmt.Sprint(i))
		}
		g.Delete(0, "k0")
		g.Begin("x").Put(0, "aborted", "1").Abort()
		kafkatest.Pass(time.Minute)
		g.Fake.Compact()
		kafkatest.Pass(time.Second)
		g.Fake.Compact()
		end := g.Fake.PartitionInfo("t", 0).HighWatermark
		g.run()
		g.want(5*time.Second, "0/k1=19 0/k2=17")
		if at := g.at(0); at.Next != end || at.Gap == 0 || at.Settled > end {
			t.Errorf("loaded at %+v of %d", at, end)
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.retention != time.Millisecond {
			t.Errorf("delete.retention.ms was read as %v", g.retention)
		}
	})
}

func TestOpenTransactionAtStart(t *testing.T) {
	bubble(t, 1, func(t *testing.T, g *rig) {
		g.Put(0, "k", "1")
		x := g.Begin("x").Put(0, "open", "1")
		g.Put(0, "k", "2")
		g.run()
		g.want(5*time.Second, "0/k=1")
		kafkatest.Pass(2 * time.Second)
		g.mu.Lock()
		stable, proved := g.stable[0], g.proved[0]
		g.mu.Unlock()
		if stable != 1 || !proved.IsZero() {
			t.Errorf("the last stable offset was told as %d, and everything as read at %v", stable, proved)
		}
		x.Commit()
		g.want(5*time.Second, "0/k=2 0/open=1")
	})
}

func TestReadUncommitted(t *testing.T) {
	bubble(t, 1, func(t *testing.T, g *rig) {
		g.Begin("y").Put(0, "aborted", "1").Abort()
		g.Begin("x").Put(0, "open", "1")
		g.run()
		g.want(5*time.Second, "0/aborted=1 0/open=1")
	}, func(o *Options) { o.ReadUncommitted = true })
}

// TestHeadExpiresWhileLoading: the log start moves past where the load reads.
func TestHeadExpiresWhileLoading(t *testing.T) {
	bubble(t, 2, func(t *testing.T, g *rig) {
		for i := range 5 {
			g.Put(0, fmt.Sprint("k", i), "1")
		}
		g.Put(1, "other", "1")
		h := g.Fail(kerr.KafkaStorageError, kmsg.Fetch)
		g.run()
		kafkatest.Pass(2 * time.Second)
		if g.shows() != "not loaded" {
			t.Fatal("loaded without a fetch")
		}
		g.DeleteRecords(0, 3)
		h.Remove()
		g.want(20*time.Second, "0/k3=1 0/k4=1 1/other=1")
		g.wantLoads("", ReasonRebuilt)
	})
}

// TestBusyTopic becomes ready although writes never stop, each faster than a fetch.
func TestBusyTopic(t *testing.T) {
	bubble(t, 1, func(t *testing.T, g *rig) {
		var stop atomic.Bool
		done := make(chan struct{})
		cl := g.Client()
		go func() {
			defer close(done)
			for i := 0; !stop.Load(); i++ {
				cl.Produce(t.Context(), &kgo.Record{Topic: "t", Key: fmt.Append(nil, i%100), Value: []byte("1")}, nil)
				kafkatest.Pass(time.Millisecond)
			}
		}()
		kafkatest.Pass(100 * time.Millisecond)
		g.Delay(kmsg.Fetch, 100*time.Millisecond)
		g.run()
		kafkatest.Pass(3 * time.Second)
		if g.shows() == "not loaded" {
			t.Errorf("not loaded at %+v", g.at(0))
		}
		stop.Store(true)
		<-done
	})
}

func TestManyPartitions(t *testing.T) {
	bubble(t, 50, func(t *testing.T, g *rig) {
		var want []string
		for p := range int32(50) {
			if p%3 == 0 {
				continue // empty
			}
			g.Put(p, "k", fmt.Sprint(p))
			want = append(want, fmt.Sprintf("%d/k=%d", p, p))
		}
		slices.Sort(want)
		g.run()
		g.want(5*time.Second, strings.Join(want, " "))
	})
}

func TestLargeRecords(t *testing.T) {
	bubble(t, 1, func(t *testing.T, g *rig) {
		cl := g.NewClient(kgo.ProducerBatchMaxBytes(8<<20), kgo.MaxBufferedBytes(64<<20))
		put := func(key string) {
			if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "t", Key: []byte(key), Value: make([]byte, 5<<20)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		put("a")
		put("b")
		g.run()
		g.want(10*time.Second, "0/a=5242880 bytes 0/b=5242880 bytes")
		put("c")
		g.want(10*time.Second, "0/a=5242880 bytes 0/b=5242880 bytes 0/c=5242880 bytes")
	})
}

func TestFatalWhileLoading(t *testing.T) {
	for _, key := range []kmsg.Key{kmsg.Fetch, kmsg.Metadata, kmsg.ListOffsets} {
		bubble(t, 1, func(t *testing.T, g *rig) {
			g.Put(0, "k", "1")
			g.Fail(kerr.TopicAuthorizationFailed, key)
			g.run()
			kafkatest.Pass(time.Minute)
			select {
			case err := <-g.err:
				if !errors.Is(err, kerr.TopicAuthorizationFailed) {
					t.Errorf("%s: Run ended with %v", key.Name(), err)
				}
				g.err <- nil
			default:
				t.Errorf("%s: Run goes on, with %v", key.Name(), g.trouble())
			}
		})
	}
}
