package kkv

import (
	"context"
	"errors"
	"fmt"
	"io"
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
		equal(t, "reconnected", w.take(), "reset:reconnected new=1 synced@")
		w.stop()
		if err := <-w.err; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
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
		equal(t, "after 31 s", w.take(), "reset:reconnected lost=1 synced@")
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
				w := watch{c: newClient(t, options(n)), query: "?", begin: func() error { return nil },
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
