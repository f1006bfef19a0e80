package ingest

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
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
