package ingest

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kkv-project/kkv/internal/kafkatest"
)

// roomLater is a sink that has room again after some calls, which is noticed at once.
type roomLater struct {
	*sink
	calls  int
	notice func()
	done   sync.WaitGroup
}

func (k *roomLater) Apply(b *Batch) []Held {
	if k.calls++; k.calls == 2 {
		k.sink.room = -1
		k.done.Go(k.notice)
	}
	for until := time.Now().Add(2 * time.Millisecond); time.Now().Before(until); { // a mutex goes to who has waited for a millisecond
		runtime.Gosched()
	}
	return k.sink.Apply(b)
}

// TestRoomInTheMiddleOfAPoll: of one poll, some records were left out since there was no room, and room comes before it
// is at its end. What it still holds is not what comes next.
func TestRoomInTheMiddleOfAPoll(t *testing.T) {
	k := &roomLater{sink: &sink{room: 10}}
	k.Load(Incarnation{Partitions: []Progress{{}}}, "")
	con, err := kgo.NewClient(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"t": {0: kgo.NewOffset().At(0)}}))
	if err != nil {
		t.Fatal(err)
	}
	defer con.Close()
	s := &session{r: New(Options{Topic: "t"}, k), con: con, parts: []partition{{target: 1 << 30}}, pending: 1}
	k.notice = s.offerParked
	var fetched []*kgo.Record
	for i := range int64(20 * batchLen) {
		fetched = append(fetched, &kgo.Record{Topic: "t", Offset: i, Key: fmt.Append(nil, i), Value: []byte("1")})
	}
	fs := kgo.Fetches{{Topics: []kgo.FetchTopic{{Topic: "t", Partitions: []kgo.FetchPartition{{Records: fetched}}}}}}
	if _, err := s.applyFetches(fs); err != nil {
		t.Fatal(err)
	}
	k.done.Wait()
	for i, o := range k.offsets[0] {
		if o != int64(i) {
			t.Fatalf("after %d records comes that at %d", i, o)
		}
	}
	if n := len(k.offsets[0]); n != 11 || s.parts[0].Next != 11 || len(s.parked) != 0 {
		t.Errorf("%d records are in, and the partition is at %d", n, s.parts[0].Next)
	}
}

// TestRoomComesAndGoes, at random, while records keep coming: each is read once, in order.
func TestRoomComesAndGoes(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	bubble(t, 2, func(t *testing.T, g *rig) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		g.run()
		g.want(5*time.Second, "")
		var sent [2]int64
		for range 100 {
			p := rnd.Int32N(2)
			for range rnd.IntN(3 * batchLen) {
				g.Client().Produce(t.Context(), &kgo.Record{Topic: "t", Partition: p, Key: []byte("k"), Value: []byte("1")}, nil)
				sent[p]++
			}
			g.mu.Lock()
			g.room = []int{0, 1, rnd.IntN(3000), -1}[rnd.IntN(4)]
			g.mu.Unlock()
			kafkatest.Pass(time.Duration(rnd.IntN(600)) * time.Millisecond)
		}
		if err := g.Client().Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		g.mu.Lock()
		g.room = -1
		g.mu.Unlock()
		for p := range int32(2) {
			g.reaches(p, sent[p])
			g.mu.Lock()
			for i, o := range g.offsets[p] {
				if o != int64(i) {
					t.Fatalf("partition %d: after %d records comes that at %d", p, i, o)
				}
			}
			g.mu.Unlock()
		}
		g.wantLoads("")
	})
}
