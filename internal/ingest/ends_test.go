package ingest

import (
	"testing"

	"github.com/kkv-project/kkv/internal/kafka"
)

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
