package webhook

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kkv-project/kkv/internal/feed"
	"github.com/kkv-project/kkv/internal/wire"
)

func TestV2Body(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeCache(0)
		r := newRig(t, c, Options{V2: true, Lookback: time.Minute}, "a")
		r.expect("a", "reset synced") // nothing is known of what it was told: the state, of no keys
		c.apply(mut{0, "a", `{"x": 1}`}, mut{1, "b", "text"}, mut{2, "\xff", "\xfe"}, mut{0, "a", `{"x": 2}`}, mut{1, "b", ""})
		synctest.Wait()
		calls := r.hosts["a"].take()
		if len(calls) != 1 {
			t.Fatalf("calls %v", calls)
		}
		b := calls[0].v2
		want := fmt.Sprintf(`{"v":2,"id":%q,"topic":"fixture","changes":[`+
			`{"type":"put","key":"a","value":{"x": 2},"partition":0,"offset":1,"timestamp":0,"epoch":0},`+
			`{"type":"delete","key":"b","partition":1,"offset":1,"timestamp":0,"epoch":0},`+
			`{"type":"put","keyBase64":"/w==","base64":"/g==","partition":2,"offset":0,"timestamp":0,"epoch":0}],`+
			`"position":%q}`, b.ID, c.position())
		if calls[0].body != want {
			t.Errorf("got  %s\nwant %s", calls[0].body, want)
		}
		// An equal value is told, and a reset with its reason.
		c.apply(mut{0, "a", `{"x": 2}`})
		r.expect("a", `a={"x": 2}@0:2`)
		c.reset(true, func(k string) bool { return k == "a" })
		r.expect("a", `reset a={"x": 2}@0:0 synced`)
		if s := r.d.Stats(); s.Suppressed != 0 || s.InvalidKeys != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// What is sent again is the same, with the same id; what was merged has another.
func TestV2Retry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeCache(0)
		r := newRig(t, c, Options{V2: true, Lookback: time.Minute}, "a")
		a := r.hosts["a"]
		a.take()
		a.set(answer(500))
		c.apply(mut{0, "k", "1"})
		synctest.Wait()
		c.apply(mut{1, "other", "1"})
		pass(10 * time.Second)
		calls := a.take()
		for _, call := range calls {
			if call.body != calls[0].body || call.header.Get("Webhook-Id") != calls[0].v2.ID {
				t.Errorf("again %s, first %s", call.body, calls[0].body)
			}
		}
		c.apply(mut{0, "k", "2"})
		a.set(nil)
		pass(time.Minute)
		merged := a.take()
		if len(calls) < 3 || len(merged) != 1 || merged[0].v2.ID == calls[0].v2.ID || merged[0].String() != "k=2@0:1 other=1@1:0" {
			t.Errorf("%v, then %v", calls, merged)
		}
	})
}

// Bodies are bounded, and a larger value goes alone; what a slow target costs is not the values.
func TestV2Bounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeCache(0)
		r := newRig(t, c, Options{V2: true, Lookback: time.Minute, MaxKeysPerPost: 5}, "a")
		r.hosts["a"].take()
		var ms []mut
		for i := range 12 {
			ms = append(ms, mut{int32(i % 3), fmt.Sprint("k", i), "v"})
		}
		c.apply(ms...)
		synctest.Wait()
		var keys []int
		for _, call := range r.hosts["a"].take() {
			keys = append(keys, len(call.v2.lines))
		}
		big := strings.Repeat("x", maxBodyV2/2)
		c.apply(mut{0, "a", big}, mut{1, "b", big}, mut{0, "c", big + big}, mut{2, "d", "1"})
		synctest.Wait()
		for _, call := range r.hosts["a"].take() {
			keys = append(keys, len(call.v2.lines))
		}
		if want := []int{5, 5, 2, 1, 1, 1, 1}; !slices.Equal(keys, want) {
			t.Errorf("keys %v, want %v", keys, want)
		}
	})
}

// The position in a body is one from which everything that was not told yet follows.
func TestV2Position(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeCache(0)
		r := newRig(t, c, Options{V2: true, Lookback: time.Minute, MaxKeysPerPost: 1}, "a")
		c.apply(mut{0, "k", "1"})
		pass(0)
		r.hosts["a"].take()
		before := c.position().String()
		c.apply(mut{0, "k", "2"}, mut{1, "l", "1"})
		pass(0)
		c.apply(mut{0, "m", "3"})
		pass(0)
		var got []string
		for _, call := range r.hosts["a"].take() {
			got = append(got, call.String()+" "+call.v2.Position)
		}
		all := c.position().String()
		after := strings.Replace(all, "~3.", "~2.", 1)
		want := []string{"k=2@0:1 " + before, "l=1@1:0 " + after, "m=3@0:2 " + all}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	})
}

// A value that the cache has before the feed has told of it is told once, and a key that is gone from it when its delete
// is read.
func TestV2ReadsAhead(t *testing.T) {
	c := newFakeCache(0)
	a := byHand(c, Options{V2: true, Lookback: time.Minute})
	drain(a)
	c.apply(mut{0, "k", "1"}, mut{0, "gone", "1"})
	a.read()
	c.apply(mut{0, "k", "2"}, mut{0, "gone", ""}) // not read yet
	n := a.d.form.next(a.pending, 10)
	if got := lines(n); got != "k@0:2" {
		t.Errorf("told %s", got)
	}
	a.read()
	a.pending.told(n, time.Now())
	n = a.d.form.next(a.pending, 10)
	if got := lines(n); got != "gone@0:3" {
		t.Errorf("then told %s", got)
	}
	a.pending.told(n, time.Now())
	c.apply(mut{0, "k", "3"})
	a.read()
	c.reset(true, func(string) bool { return true })
	if n := a.d.form.next(a.pending, 10); n != nil {
		t.Errorf("told %s of a state of which it has not heard", n.body)
	}
}

func lines(n *post) string {
	var s []string
	for _, it := range n.items {
		s = append(s, fmt.Sprintf("%s@%d:%d", it.e.key, it.partition, it.offset))
	}
	return strings.Join(s, " ")
}

// mirror is a receiver that keeps what v2 tells it.
type mirror struct {
	t     *testing.T
	state map[string]wire.Change
	sent  map[string]bool // since the reset; nil: none is under way
}

func (m *mirror) hear(c call) {
	if c.v2.Reset != "" {
		m.sent = map[string]bool{}
	}
	for _, l := range c.v2.lines {
		old, ok := m.state[string(l.Key)]
		if ok && old.Partition == l.Partition && l.Offset < old.Offset && m.sent == nil {
			m.t.Errorf("%s: offset %d after %d", l.Key, l.Offset, old.Offset)
		}
		m.state[string(l.Key)] = l
		if m.sent != nil {
			m.sent[string(l.Key)] = true
		}
	}
	if c.v2.Synced && m.sent != nil { // a body that is sent again says it again
		maps.DeleteFunc(m.state, func(k string, _ wire.Change) bool { return !m.sent[k] })
		m.sent = nil
	}
}

// live are the keys that have a value, with that and where it is from.
func (m *mirror) live() map[string]string {
	out := map[string]string{}
	for k, l := range m.state {
		if l.Type != wire.Delete {
			out[k] = fmt.Sprintf("%s@%d:%d", l.Value, l.Partition, l.Offset)
		}
	}
	return out
}

func (c *fakeCache) live() map[string]string {
	out := map[string]string{}
	for k, ch := range c.keys {
		if !ch.Deleted {
			out[k] = fmt.Sprintf("%s@%d:%d", ch.Value, ch.Partition, ch.Offset)
		}
	}
	return out
}

// Whatever the receiver does: at the end it has the cache's state, and was never sent an older offset after a newer one.
func TestV2Mirror(t *testing.T) {
	for i := range 60 {
		seed := rand.Uint64()
		t.Run(fmt.Sprintf("%d/seed=%d", i, seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { v2Mirror(t, seed) })
		})
	}
}

func v2Mirror(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 0))
	ring := 0
	if seed%2 == 0 {
		ring = 2000
	}
	c := newFakeCache(ring)
	c.remember, c.horizons = true, true
	for i := range rnd.IntN(40) {
		c.apply(mut{int32(i % 3), fmt.Sprint("k", i), "before"})
	}
	r := newRig(t, c, Options{V2: true, Lookback: time.Minute, Timeout: 2 * time.Second, MaxKeysPerPost: 1 + rnd.IntN(8)}, "a")
	m := &mirror{t: t, state: map[string]wire.Change{}}
	mood := &moody{rnd: rand.New(rand.NewPCG(seed, 1)), hear: m.hear}
	r.hosts["a"].set(mood.behave)
	for range 300 {
		if rnd.IntN(40) == 0 {
			c.reset(rnd.IntN(2) == 0, func(string) bool { return rnd.IntN(3) > 0 })
		} else {
			randomBatch(rnd, c, map[string]must{})
		}
		if rnd.IntN(3) > 0 {
			pass(time.Duration(rnd.IntN(1000)) * time.Millisecond)
		}
	}
	mood.set(true)
	pass(2*maxBackoff + time.Minute)
	if s := r.d.Stats().Targets[0]; s.PendingKeys != 0 || m.sent != nil {
		t.Errorf("%+v, not synced: %v", s, m.sent != nil)
	}
	if diff := cmp.Diff(c.live(), m.live()); diff != "" {
		t.Errorf("-cache +receiver\n%s", diff)
	}
}

// A receiver first seen starts some time back: v1 there or where the cache became ready, v2 with the state if that is not as far.
func TestLookback(t *testing.T) {
	for _, v2 := range []bool{false, true} {
		t.Run(fmt.Sprint("v2=", v2), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, targets := newFakeCache(0), make(feedOfTargets)
				c.history = true
				var ready atomic.Bool
				r := newRig(t, c, Options{V2: v2, Targets: targets, Lookback: time.Minute, Loading: func() bool { return !ready.Load() }}, "a", "b", "c")
				tell := func(hosts ...string) {
					var ts []Target
					for _, h := range hosts {
						ts = append(ts, Target{h, "http://" + h + "/", true})
					}
					targets <- ts
					synctest.Wait()
				}
				expect := func(host, names, values string) {
					t.Helper()
					if v2 {
						names = values
					}
					r.expect(host, strings.Split(names, "; ")...)
				}
				tell("a")
				c.apply(mut{0, "old", "1"})
				c.history = false
				ready.Store(true)
				c.feed.Publish(&feed.Batch{Position: c.position()}) // as a cache does when it is ready
				pass(10 * time.Second)
				if v2 {
					r.expect("a", "reset old=1@0:0 synced")
				}
				c.apply(mut{0, "k", "1"})
				expect("a", "0:1 k", "k=1@0:1")
				tell("a", "b")
				expect("b", "0:1 k", "reset old=1@0:0 k=1@0:1 synced")
				pass(50 * time.Second)
				c.apply(mut{0, "l", "1"})
				expect("a", "0:2 l", "l=1@0:2")
				pass(30 * time.Second)
				tell("a", "c")
				expect("c", "0:2 l", "l=1@0:2")
			})
		})
	}
}
