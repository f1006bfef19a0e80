package ingest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kkv-project/kkv/internal/kafkatest"
)

func TestPartitionsAdded(t *testing.T) {
	bubble(t, 1, func(t *testing.T, g *rig) {
		g.Put(0, "a", "1")
		g.run()
		g.want(5*time.Second, "0/a=1")
		g.AddPartitions(4)
		g.Put(3, "b", "1")
		g.Begin("x").Put(2, "aborted", "1").Abort()
		g.want(5*time.Second, "0/a=1 3/b=1")
		g.reaches(2, 2)
		g.wantLoads("")
	})
}

func TestTopicMadeAgain(t *testing.T) {
	for _, records := range []int{0, 1, 7} { // before there were three
		bubble(t, 1, func(t *testing.T, g *rig) {
			for i := range 3 {
				g.Put(0, fmt.Sprint("old", i), "1")
			}
			g.run()
			g.want(5*time.Second, "0/old0=1 0/old1=1 0/old2=1")
			kafkatest.Pass(time.Second)
			g.DeleteTopic()
			g.CreateTopic(2, nil)
			var want []string
			for i := range records {
				g.Put(0, fmt.Sprint("new", i), "1")
				want = append(want, fmt.Sprintf("0/new%d=1", i))
			}
			g.want(30*time.Second, strings.Join(want, " "))
			g.wantLoads("", ReasonRecreated)
		})
	}
}

func TestTopicStaysAway(t *testing.T) {
	bubble(t, 1, func(t *testing.T, g *rig) {
		g.Put(0, "k", "1")
		g.run()
		g.want(5*time.Second, "0/k=1")
		kafkatest.Pass(time.Second)
		g.DeleteTopic()
		kafkatest.Pass(time.Minute)
		g.want(0, "0/k=1")
		g.mu.Lock()
		proved := g.proved[0]
		g.mu.Unlock()
		if err := g.trouble(); !errors.Is(err, ErrNoTopic) || time.Since(proved) < 50*time.Second {
			t.Errorf("trouble %v; last proved current %v ago", err, time.Since(proved))
		}
		g.CreateTopic(1, nil)
		g.Put(0, "again", "1")
		g.want(20*time.Second, "0/again=1")
		kafkatest.Pass(2 * time.Second)
		if err := g.trouble(); err != nil {
			t.Errorf("all is well, and still %v", err)
		}
	})
}

// TestTruncation: a leader that has less than was read, as after an unclean election, found by its epochs (KIP-320).
func TestTruncation(t *testing.T) {
	bubbleOf(t, 1, threeBrokers, func(t *testing.T, g *rig) {
		for i := range 4 {
			g.Put(0, fmt.Sprint("k", i), "1")
		}
		g.run()
		g.want(5*time.Second, "0/k0=1 0/k1=1 0/k2=1 0/k3=1")
		kafkatest.Pass(time.Second)
		g.Fake.ControlKey(int16(kmsg.OffsetForLeaderEpoch), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
			req := kreq.(*kmsg.OffsetForLeaderEpochRequest)
			resp := req.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
			rt := kmsg.NewOffsetForLeaderEpochResponseTopic()
			rt.Topic = "t"
			rp := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
			rp.LeaderEpoch, rp.EndOffset = req.Topics[0].Partitions[0].LeaderEpoch, 2
			rt.Partitions = append(rt.Partitions, rp)
			resp.Topics = append(resp.Topics, rt)
			return resp, nil, true
		})
		if err := g.Fake.MoveTopicPartition("t", 0, (g.Fake.LeaderFor("t", 0)+1)%3); err != nil {
			t.Fatal(err)
		}
		kafkatest.Pass(20 * time.Second)
		g.Put(0, "later", "1")
		// kfake keeps the records: what counts is that the log is read anew.
		g.want(20*time.Second, "0/k0=1 0/k1=1 0/k2=1 0/k3=1 0/later=1")
		g.wantLoads("", ReasonRebuilt)
	})
}

func TestLeadersMove(t *testing.T) {
	bubbleOf(t, 3, threeBrokers, func(t *testing.T, g *rig) {
		g.run()
		g.want(5*time.Second, "")
		for i := range 12 {
			for p := range int32(3) {
				if err := g.Fake.MoveTopicPartition("t", p, (g.Fake.LeaderFor("t", p)+int32(i)%2+1)%3); err != nil {
					t.Fatal(err)
				}
				g.Put(p, "k", fmt.Sprint(i))
			}
			g.want(20*time.Second, fmt.Sprintf("0/k=%d 1/k=%d 2/k=%d", i, i, i))
		}
		g.wantLoads("")
		for p := range int32(3) {
			g.mu.Lock()
			offsets := g.offsets[p]
			g.mu.Unlock()
			for i, o := range offsets {
				if o != int64(i) {
					t.Fatalf("partition %d was read as %v", p, offsets)
				}
			}
		}
	})
}

// TestEveryError: whatever a live reader is answered, for a while, it goes on afterwards with nothing lost or twice.
func TestEveryError(t *testing.T) {
	bubbleOf(t, 1, threeBrokers, func(t *testing.T, g *rig) {
		g.run()
		g.want(5*time.Second, "")
		n := 0
		for _, key := range []kmsg.Key{kmsg.Fetch, kmsg.Metadata, kmsg.ListOffsets, kmsg.OffsetForLeaderEpoch, kmsg.DescribeConfigs} {
			for code := int16(-1); code < 140; code++ {
				e, ok := errors.AsType[*kerr.Error](kerr.ErrorForCode(code))
				if !ok || code == -1 && e != kerr.UnknownServerError || code > 0 && e == kerr.UnknownServerError {
					continue
				}
				if testing.Short() && code%7 != 0 {
					continue
				}
				h := g.Fail(e, key)
				if key == kmsg.OffsetForLeaderEpoch { // is asked only then
					if err := g.Fake.MoveTopicPartition("t", 0, (g.Fake.LeaderFor("t", 0)+1)%3); err != nil {
						t.Fatal(err)
					}
				}
				kafkatest.Pass(600 * time.Millisecond)
				if key == kmsg.DescribeConfigs { // is asked once a minute
					kafkatest.Pass(retentionEvery)
				}
				if h.Hits() == 0 {
					t.Fatalf("%s was not asked", key.Name())
				}
				h.Remove()
				n++
				g.Put(0, "k", fmt.Sprint(n))
				g.want(30*time.Second, fmt.Sprintf("0/k=%d", n))
				select {
				case err := <-g.err:
					t.Fatalf("%s answered %s, and Run ended: %v", key.Name(), e.Message, err)
				default:
				}
				g.mu.Lock()
				offsets := g.offsets[0]
				for i := range offsets[1:] {
					if offsets[i+1] != offsets[i]+1 {
						t.Fatalf("%s answered %s, and offset %d followed %d", key.Name(), e.Message, offsets[i+1], offsets[i])
					}
				}
				g.mu.Unlock()
			}
		}
		kafkatest.Pass(5 * time.Second)
		if err := g.trouble(); err != nil {
			t.Errorf("all is well, and still %v", err)
		}
	})
}

// TestSlowBroker answers every fetch late.
func TestSlowBroker(t *testing.T) {
	bubble(t, 1, func(t *testing.T, g *rig) {
		g.Put(0, "k", "1")
		g.Delay(kmsg.Fetch, 3*time.Second)
		g.run()
		g.want(20*time.Second, "0/k=1")
		g.Put(0, "k", "2")
		g.want(20*time.Second, "0/k=2")
		g.wantLoads("")
	})
}

// TestHalfOpen: the broker takes connections, and nothing comes back.
func TestHalfOpen(t *testing.T) {
	var mute atomic.Bool
	bubble(t, 1, func(t *testing.T, g *rig) {
		g.Put(0, "k", "1")
		g.run()
		g.want(5*time.Second, "0/k=1")
		kafkatest.Pass(time.Second)
		mute.Store(true)
		kafkatest.Pass(3500 * time.Millisecond)
		if err := g.trouble(); !errors.Is(err, errSlow) {
			t.Errorf("after 3.5 s of silence: trouble %v", err)
		}
		g.Put(0, "k", "2")
		kafkatest.Pass(time.Minute)
		mute.Store(false)
		g.want(30*time.Second, "0/k=2")
		kafkatest.Pass(5 * time.Second)
		if err := g.trouble(); err != nil {
			t.Errorf("all is well, and still %v", err)
		}
		g.wantLoads("")
	}, func(o *Options) {
		dial := o.Kafka.Dial
		o.Kafka.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dial(ctx, network, addr)
			return &mutable{c, &mute}, err
		}
	})
}

// mutable is a connection whose answers can be lost.
type mutable struct {
	net.Conn
	mute *atomic.Bool
}

func (c *mutable) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if err != nil || !c.mute.Load() {
			return n, err
		}
	}
}
