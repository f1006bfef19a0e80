package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"sync"
	"time"

	"github.com/kkv-project/kkv"
)

// The load: so many keys, each written so often, together 1,000 times a second.
const (
	loadKeys  = 50
	loadEvery = loadKeys * time.Millisecond
)

// finishTimeout bounds how long a load that ends waits for replicas and for its keys' deletion.
const finishTimeout = 15 * time.Second

func loadKey(i int) string { return fmt.Sprintf("load-%02d", i) }

var loadPattern = regexp.MustCompile(`^load-[0-9]{2}$`)

func isLoad(key string) bool { return loadPattern.MatchString(key) }

// load writes through the first replica, and looks at every replica for what was written. The writes of a key are numbered,
// so that the number shown tells how many have been seen, also where a newer one took an older one's place on the way.
type load struct {
	replicas []*replica
	start    chan struct{}

	mu    sync.Mutex
	phase phase
	stop  context.CancelFunc // of the writers, while phase is running
	mark  string             // stands in the values of this run: others' numbers say nothing
	keys  []loaded
	err   string    // of the newest write, "" if it was acknowledged
	last  loadState // of the run before, once phase is idle
}

type phase int

const (
	idle phase = iota
	running
	ending
)

// loaded is what Kafka has acknowledged of one key: so many writes, the newest at pos.
type loaded struct {
	n   int64
	pos kkv.Position
}

// loadState is what the page shows. Seen and Missed are of each replica. A write is missed if a replica's position says
// that it has applied it, and what it shows is older.
type loadState struct {
	On     bool    `json:"on"`
	Ending bool    `json:"ending"` // written to the end; waiting for replicas, and taking the keys away
	Sent   int64   `json:"sent"`   // and acknowledged
	Seen   []int64 `json:"seen"`
	Missed []int64 `json:"missed"`
	Error  string  `json:"error,omitempty"`
}

func newLoad(replicas []*replica) *load {
	return &load{replicas: replicas, start: make(chan struct{}, 1)}
}

// set starts or ends the load. One that is ending is not started again before it has ended.
func (l *load) set(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case on && l.phase == idle:
		l.phase = running
		l.start <- struct{}{}
	case !on && l.phase == running:
		l.phase = ending
		if l.stop != nil {
			l.stop()
		}
	}
}

// run does one load after the other until ctx ends.
func (l *load) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.start:
		}
		wctx, stop := context.WithCancel(ctx)
		l.mu.Lock()
		l.stop, l.mark, l.keys, l.err = stop, time.Now().Format(time.RFC3339Nano), make([]loaded, loadKeys), ""
		if l.phase == ending { // ended before it began
			stop()
		}
		l.mu.Unlock()
		var writers sync.WaitGroup
		for i := range loadKeys {
			writers.Go(func() { l.write(ctx, wctx, i) })
		}
		writers.Wait()
		stop()
		l.finish(ctx)
	}
}

// write writes one key until stop is done. The write that is under way then is still waited for, but if ctx ends, too.
func (l *load) write(ctx, stop context.Context, i int) {
	begin := time.NewTimer(time.Duration(i) * loadEvery / loadKeys)
	defer begin.Stop()
	select {
	case <-begin.C:
	case <-stop.Done():
		return
	}
	tick := time.NewTicker(loadEvery)
	defer tick.Stop()
	m := l.replicas[0].mirror.Load()
	for m != nil {
		n := l.keys[i].n + 1 // only this goroutine writes it
		wctx, cancel := context.WithTimeout(ctx, putTimeout)
		pos, err := m.Client().Put(wctx, loadKey(i), l.value(i, n))
		cancel()
		l.mu.Lock()
		l.err = ""
		if err == nil {
			l.keys[i] = loaded{n, pos}
		} else {
			l.err = err.Error()
		}
		l.mu.Unlock()
		select {
		case <-tick.C:
		case <-stop.Done():
			return
		}
	}
}

// loadValue is what the load writes.
type loadValue struct {
	ID    string `json:"id"`
	Color string `json:"color"`
	Run   string `json:"run"`
	N     int64  `json:"n"`
}

func (l *load) value(i int, n int64) []byte {
	v, _ := json.Marshal(loadValue{loadKey(i), fmt.Sprintf("hsl(%d 70%% 55%%)", (int64(i)*7+n*11)%360), l.mark, n}) // always marshals
	return v
}

// finish waits until every replica shows the last writes, counts once more, and takes the keys away.
func (l *load) finish(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, finishTimeout)
	defer cancel()
	l.mu.Lock()
	l.phase = ending
	var all kkv.Position
	for _, k := range l.keys {
		all = all.Merge(k.pos)
	}
	l.mu.Unlock()
	for _, r := range l.replicas {
		if m := r.mirror.Load(); m != nil {
			_ = m.WaitFor(ctx, all) // what is not there by then is counted as not seen
		}
	}
	last := l.state()
	l.mu.Lock()
	l.last = last
	l.mu.Unlock()
	if m := l.replicas[0].mirror.Load(); m != nil {
		for i := range loadKeys {
			if _, err := m.Delete(ctx, loadKey(i)); err != nil {
				break // the next load writes over what stays
			}
		}
	}
	l.mu.Lock()
	l.phase, l.stop, l.last.On, l.last.Ending = idle, nil, false, false
	l.mu.Unlock()
}

func (l *load) state() loadState {
	l.mu.Lock()
	st := loadState{On: l.phase == running, Ending: l.phase == ending, Error: l.err}
	keys, run := append([]loaded(nil), l.keys...), l.mark
	if l.phase == idle || l.last.Ending {
		defer l.mu.Unlock()
		return l.last
	}
	l.mu.Unlock()
	for _, k := range keys {
		st.Sent += k.n
	}
	for _, r := range l.replicas {
		seen, missed := r.count(run, keys)
		st.Seen, st.Missed = append(st.Seen, seen), append(st.Missed, missed)
	}
	return st
}

// count is how many of the writes a replica shows or has shown newer ones than, and how many it can never show: its
// position covers them.
func (r *replica) count(run string, keys []loaded) (seen, missed int64) {
	m := r.mirror.Load()
	if m == nil {
		return 0, 0
	}
	pos := m.Position() // first: what is read after it is no older
	for i, k := range keys {
		var v loadValue
		if e, ok := m.Get(loadKey(i)); !ok || json.Unmarshal(e.Value, &v) != nil || v.Run != run {
			v.N = 0
		}
		n := min(v.N, k.n)
		seen += n
		if n < k.n && pos.Covers(k.pos) {
			missed += k.n - n
		}
	}
	return seen, missed
}
