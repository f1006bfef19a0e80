package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/kkv-project/kkv/internal/kafkatest"
)

// sink is a plain map of what was read, with what it was told.
type sink struct {
	mu        sync.Mutex
	state     map[string]string // "partition/key": value, of the last load
	next      map[string]string // of a load under way
	positions map[int32]Progress
	loads     []string // reasons
	loaded    int
	bad       error
	bads      []string // every trouble, once
	offsets   map[int32][]int64
	retention time.Duration
	stable    map[int32]int64 // as last told
	proved    map[int32]time.Time
	room      int // records that are still taken; -1: all
}

func (k *sink) Load(inc Incarnation, reason string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.loads = append(k.loads, reason)
	k.next, k.positions, k.offsets = map[string]string{}, map[int32]Progress{}, map[int32][]int64{}
	for _, p := range inc.Partitions {
		k.positions[p.Partition] = p
	}
}

func (k *sink) Apply(b *Batch) (held []Held) {
	k.mu.Lock()
	defer k.mu.Unlock()
	at := k.next
	if at == nil {
		at = k.state
	}
	for _, r := range b.Records {
		if slices.ContainsFunc(held, func(h Held) bool { return h.Partition == r.Partition }) {
			continue
		}
		if k.room == 0 {
			held = append(held, Held{r.Partition, r})
			continue
		}
		if k.room > 0 {
			k.room--
		}
		k.offsets[r.Partition] = append(k.offsets[r.Partition], r.Offset)
		id := fmt.Sprintf("%d/%s", r.Partition, r.Key)
		if r.Value == nil {
			delete(at, id)
		} else if len(r.Value) > 20 {
			at[id] = fmt.Sprint(len(r.Value), " bytes")
		} else {
			at[id] = string(r.Value)
		}
	}
	for _, p := range b.Progress {
		for _, h := range held {
			if h.Partition == p.Partition {
				p.Next = h.Record.Offset
			}
		}
		if old := k.positions[p.Partition]; p.Next < old.Next || p.LogStart < old.LogStart {
			panic(fmt.Sprintf("progress went from %+v back to %+v", old, p))
		}
		k.positions[p.Partition] = p
	}
	return held
}

func (k *sink) Loaded() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state, k.next = k.next, nil
	k.loaded++
}

func (k *sink) Current(partition int32, end, stable int64, asked time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stable == nil {
		k.stable, k.proved = map[int32]int64{}, map[int32]time.Time{}
	}
	k.stable[partition] = stable
	if k.positions[partition].Next >= end {
		k.proved[partition] = asked
	}
}

func (k *sink) Retention(_ [16]byte, d time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.retention = d
}

func (k *sink) Trouble(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.bad = err; err != nil && !slices.Contains(k.bads, err.Error()) {
		k.bads = append(k.bads, err.Error())
	}
}

// rig is a Reader on a cluster.
type rig struct {
	*kafkatest.Cluster
	*sink
	t      *testing.T
	reader *Reader
	err    chan error // how Run ended
}

// bubble runs f with a topic "t" of so many partitions and a Reader that is not started.
func bubble(t *testing.T, partitions int32, f func(t *testing.T, g *rig), change ...func(*Options)) {
	t.Helper()
	bubbleOf(t, partitions, nil, f, change...)
}

// threeBrokers are options for a cluster whose leaders can move.
var threeBrokers = []kfake.Opt{kfake.NumBrokers(3), kfake.Ports(9092, 9093, 9094)}

func bubbleOf(t *testing.T, partitions int32, opts []kfake.Opt, f func(t *testing.T, g *rig), change ...func(*Options)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := kafkatest.Start(t, "t", partitions, opts...)
		g := &rig{Cluster: c, sink: &sink{room: -1}, t: t, err: make(chan error, 1)}
		conf := c.Config()
		o := Options{Kafka: conf, Topic: "t"}
		for _, f := range change {
			f(&o)
		}
		g.reader = New(o, g.sink)
		f(t, g)
	})
}

// run starts the Reader until the test's end.
func (g *rig) run() {
	ctx, cancel := context.WithCancel(g.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { g.err <- g.reader.Run(ctx) })
	g.t.Cleanup(func() { cancel(); wg.Wait() })
}

// shows is the state, in order.
func (g *rig) shows() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.loaded == 0 {
		return "not loaded"
	}
	var out []string
	for k, v := range g.state {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// want waits until the state is as said, at most so long.
func (g *rig) want(within time.Duration, state string) {
	g.t.Helper()
	until := time.Now().Add(within)
	for g.shows() != state {
		if time.Now().After(until) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.t.Fatalf("after %v the state is %.300q, want %.300q; trouble %v; loads %q", within, g.state, state, g.bad, g.loads)
		}
		kafkatest.Pass(20 * time.Millisecond)
	}
}

// at is how far a partition is.
func (g *rig) at(partition int32) Progress {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.positions[partition]
}

// wantLoads checks the loads so far, by their reasons.
func (g *rig) wantLoads(want ...string) {
	g.t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	if !slices.Equal(g.loads, want) {
		g.t.Errorf("loads %q, want %q", g.loads, want)
	}
}

func (g *rig) trouble() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.bad
}

// reaches waits until the position is there, as somebody who waits would.
func (g *rig) reaches(partition int32, next int64) {
	g.t.Helper()
	g.reader.Want(partition, next)
	for range 500 {
		if g.at(partition).Next >= next {
			return
		}
		kafkatest.Pass(10 * time.Millisecond)
	}
	g.t.Fatalf("partition %d stays at %+v, want %d; %v", partition, g.at(partition), next, errors.Join(g.trouble()))
}
