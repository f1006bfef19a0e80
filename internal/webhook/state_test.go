package webhook

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kkv-project/kkv/internal/feed"
	"github.com/kkv-project/kkv/internal/position"
)

func TestDeletesTravelAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeCache(0)
		r := newRig(t, c, Options{}, "a")
		c.apply(mut{0, "gone", "1"}, mut{0, "kept", "1"})
		r.expect("a", "0:1 gone,kept")
		// Both carry offset 6: what was deleted at 5 must not be told at less than the puts before it were.
		c.apply(mut{0, "gone", ""}, mut{0, "new", "1"}, mut{0, "flash", "1"}, mut{0, "flash", ""}, mut{0, "kept", "2"},
			mut{1, "other", "1"}, mut{1, "never", ""})
		r.expect("a", "0:6 new,kept", "0:6 gone,flash", "1:0 other", "1:1 never")
		// Deleted and put again: a put.
		c.apply(mut{0, "kept", ""}, mut{0, "kept", "3"})
		r.expect("a", "0:8 kept")
	})
}

func TestChangedWhileInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeCache(0)
		r := newRig(t, c, Options{}, "a")
		a := r.hosts["a"]
		var status atomic.Int32
		status.Store(204)
		a.set(func(ctx context.Context, _ call) (int, error) {
			<-time.After(time.Second)
			return int(status.Load()), nil
		})
		c.apply(mut{0, "k", "1"}, mut{0, "l", "1"})
		synctest.Wait()
		c.apply(mut{0, "k", "2"})
		pass(time.Second)
		r.expect("a", "0:1 k,l", "0:2 k")
		pass(time.Second)

		// It fails: what came meanwhile is merged into the next, and put-then-delete is a delete.
		status.Store(500)
		c.apply(mut{0, "k", "3"}, mut{0, "l", "2"})
		synctest.Wait()
		c.apply(mut{0, "k", ""}, mut{1, "m", "1"})
		pass(time.Second)
		status.Store(204)
		pass(time.Hour)
		r.expect("a", "0:4 k,l", "0:4 l", "0:5 k", "1:0 m")

		// It fails, and another partition changed: byte-identical, so the same again.
		status.Store(500)
		c.apply(mut{0, "l", "3"})
		synctest.Wait()
		c.apply(mut{1, "m", "2"})
		pass(time.Second)
		status.Store(204)
		pass(time.Hour)
		r.expect("a", "0:6 l", "0:6 l", "1:1 m")
	})
}

func TestEqualValues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeCache(0)
		r := newRig(t, c, Options{}, "a")
		a := r.hosts["a"]
		c.apply(mut{0, "k", "1"})
		c.apply(mut{0, "k", "1"})
		r.expect("a", "0:0 k")
		c.apply(mut{0, "k", "1"}, mut{0, "l", "1"})
		r.expect("a", "0:3 l")

		// Pending and then equal: stays pending, at the newer offset.
		a.set(answer(500))
		c.apply(mut{0, "k", "2"})
		synctest.Wait()
		c.apply(mut{0, "k", "2"})
		synctest.Wait()
		a.set(nil)
		pass(time.Second)
		r.expect("a", "0:4 k", "0:5 k")

		// Equal while the POST that tells it is under way: told.
		a.set(func(context.Context, call) (int, error) {
			<-time.After(time.Second)
			return 204, nil
		})
		c.apply(mut{0, "k", "3"})
		synctest.Wait()
		c.apply(mut{0, "k", "3"})
		pass(time.Hour)
		r.expect("a", "0:6 k")
		// The same, but that POST fails.
		a.set(func(context.Context, call) (int, error) {
			<-time.After(time.Second)
			a.set(nil)
			return 500, nil
		})
		c.apply(mut{0, "k", "4"})
		synctest.Wait()
		c.apply(mut{0, "k", "4"})
		pass(time.Hour)
		r.expect("a", "0:8 k", "0:9 k")
		if s := r.d.Stats(); s.Suppressed != 5 || s.Dispatched != 5 || s.Targets[0].PendingKeys != 0 {
			t.Errorf("%+v", s)
		}

		// What expiry touched is never suppressed.
		c.feed.Publish(&feed.Batch{Changes: []feed.Change{
			{Key: []byte("k"), Deleted: true, Offset: 9, Equal: true, Reason: "expired"}}})
		r.expect("a", "0:9 k")
	})
}

func TestHistory(t *testing.T) {
	for _, history := range []bool{false, true} {
		t.Run(fmt.Sprint(history), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newFakeCache(0)
				r := newRig(t, c, Options{History: history}, "a")
				c.history = true
				c.apply(mut{0, "old", "1"})
				synctest.Wait()
				c.apply(mut{0, "old", "2"})
				synctest.Wait()
				c.history = false
				c.apply(mut{0, "new", "1"}, mut{0, "old", "2"})
				if history {
					r.expect("a", "0:0 old", "0:1 old", "0:2 new")
				} else {
					r.expect("a", "0:2 new")
				}
			})
		})
	}
}

func TestKeysThatAreNotUTF8(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeCache(1)
		r := newRig(t, c, Options{}, "a")
		c.apply(mut{0, "\xff", "1"}, mut{0, "å\n\"<&\\\u2028", "1"}, mut{0, "", "1"}, mut{1, "a\x80", "1"})
		synctest.Wait()
		calls := r.hosts["a"].take()
		want := `{"v":1,"topic":"fixture","offsets":{"0":2},"updates":{"å\n\"<&\\\u2028":{},"":{}}}`
		if len(calls) != 1 || calls[0].body != want {
			t.Errorf("got %v, want %s", calls, want)
		}
		c.apply(mut{1, "\xff", "2"})
		synctest.Wait()
		c.apply(mut{1, "\xff", "3"}, mut{1, "\xff", "4"}) // the ring keeps one: found again in the state
		c.apply(mut{1, "\xff", "5"})
		r.expect("a")
		if s := r.d.Stats(); s.InvalidKeys < 3 || s.Dispatched != 1 || r.logs.count("not UTF-8") != 1 {
			t.Errorf("%+v\n%s", s, r.logs.b.String())
		}
	})
}

func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeCache(0)
		r := newRig(t, c, Options{MaxKeysPerPost: 300}, "a")
		a := r.hosts["a"]
		var ms []mut
		for i := range 1000 {
			ms = append(ms, mut{0, fmt.Sprintf("k%03d", i), "1"})
		}
		c.apply(ms...)
		synctest.Wait()
		var sizes []int
		var told []string
		for _, call := range a.take() {
			sizes = append(sizes, len(call.keys))
			told = append(told, call.keys...)
			if want := int64(len(told) - 1); call.offset != want {
				t.Errorf("offset %d, want %d", call.offset, want)
			}
		}
		if !slices.Equal(sizes, []int{300, 300, 300, 100}) || !slices.IsSorted(told) {
			t.Errorf("%v keys: %v", sizes, told)
		}

		// Keys so long that a body would grow beyond what Node's body-parser takes; one that does so alone.
		ms = []mut{{0, strings.Repeat("x", 3*maxBodyV1), "1"}}
		for i := range 100 {
			ms = append(ms, mut{0, fmt.Sprintf("%05000d", i), "1"})
		}
		c.apply(ms...)
		synctest.Wait()
		n := 0
		for i, call := range a.take() {
			n += len(call.keys)
			if i > 0 && len(call.body) > 100_000 || len(call.keys) == 0 {
				t.Errorf("a body of %d bytes, %d keys", len(call.body), len(call.keys))
			}
		}
		if n != 101 {
			t.Errorf("%d keys of 101", n)
		}

		// A receiver that takes less says 413.
		a.set(func(_ context.Context, c call) (int, error) {
			if len(c.keys) > 3 {
				return 413, nil
			}
			return 200, nil
		})
		ms = nil
		for i := range 10 {
			ms = append(ms, mut{1, fmt.Sprint(i), "1"})
		}
		c.apply(ms...)
		pass(time.Minute)
		r.expect("a", "1:9 0,1,2,3,4,5,6,7,8,9", "1:9 0,1,2,3,4", "1:9 0,1", "1:9 2,3", "1:9 4,5", "1:9 6,7", "1:9 8,9")
	})
}

func TestReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeCache(0)
		r := newRig(t, c, Options{}, "a")
		a := r.hosts["a"]
		c.apply(mut{0, "kept", "1"}, mut{0, "vanishes", "1"}, mut{0, "tombstone", "1"}, mut{1, "other", "1"})
		r.expect("a", "0:2 kept,vanishes,tombstone", "1:0 other")
		c.reset(false, func(k string) bool { return k != "vanishes" })
		// The state has not got what vanished: nothing to say of it. Offsets do not go back.
		r.expect("a", "0:2 kept,tombstone", "1:0 other")

		// What was still to be told is not forgotten: a deletion, and a put that the new state does not know.
		a.set(answer(500))
		c.apply(mut{0, "tombstone", ""}, mut{0, "unheard", "1"}, mut{1, "other", "2"})
		synctest.Wait()
		a.take()
		c.reset(true, func(k string) bool { return k == "kept" || k == "other" })
		a.set(nil)
		pass(time.Second)
		// Another incarnation, so its offsets are its own.
		r.expect("a", "0:0 kept", "0:0 tombstone,unheard", "1:0 other")
		c.apply(mut{0, "kept", "2"})
		r.expect("a", "0:1 kept")
	})
}

// byHand is a target that nobody runs, to have what it reads and when in one's hand.
func byHand(c *fakeCache, o Options) *target {
	o.Source, o.Topic = c, "fixture"
	return newTarget(New(o), Target{"a", "http://a/", true}, func() {})
}

// drain reads all there is, and then says what would be sent.
func drain(t *target) (posts []string) {
	for t.read() == (<-chan struct{})(closed) {
	}
	for n := t.d.form.next(t.pending, 100); n != nil; n = t.d.form.next(t.pending, 100) {
		c := call{partition: n.partition, offset: n.offset}
		for _, it := range n.items {
			c.keys = append(c.keys, it.e.key)
		}
		posts = append(posts, c.String())
		t.pending.told(n, time.Now())
	}
	return posts
}

func expectPosts(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A key deleted after the reset, but before the state is asked for, is in neither's list of live keys.
func TestDeletedJustAfterReset(t *testing.T) {
	c := newFakeCache(0)
	c.remember = true
	a := byHand(c, Options{})
	c.apply(mut{0, "k", "1"}, mut{1, "l", "1"})
	expectPosts(t, drain(a), "0:0 k", "1:0 l")
	c.reset(false, func(string) bool { return true })
	c.apply(mut{0, "k", ""})
	expectPosts(t, drain(a), "1:0 l", "0:1 k")
}

// TestVanishedWithAReset: what went with the old state is told, though nothing of it was pending; but not what came again.
func TestVanishedWithAReset(t *testing.T) {
	c := newFakeCache(0)
	a := byHand(c, Options{})
	c.apply(mut{0, "kept", "1"}, mut{0, "vanishes", "1"}, mut{0, "comes again", "1"})
	expectPosts(t, drain(a), "0:2 kept,vanishes,comes again")
	delete(c.keys, "vanishes")
	c.feed.Publish(&feed.Batch{Reset: "partition-rebuilt", Position: c.position(), Changes: []feed.Change{
		{Key: []byte("vanishes"), Deleted: true, Offset: 2}, {Key: []byte("comes again"), Deleted: true, Offset: 2}}})
	c.apply(mut{0, "comes again", "2"})
	expectPosts(t, drain(a), "0:3 kept,comes again", "0:3 vanishes")
}

func TestResetWhileInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeCache(0)
		r := newRig(t, c, Options{}, "a")
		r.hosts["a"].set(func(context.Context, call) (int, error) {
			<-time.After(time.Second)
			return 204, nil
		})
		c.apply(mut{0, "kept", "1"}, mut{0, "vanishes", "1"})
		synctest.Wait()
		c.reset(true, func(k string) bool { return k == "kept" })
		pass(10 * time.Second)
		r.expect("a", "0:1 kept,vanishes", "0:0 kept", "0:0 vanishes")
		if s := r.d.Stats(); s.Targets[0].PendingKeys != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestLagged(t *testing.T) {
	c := newFakeCache(1) // the ring holds one batch
	a := byHand(c, Options{})
	c.apply(mut{0, "k", "1"}, mut{0, "quiet", "1"}, mut{1, "l", "1"})
	expectPosts(t, drain(a), "0:1 k,quiet", "1:0 l")
	c.apply(mut{1, "m", "1"})
	c.apply(mut{0, "k", "2"})
	c.apply(mut{1, "l", "2"})
	c.apply(mut{0, "k", "2"})
	expectPosts(t, drain(a), "0:3 k", "1:2 m,l")
	expectPosts(t, drain(a))
	c.apply(mut{1, "m", "2"})
	expectPosts(t, drain(a), "1:3 m")
	// A reset falls off too: seen by the position.
	c.reset(true, func(k string) bool { return k == "k" || k == "quiet" })
	c.apply(mut{1, "l", "1"})
	expectPosts(t, drain(a), "0:1 k,quiet", "1:0 l")
}

// A target that falls off the ring while the cache loads is told no history, and of nothing too little.
func TestLaggedWhileLoading(t *testing.T) {
	load := func(loading *bool, o Options) (*fakeCache, *target) {
		o.Loading = func() bool { return *loading }
		c := newFakeCache(700) // two batches
		a := byHand(c, o)
		c.history = true
		for i := range 3 {
			c.apply(mut{0, fmt.Sprint("old", i), "1"})
		}
		return c, a
	}
	live := func(c *fakeCache, loading *bool) {
		c.history, *loading = false, false
		c.apply(mut{0, "live1", "1"})
		c.apply(mut{0, "live2", "1"})
	}
	loading := true
	c, a := load(&loading, Options{})
	expectPosts(t, drain(a))
	live(c, &loading)
	expectPosts(t, drain(a), "0:4 live1,live2")

	// Ready in the meantime: too much is better than too little.
	loading = true
	c, a = load(&loading, Options{})
	live(c, &loading)
	expectPosts(t, drain(a), "0:4 old0,old1,old2,live1,live2")

	loading = true
	_, a = load(&loading, Options{History: true})
	expectPosts(t, drain(a), "0:2 old0,old1,old2")
}

// A failed POST whose partition stays as it was is tried again as it was, even if another key waits for longer.
func TestRetryIsTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeCache(0)
		r := newRig(t, c, Options{MaxKeysPerPost: 1}, "a")
		failed := false
		r.hosts["a"].set(func(_ context.Context, c call) (int, error) {
			if c.keys[0] == "l" && !failed {
				failed = true
				return 500, nil
			}
			return 200, nil
		})
		c.apply(mut{0, "k", "1"}, mut{1, "m", "1"}, mut{0, "l", "1"})
		pass(time.Second)
		r.expect("a", "0:0 k", "0:1 l", "0:1 l", "1:0 m")
	})
	// A state that has the key elsewhere changes the partition.
	p := newPending()
	p.add(&feed.Change{Key: []byte("k")}, false, time.Time{})
	v := v1{"t"}
	n := v.next(p, 1)
	p.failed(n)
	p.replace([]feed.Change{{Key: []byte("k"), Partition: 1}}, position.Position{}, "topic-recreated", true, time.Time{})
	if v.current(p, n) {
		t.Error("a POST outlived its state")
	}
}

// A stream of puts holds back neither deletes nor other partitions.
func TestRoundsAreFair(t *testing.T) {
	p := newPending()
	offsets := map[int32]int64{}
	put := func(partition int32, key string, deleted bool) {
		p.add(&feed.Change{Key: []byte(key), Partition: partition, Offset: offsets[partition], Deleted: deleted}, false,
			time.Time{})
		offsets[partition]++
	}
	put(0, "deleted", true)
	put(1, "other", false)
	var got []string
	for i := range 8 {
		put(0, fmt.Sprint("a", i), false)
		put(0, fmt.Sprint("b", i), false)
		if i == 0 {
			put(0, "c0", false)
		}
		n := v1{"t"}.next(p, 2)
		var keys []string
		for _, it := range n.items {
			keys = append(keys, it.e.key)
		}
		got = append(got, fmt.Sprintf("%d:%d %s", n.partition, n.offset, strings.Join(keys, ",")))
		p.told(n, time.Time{})
	}
	if !slices.Equal(got[:4], []string{"0:2 a0,b0", "0:3 c0", "0:3 deleted", "1:0 other"}) {
		t.Errorf("%q", got)
	}
}
