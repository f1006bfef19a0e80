package ingest

import (
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kkv-project/kkv/internal/kafkatest"
)

// TestBackAfterTombstonesWent is rule 10: reading stood still for longer than tombstones are kept, and offsets are
// missing when it goes on: so the topic is read anew, or a key that was deleted meanwhile would live for ever.
func TestBackAfterTombstonesWent(t *testing.T) {
	for name, tc := range map[string]struct {
		retention string
		away      time.Duration
		compact   bool
		loads     []string
	}{
		"too long":              {"600000", 6 * time.Minute, true, []string{"", ReasonRebuilt}},
		"in time":               {"600000", 4 * time.Minute, true, []string{""}},
		"too long, but no gap":  {"600000", 6 * time.Minute, false, []string{""}},
		"short retention":       {"100", 7 * time.Second, true, []string{"", ReasonRebuilt}},
		"short, and not behind": {"100", 0, true, []string{""}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 0, func(t *testing.T, g *rig) {
				g.CreateTopic(1, map[string]string{"cleanup.policy": "compact", "delete.retention.ms": tc.retention})
				g.Put(0, "a", "1")
				g.Put(0, "gone", "1")
				g.run()
				g.want(5*time.Second, "0/a=1 0/gone=1")
				kafkatest.Pass(2 * time.Second)
				h := g.Fail(kerr.KafkaStorageError, kmsg.Fetch, kmsg.ListOffsets)
				if tc.away == 0 {
					h.Remove()
				}
				g.Put(0, "filler", "1")
				g.Delete(0, "gone")
				g.Put(0, "filler", "2")
				kafkatest.Pass(tc.away)
				if tc.compact {
					g.Fake.Compact()
					kafkatest.Pass(time.Second)
					g.Put(0, "b", "1")
					g.Fake.Compact()
				} else {
					g.Put(0, "b", "1")
				}
				h.Remove()
				g.want(20*time.Second, "0/a=1 0/b=1 0/filler=2")
				g.wantLoads(tc.loads...)
			})
		})
	}
}

// TestHeldRecordsKeepWhatIsBehindThem: a marker behind records that the sink had no room for counts once they are in.
func TestHeldRecordsKeepWhatIsBehindThem(t *testing.T) {
	bubble(t, 1, func(t *testing.T, g *rig) {
		g.run()
		g.want(5*time.Second, "")
		g.mu.Lock()
		g.room = 1
		g.mu.Unlock()
		x := g.Begin("x")
		for range 3 {
			x.Put(0, "k", "1")
		}
		x.Put(0, "last", "1").Commit() // offsets 0 to 3, the marker is 4
		kafkatest.Pass(2 * time.Second)
		if at := g.at(0); at.Next != 1 {
			t.Errorf("with room for one record, the position is %+v", at)
		}
		g.mu.Lock()
		g.room = -1
		g.mu.Unlock()
		g.want(5*time.Second, "0/k=1 0/last=1")
		kafkatest.Pass(time.Second)
		if at := g.at(0); at.Next != 5 {
			t.Errorf("the position is %+v, and the marker at 4 is read", at)
		}
		g.mu.Lock()
		if got := g.offsets[0]; !slices.Equal(got, []int64{0, 1, 2, 3}) {
			t.Errorf("offsets taken: %v", got)
		}
		g.mu.Unlock()
		g.Put(0, "k", "2")
		g.want(5*time.Second, "0/k=2 0/last=1")
	})
}

// TestAddedPartitionIsNotStale: it is not read for as long as the others are, so that a gap right at its beginning hides
// no tombstone that has gone since.
func TestAddedPartitionIsNotStale(t *testing.T) {
	bubble(t, 0, func(t *testing.T, g *rig) {
		g.CreateTopic(1, map[string]string{"delete.retention.ms": "600000"})
		g.Put(0, "a", "1")
		g.run()
		g.want(5*time.Second, "0/a=1")
		kafkatest.Pass(6 * time.Minute)
		g.AddPartitions(2)
		g.Begin("x").Put(1, "aborted", "1").Abort()
		g.Put(1, "b", "1")
		g.want(5*time.Second, "0/a=1 1/b=1")
		g.wantLoads("")
	})
}
