package kkv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kkv-project/kkv/internal/cachetest"
	"github.com/kkv-project/kkv/internal/wire"
)

// watched runs a watch in the background.
type watched struct {
	ch   chan string
	err  chan error
	stop context.CancelFunc
}

func startWatch(t *testing.T, c *Client, o WatchOptions) *watched {
	ctx, cancel := context.WithCancel(t.Context())
	w := &watched{ch: make(chan string, 1000), err: make(chan error, 1), stop: cancel}
	t.Cleanup(cancel)
	go func() {
		for ch, err := range c.Watch(ctx, o) {
			if err != nil {
				w.err <- err
				return
			}
			s := ch.Kind.String()
			switch ch.Kind {
			case Put:
				s = ch.Key + "=" + string(ch.Value)
			case Delete:
				s = "-" + ch.Key
			case Reset:
				s += ":" + ch.Reason
			}
			if !ch.Position.IsZero() {
				s += "@"
			}
			w.ch <- s
		}
	}()
	return w
}

// take is what came since the last take, once the bubble is quiet. The puts before a Synced are sorted.
func (w *watched) take() string {
	synctest.Wait()
	var got []string
	for {
		select {
		case s := <-w.ch:
			got = append(got, s)
			continue
		default:
		}
		break
	}
	start := 0
	for i, s := range got {
		if strings.HasPrefix(s, "synced") {
			slices.Sort(got[start:i])
		}
		if !strings.HasSuffix(s, "@") && strings.Contains(s, "=") {
			continue
		}
		start = i + 1
	}
	return strings.Join(got, " ")
}

func TestWatch(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
		s.Put("b", "1")
		s.Put("a", "1")
		w := startWatch(t, newClient(t, options(n)), WatchOptions{})
		equal(t, "state", w.take(), "a=1 b=1 synced@")
		s.Put("a", "2")
		s.Delete("b")
		equal(t, "live", w.take(), "a=2@ -b@")
		s.Batch("x", "1", "y", "2", "x", "3")
		equal(t, "batch", w.take(), "x=1 y=2 x=3@")
		time.Sleep(25 * time.Second)
		equal(t, "progress", w.take(), "progress@ progress@")
		s.Replace(true, "new", "1")
		equal(t, "reset", w.take(), "reset:topic-recreated new=1 synced@")
		s.Drop()
		time.Sleep(time.Second)
		equal(t, "resumed", w.take(), "synced@")
		w.stop()
		if err := <-w.err; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// A watch that lost its connection hears exactly what was put or deleted meanwhile.
func TestWatchResumes(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
		s.Batch("same", "1", "changed", "1", "gone", "1")
		w := startWatch(t, newClient(t, options(n)), WatchOptions{})
		equal(t, "state", w.take(), "changed=1 gone=1 same=1 synced@")
		n.Stop("a")
		s.Put("changed", "2")
		s.Put("changed", "3")
		s.Delete("gone")
		s.Put("passing", "1")
		s.Delete("passing")
		s.Put("new", "1")
		time.Sleep(time.Hour)
		n.Serve("a", s)
		time.Sleep(maxBackoff)
		equal(t, "resumed", w.take(), "changed=3 -gone new=1 -passing synced@")
		s.Put("new", "2")
		equal(t, "live", w.take(), "new=2@")

		s.ResetSince("beyond-horizon")
		s.Drop()
		s.Delete("new")
		time.Sleep(time.Second)
		equal(t, "beyond the horizon", w.take(), "reset:beyond-horizon changed=3 same=1 synced@")

		// The second reset is cut short, before its synced: what it told may be partial.
		s.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			s.Intercept(nil)
			w.Header().Set("Content-Type", "application/x-ndjson")
			_, _ = io.WriteString(w, `{"type":"reset","reason":"partition-rebuilt"}`+"\n"+`{"type":"put","key":"x","value":1,"partition":0,"offset":0,"timestamp":1}`+"\n")
			return true
		})
		s.Drop()
		time.Sleep(time.Second)
		equal(t, "a reset cut short", w.take(), "reset:partition-rebuilt x=1 reset:reconnected changed=3 same=1 synced@")
	})
}

func TestWatchSince(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
		s.Batch("a", "1", "b", "1")
		since := must(ParsePosition(s.Position()))
		s.Put("a", "2")
		s.Delete("b")
		s.Put("pre/c", "1")
		c := newClient(t, options(n))
		equal(t, "since", startWatch(t, c, WatchOptions{Since: since}).take(), "a=2 -b pre/c=1 synced@")
		equal(t, "since, of a prefix", startWatch(t, c, WatchOptions{Since: since, Prefix: "pre/"}).take(), "pre/c=1 synced@")
		equal(t, "since, of a key, without values", startWatch(t, c, WatchOptions{Since: since, Key: "a", KeysOnly: true}).take(), "a= synced@")
		now := startWatch(t, c, WatchOptions{SinceNow: true})
		equal(t, "since now", now.take(), "synced@")
		n.Stop("a")
		s.Delete("a")
		n.Serve("a", s)
		time.Sleep(maxBackoff)
		equal(t, "since now, resumed", now.take(), "-a synced@")
		s.Replace(true)
		equal(t, "since before the topic was made anew", startWatch(t, c, WatchOptions{Since: since}).take(), "reset:topic-recreated synced@")

		w := startWatch(t, c, WatchOptions{Since: since, SinceNow: true})
		if err := <-w.err; !strings.Contains(err.Error(), "set one") {
			t.Error(err)
		}
		s.Hold(true)
		write := must(c.Put(t.Context(), "k", nil))
		w = startWatch(t, c, WatchOptions{Since: write})
		var se *StatusError
		if err := <-w.err; !errors.As(err, &se) || se.Status != 400 {
			t.Errorf("since a write alone: %v", err)
		}
	})
}

// Who folds a watch's changes has what the servers hold, through any number of lost connections.
func TestWatchConverges(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	bubble(t, func(t *testing.T, n *cachetest.Network, a *cachetest.Server) {
		b := cachetest.New("t")
		n.Serve("b", b)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		state, old := map[string]string{}, map[string]string{} // old: before a Reset, until it is whole
		go func() {
			defer close(done)
			for ch, err := range newClient(t, options(n, "http://a", "http://b")).Watch(ctx, WatchOptions{}) {
				switch {
				case err != nil:
					if !errors.Is(err, context.Canceled) {
						t.Error(err)
					}
				case ch.Kind == Put:
					state[ch.Key] = string(ch.Value)
				case ch.Kind == Delete:
					delete(state, ch.Key)
				case ch.Kind == Reset:
					old, state = state, map[string]string{}
				case ch.Kind == Synced:
					old = nil
				}
			}
		}()
		disturb(t, n, rand.New(rand.NewPCG(seed, 0)), a, b)
		time.Sleep(time.Minute)
		cancel()
		<-done
		if old != nil {
			t.Error("a reset was never whole")
		}
		equal(t, "keys", len(state), len(a.Keys()))
		for k, v := range state {
			if want, ok := a.Value(k); !ok || v != want {
				t.Errorf("%s: watch %s, server %s %v", k, v, want, ok)
			}
		}
	})
}

// A watch's state is not older than what the client has written; and a client whose position is of another time forgets it.
func TestWatchSeesOwnWrites(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
		c := newClient(t, options(n))
		s.Hold(true)
		if _, err := c.Put(t.Context(), "k", []byte("1")); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Second, func() { s.Hold(false) })
		w := startWatch(t, c, WatchOptions{})
		time.Sleep(2 * time.Second)
		equal(t, "state", w.take(), "k=1 synced@")
		s.Replace(true)
		_ = w.take()
		old := newClient(t, options(n))
		old.saw(must(ParsePosition("q83vEjRWeJASNFZ4kBI0Vg~mwu1rnk0~1")))
		w = startWatch(t, old, WatchOptions{})
		time.Sleep(10 * time.Second)
		equal(t, "state of the topic as it is now", strings.TrimSuffix(w.take(), " progress@"), "synced@")
	})
}

// Since is kept until a server has told a position: a catch-up that was cut short comes again.
func TestWatchSinceCutShort(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
		since := must(ParsePosition(s.Position()))
		s.Put("a", "1")
		asked := 0
		s.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if asked++; asked > 1 {
				return false
			}
			w.Header().Set("Content-Type", "application/x-ndjson")
			_, _ = io.WriteString(w, `{"type":"put","key":"a","value":1,"partition":0,"offset":0,"timestamp":1}`+"\n")
			return true
		})
		w := startWatch(t, newClient(t, options(n)), WatchOptions{Since: since})
		time.Sleep(time.Second)
		equal(t, "changes", w.take(), "a=1 a=1 synced@")
		equal(t, "requests", asked, 2)
	})
}

func TestWatchOptions(t *testing.T) {
	f := func(o WatchOptions, want string) {
		t.Helper()
		bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
			s.Put("a/1", "x")
			s.Put("a/2", "x")
			s.Put("b", "x")
			w := startWatch(t, newClient(t, options(n)), o)
			synctest.Wait()
			s.Put("a/1", "y")
			s.Delete("b")
			equal(t, fmt.Sprint(o), w.take(), want)
		})
	}
	f(WatchOptions{Key: "b"}, "b=x synced@ -b@")
	f(WatchOptions{Prefix: "a/"}, "a/1=x a/2=x synced@ a/1=y@")
	f(WatchOptions{KeysOnly: true}, "a/1= a/2= b= synced@ a/1=@ -b@")
	f(WatchOptions{Key: "a/1", KeysOnly: true}, "a/1= synced@ a/1=@")
}

func TestWatchPositions(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
		c := newClient(t, options(n))
		w := startWatch(t, c, WatchOptions{})
		equal(t, "state", w.take(), "synced@")
		s.Put("a", "1")
		_ = w.take()
		equal(t, "the client's position", c.Position().String(), s.Position()) // so a Get now is no older
	})
}

// A watch whose server stops talking is given up after 30 s; one that receives a large value slowly is not.
func TestWatchSilence(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
		w := startWatch(t, newClient(t, options(n)), WatchOptions{})
		equal(t, "state", w.take(), "synced@")
		s.Mute(true)
		s.Put("lost", "1")
		time.Sleep(29 * time.Second)
		equal(t, "silence", w.take(), "")
		s.Mute(false)
		if got := w.take(); !strings.HasPrefix(got, "lost=1@ progress@") {
			t.Errorf("after 29 s: %s", got)
		}
		s.Mute(true)
		time.Sleep(31 * time.Second)
		s.Mute(false)
		equal(t, "after 31 s", w.take(), "synced@")
	})
	synctest.Test(t, func(t *testing.T) {
		n := &cachetest.Network{}
		defer n.Close()
		requests := 0
		n.Serve("slow", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests++
			w.Header().Set("Content-Type", "application/x-ndjson")
			l := wire.AppendNDJSON(nil, &wire.Change{Type: wire.Put, Key: []byte("k"), Value: []byte(strings.Repeat("v", 1000))})
			for _, b := range l {
				_, _ = w.Write([]byte{b})
				w.(http.Flusher).Flush()
				if sleep(r.Context(), time.Second) != nil {
					return
				}
			}
			<-r.Context().Done()
		}))
		w := startWatch(t, newClient(t, options(n, "http://slow")), WatchOptions{})
		time.Sleep(20 * time.Minute)
		equal(t, "value", strings.Count(w.take(), "v"), 1000)
		w.stop()
		<-w.err
		if requests < 2 {
			t.Errorf("%d requests: the silence after the value went unnoticed", requests)
		}
	})
}

// What is cut off or malformed is never taken for an event.
func TestWatchBrokenLines(t *testing.T) {
	for name, c := range map[string]struct{ body, want string }{
		"cut":          {`{"type":"put","key":"a","value":1,"partition":0,"offset":0,"timestamp":1}`, "unexpected EOF"},
		"no JSON":      {"<html>\n", "invalid character"},
		"no type":      {"{}\n", `no "type"`},
		"bad position": {`{"type":"synced","position":"x","keys":0}` + "\n", "malformed position"},
		"ends":         {"", "EOF"},
		"closing":      {`{"type":"closing","retryMs":2000}` + "\n", "the server is closing"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
				first := true
				s.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
					if !first {
						return false
					}
					first = false
					w.Header().Set("Content-Type", "application/x-ndjson; charset=utf-8")
					_, _ = io.WriteString(w, c.body)
					return true
				})
				var failed []string
				start := time.Now()
				w := watch{c: newClient(t, options(n)), query: "?", since: func() string { return "" }, begin: func(string) error { return nil },
					fatal: func(error) bool { return true },
					lost:  func(err error) { failed = append(failed, err.Error()) },
					change: func(l *wire.Change, _ Position) error {
						equal(t, "the first event", l.Type, wire.Synced)
						return errStop
					}}
				if err := w.run(t.Context()); !errors.Is(err, errStop) {
					t.Error(err)
				}
				if len(failed) != 1 || !strings.Contains(failed[0], c.want) {
					t.Errorf("failures %q, want %q", failed, c.want)
				}
				if d := time.Since(start); (d >= 2*time.Second) != (name == "closing") || d > 3*time.Second {
					t.Errorf("came back after %v", d)
				}
			})
		})
	}
}

// A line may be as long as it likes, and the next one is whole.
func TestWatchLongLines(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
		long := strings.Repeat("x", 5<<20)
		s.Put("long", long)
		m := ready(t, options(n))
		s.Put("short", "1")
		s.Put("long", long+"y")
		s.Put("short", "2")
		synctest.Wait()
		e, _ := m.Get("long")
		equal(t, "length", len(e.Value), len(long)+1)
		e, _ = m.Get("short")
		equal(t, "short", string(e.Value), "2")
	})
}

func TestWatchRefused(t *testing.T) {
	for _, c := range []struct {
		status int
		first  bool // ends a watch that never stood
		later  bool // ends one that did
	}{{400, true, true}, {401, true, true}, {403, true, true}, {404, true, false}, {302, true, true}, {408, false, false},
		{429, false, false}, {500, false, false}, {502, false, false}, {503, false, false}} {
		for _, later := range []bool{false, true} {
			t.Run(fmt.Sprint(c.status, later), func(t *testing.T) {
				bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
					var refuse atomic.Bool
					refuse.Store(!later)
					s.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
						if refuse.Load() {
							http.Error(w, "no", c.status)
						}
						return refuse.Load()
					})
					w := startWatch(t, newClient(t, options(n)), WatchOptions{})
					_ = w.take()
					refuse.Store(true)
					s.Drop()
					time.Sleep(time.Minute)
					select {
					case err := <-w.err:
						if later && !c.later || !later && !c.first {
							t.Errorf("ended: %v", err)
						}
						var se *StatusError
						if !errors.As(err, &se) || se.Status != c.status {
							t.Error(err)
						}
					default:
						if later && c.later || !later && c.first {
							t.Error("goes on")
						}
						refuse.Store(false)
						time.Sleep(maxBackoff + time.Second)
						if got := w.take(); !strings.HasSuffix(got, "synced@") {
							t.Errorf("did not come back: %s", got)
						}
					}
				})
			})
		}
	}
}

// One server that refuses is no reason to end while another one may not.
func TestWatchRefusedByOneOfTwo(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
		answer(n, "wrong", 404, "plain")
		n.Stop("a")
		m := open(t, options(n, "http://wrong", "http://a"))
		time.Sleep(time.Minute)
		n.Serve("a", s)
		if err := m.Ready(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
