package webhook

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// moody is a receiver that fails in every way there is, until it is well. hear is called for what it takes in,
// whether or not it then says so.
type moody struct {
	mu   sync.Mutex
	rnd  *rand.Rand
	well bool
	hear func(call)
}

func (m *moody) behave(ctx context.Context, c call) (int, error) {
	m.mu.Lock()
	mood, delay := m.rnd.IntN(10), time.Duration(m.rnd.IntN(3000))*time.Millisecond
	if m.well {
		mood = 0
	}
	m.mu.Unlock()
	switch mood {
	case 1:
		return 500, nil
	case 2:
		return 0, errors.New("connection refused")
	case 3:
		return hang(ctx, c)
	case 4, 5:
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	m.hear(c)
	switch mood {
	case 6:
		return 503, nil
	case 7:
		return 0, errors.New("connection reset by peer")
	case 8:
		return hang(ctx, c)
	}
	return 204, nil
}

func (m *moody) set(well bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.well = well
}

// must is what a target must hear of a key at the end.
type must struct {
	partition int32
	offset    int64
	event     int
}

// Whatever the receivers do: at the end each was told of every key's newest change, after nothing newer; and its
// offsets never went back. With a small ring, targets also fall off it, and states are replaced as a whole.
func TestEveryChangeArrives(t *testing.T) {
	for i := range 60 {
		seed := rand.Uint64()
		t.Run(fmt.Sprintf("%d/seed=%d", i, seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { everyChange(t, seed) })
		})
	}
}

func everyChange(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 0))
	ring := 0
	if seed%2 == 0 {
		ring = 2000
	}
	c := newFakeCache(ring)
	c.remember = true
	r := newRig(t, c, Options{Timeout: 2 * time.Second, MaxKeysPerPost: 1 + rnd.IntN(8)}, "a", "b")
	heard := map[string]*[]call{}
	var moodies []*moody
	for host, recv := range r.hosts {
		calls := new([]call)
		heard[host] = calls
		m := &moody{rnd: rand.New(rand.NewPCG(seed, uint64(host[0]))), hear: func(c call) { *calls = append(*calls, c) }}
		moodies = append(moodies, m)
		recv.set(m.behave)
	}
	want := map[string]must{}
	for range 300 {
		if ring > 0 && rnd.IntN(50) == 0 {
			c.reset(false, func(key string) bool { return rnd.IntN(3) > 0 })
			for key := range want {
				if _, ok := c.keys[key]; !ok {
					delete(want, key) // vanished: nothing to be known of it
				}
			}
		} else {
			randomBatch(rnd, c, want)
		}
		if rnd.IntN(3) > 0 {
			pass(time.Duration(rnd.IntN(1000)) * time.Millisecond)
		}
	}
	for _, m := range moodies {
		m.set(true)
	}
	pass(2*maxBackoff + time.Minute)
	for _, s := range r.d.Stats().Targets {
		if s.PendingKeys != 0 || s.OldestPending != 0 || s.Failing != 0 {
			t.Errorf("%+v", s)
		}
	}
	for host, calls := range heard {
		checkHeard(t, host, *calls, want)
	}
}

func randomBatch(rnd *rand.Rand, c *fakeCache, want map[string]must) {
	var ms []mut
	for range 1 + rnd.IntN(10) {
		k := rnd.IntN(30)
		m := mut{int32(k % 3), fmt.Sprint("k", k), fmt.Sprint(rnd.IntN(4))}
		if rnd.IntN(20) == 0 {
			m.partition = int32(rnd.IntN(3)) // a producer with another partitioner
		}
		if rnd.IntN(5) == 0 {
			m.value = ""
		}
		ms = append(ms, m)
	}
	for _, ch := range c.apply(ms...) {
		if !(v1{}).quiet(&ch) {
			want[string(ch.Key)] = must{ch.Partition, ch.Offset, c.events}
		}
	}
}

func checkHeard(t *testing.T, host string, calls []call, want map[string]must) {
	sent := map[int32]int64{}
	last := map[string]call{}
	for _, c := range calls {
		if o, ok := sent[c.partition]; ok && c.offset < o {
			t.Errorf("%s: %v after offset %d", host, c, o)
		}
		sent[c.partition] = c.offset
		for _, key := range c.keys {
			last[key] = c
		}
	}
	for key, m := range want {
		if c, ok := last[key]; !ok || c.partition != m.partition || c.offset < m.offset || c.events < m.event {
			t.Errorf("%s: %s changed at %d:%d in event %d, last told by %v in event %d", host, key,
				m.partition, m.offset, m.event, c, c.events)
		}
	}
}

// npm is the rule by which @yolean/kafka-keyvalue 1.9.3 decides what to hear (its updateListener and refreshKey).
type npm struct {
	t     *testing.T
	cache *fakeCache

	mu            sync.Mutex
	rnd           *rand.Rand
	lastKeyUpdate map[string]int64
	heard         map[string]string // what onUpdate was last called with
}

func (n *npm) sometime() {
	n.mu.Lock()
	d := time.Duration(n.rnd.IntN(200)) * time.Millisecond
	n.mu.Unlock()
	<-time.After(d)
}

// updateListener goes through one POST; the client answers it before, so several may be gone through at a time.
func (n *npm) updateListener(c call) {
	for _, key := range c.keys {
		n.mu.Lock()
		known, ok := n.lastKeyUpdate[key]
		if ok && c.offset <= known {
			n.mu.Unlock()
			continue
		}
		n.lastKeyUpdate[key] = c.offset
		n.mu.Unlock()

		n.sometime()
		value, found, next := n.cache.get(key) // the GET, which demands c.offset in any partition
		seen := false
		for _, o := range next {
			seen = seen || o-1 >= c.offset
		}
		if !found || !seen {
			n.t.Errorf("GET %s for %v: found %v, positions %v", key, c, found, next)
		}
		n.sometime()

		n.mu.Lock()
		if n.lastKeyUpdate[key] == c.offset {
			n.heard[key] = value
		}
		n.mu.Unlock()
	}
}

func TestNPMRule(t *testing.T) {
	for i := range 40 {
		seed := rand.Uint64()
		t.Run(fmt.Sprintf("%d/seed=%d", i, seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { npmRule(t, seed) })
		})
	}
}

func npmRule(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 0))
	c := newFakeCache(0)
	c.next = []int64{0, 100, 7} // its maximum over partitions must not make it deaf
	r := newRig(t, c, Options{Timeout: 2 * time.Second, MaxKeysPerPost: 1 + rnd.IntN(8)}, "app")
	n := &npm{t: t, cache: c, rnd: rand.New(rand.NewPCG(seed, 1)), lastKeyUpdate: map[string]int64{}, heard: map[string]string{}}
	m := &moody{rnd: rand.New(rand.NewPCG(seed, 2)), hear: func(c call) { go n.updateListener(c) }}
	r.hosts["app"].set(m.behave)
	for i := range 200 {
		var ms []mut
		for range 1 + rnd.IntN(5) {
			k := rnd.IntN(20)
			ms = append(ms, mut{int32(k % 3), fmt.Sprint("k", k), fmt.Sprint(i, rnd.IntN(2))})
		}
		c.apply(ms...)
		if rnd.IntN(3) > 0 {
			pass(time.Duration(rnd.IntN(500)) * time.Millisecond)
		}
	}
	m.set(true)
	pass(2*maxBackoff + time.Minute)
	for key, ch := range c.keys {
		if got := n.heard[key]; got != string(ch.Value) {
			t.Errorf("%s is %q, the client last heard %q", key, ch.Value, got)
		}
	}
}

var _ Source = (*fakeCache)(nil)
