package ingest

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kkv-project/kkv/internal/kafka"
)

// TestEndsSoonAfterALeaderMoved: who waits for a fresh read waits for milliseconds until leaders are asked again.
func TestEndsSoonAfterALeaderMoved(t *testing.T) {
	bubble(t, 1, func(t *testing.T, g *rig) {
		g.Put(0, "a", "1")
		g.run()
		g.want(5*time.Second, "0/a=1")
		g.Fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Err: kerr.NotLeaderForPartition, Count: 4})
		began := time.Now()
		if e, err := g.reader.Ends(t.Context()); err != nil || e.Offsets[0] != 1 || time.Since(began) > 50*time.Millisecond {
			t.Errorf("%+v, %v after %v", e, err, time.Since(began))
		}
	})
}

// TestABrokerThatLagsProvesNothing: metadata with fewer partitions of the same incarnation is older than what is known, so
// that ends asked by it would leave a partition out.
func TestABrokerThatLagsProvesNothing(t *testing.T) {
	of := func(id byte, partitions int) *kafka.Topic {
		return &kafka.Topic{ID: [16]byte{id}, Partitions: make([]kafka.Partition, partitions)}
	}
	r := New(Options{}, nil)
	for i, tc := range []struct {
		t    *kafka.Topic
		want bool
	}{{of(1, 0), false}, {of(1, 2), true}, {of(1, 3), true}, {of(1, 2), false}, {of(1, 3), true}, {of(2, 0), false}, {of(2, 1), true}} {
		if got := r.learn(tc.t); got != tc.want {
			t.Errorf("answer %d: taken is %v", i, got)
		}
	}
}
