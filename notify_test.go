package kkv

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
)

func notifierOf(t *testing.T, log *slog.Logger) *notifier {
	n := newNotifier(log)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return n
}

func put(key, value string) Update { return Update{Entry: Entry{Key: key, Value: []byte(value)}} }

func TestNotifierRegistration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := notifierOf(t, slog.New(slog.DiscardHandler))
		var a, b, once journal
		n.post([]Update{put("unheard", "1")})
		stopA := n.add(a.add)
		n.post([]Update{put("k", "1"), put("k", "2")})
		n.add(b.add) // must not hear of what was posted before, even if it is still waiting
		var stopOnce func()
		stopOnce = n.add(func(u Update) { once.add(u); stopOnce() })
		n.post([]Update{put("k", "3"), {Entry: Entry{Key: "k"}, Deleted: true}})
		equal(t, "a", a.take(), "k=1 k=2 k=3 -k")
		equal(t, "b", b.take(), "k=3 -k")
		equal(t, "stopped from inside", once.take(), "k=3")
		stopA()
		stopA()
		n.post([]Update{put("k", "4")})
		equal(t, "stopped", a.take(), "")
		equal(t, "b goes on", b.take(), "k=4")
	})
}

func TestNotifierPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l logs
		var j journal
		n := notifierOf(t, l.logger())
		n.add(func(u Update) { panic("on " + u.Key) })
		n.add(j.add)
		n.post([]Update{put("a", "1"), put("b", "2")})
		equal(t, "the other callback", j.take(), "a=1 b=2")
		equal(t, "panics", n.panics.Load(), 2)
		equal(t, "pending", n.pending.Load(), 0)
		for _, want := range []string{`panic="on a"`, `panic="on b"`, "notify_test.go"} {
			if !strings.Contains(l.String(), want) {
				t.Errorf("the log lacks %s:\n%s", want, l.String())
			}
		}
	})
}

// A callback that hangs costs memory for the newest state of every key, and no more; and it misses no newest state.
func TestNotifierMerge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := notifierOf(t, slog.New(slog.DiscardHandler))
		hang := make(chan struct{})
		last := make(map[string]string)
		heard := 0
		n.add(func(u Update) {
			<-hang
			heard++
			if was, _ := strconv.Atoi(last[u.Key]); last[u.Key] != "" {
				if is, _ := strconv.Atoi(string(u.Value)); is <= was {
					t.Errorf("%s went back from %d to %d", u.Key, was, is)
				}
			}
			last[u.Key] = string(u.Value)
		})
		n.post([]Update{put("first", "0")})
		synctest.Wait()
		const rounds, keys = 1000, 100
		for i := range rounds {
			us := make([]Update, keys)
			for k := range us {
				us[k] = put("k"+strconv.Itoa(k), strconv.Itoa(i))
			}
			n.post(us)
			n.mu.Lock()
			if len(n.queue) > mergeAt {
				t.Fatalf("%d updates wait", len(n.queue))
			}
			n.mu.Unlock()
		}
		close(hang)
		synctest.Wait()
		equal(t, "keys heard of", len(last), keys+1)
		for k, v := range last {
			if k != "first" && v != strconv.Itoa(rounds-1) {
				t.Errorf("%s ended at %s", k, v)
			}
		}
		equal(t, "heard and merged", uint64(heard)+n.merged.Load(), rounds*keys+1)
		equal(t, "pending", n.pending.Load(), 0)
		equal(t, "limit", n.limit, mergeAt)
	})
}
