package kkv

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kkv-project/kkv/internal/cachetest"
)

func TestMirror(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
		s.Put("b", "1")
		s.Put("a", "1")
		s.SetReady(false)
		m := open(t, options(n))
		var j journal
		m.OnUpdate(j.add)
		synctest.Wait()
		if _, ok := m.Get("a"); ok || show(m) != "" || !m.Position().IsZero() || m.Stats().Ready {
			t.Error("shows something before it is ready")
		}
		time.AfterFunc(time.Minute, func() { s.SetReady(true) })
		start := time.Now()
		if err := m.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d > time.Minute+startupBackoff {
			t.Errorf("ready only after %v", d)
		}
		equal(t, "state", show(m), "a=1 b=1")
		equal(t, "the first state is no update", j.take(), "")

		s.Put("c", "1")
		s.Put("a", "2")
		s.Put("a", "2")
		s.Delete("b")
		equal(t, "updates", j.take(), "c=1 a=2 a=2 -b")
		equal(t, "state", show(m), "a=2 c=1")
		e, ok := m.Get("a")
		if !ok || e.Key != "a" || e.Timestamp.IsZero() || e.Offset != 2 {
			t.Errorf("%+v", e)
		}
		equal(t, "position", m.Position().String(), s.Position())
		st := m.Stats()
		st.LastHeard = time.Time{}
		failures := st.Failures
		st.Failures = 0
		equal(t, "stats", st, Stats{Ready: true, Live: true, Keys: 2, Bytes: 4, Updates: 4, Connects: 1})
		if failures == 0 {
			t.Error("no failures counted while the server was not ready")
		}
	})
}

// All is one position, even while the mirror moves on under it.
func TestMirrorAll(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
		for i := range 100 {
			s.Put(fmt.Sprintf("k%02d", i), "old")
		}
		s.Put("other", "old")
		m := ready(t, options(n))
		i := 0
		for k, e := range m.All("k") {
			if i == 10 {
				for i := range 100 {
					s.Put(fmt.Sprintf("k%02d", i), "new")
				}
				s.Delete("k50")
				synctest.Wait()
			}
			if want := fmt.Sprintf("k%02d", i); k != want || string(e.Value) != "old" {
				t.Fatalf("%s=%s, want %s=old", k, e.Value, want)
			}
			i++
		}
		equal(t, "keys", i, 100)
		if _, ok := m.Get("k50"); ok {
			t.Error("k50 is still there")
		}
		e, _ := m.Get("k51")
		equal(t, "k51", string(e.Value), "new")
	})
}

// A batch becomes visible in one step.
func TestMirrorBatch(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
		s.Batch("x", "0", "y", "0")
		m := ready(t, options(n))
		var heard []string
		m.OnUpdate(func(u Update) { heard = append(heard, u.Key+"="+string(u.Value)+" in "+show(m)) })
		s.Batch("x", "1", "y", "1")
		synctest.Wait()
		equal(t, "heard", strings.Join(heard, "; "), "x=1 in x=1 y=1; y=1 in x=1 y=1")
	})
}

func TestMirrorPut(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
		m := ready(t, options(n))
		for i := range 50 {
			v := strconv.Itoa(i)
			p, err := m.Put(t.Context(), "k", []byte(v))
			if err != nil || !m.Position().Covers(p) {
				t.Fatalf("put: %q, %v; mirror at %q", p, err, m.Position())
			}
			if e, ok := m.Get("k"); !ok || string(e.Value) != v {
				t.Fatalf("get after put %s: %q, %v", v, e.Value, ok)
			}
		}
		if _, err := m.Delete(t.Context(), "k"); err != nil {
			t.Fatal(err)
		}
		if _, ok := m.Get("k"); ok {
			t.Error("there after delete")
		}

		s.Hold(true) // acknowledged, not served
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		p, err := m.Put(ctx, "k", []byte("late"))
		if !errors.Is(err, ErrBehind) || !errors.Is(err, context.DeadlineExceeded) || p.IsZero() {
			t.Errorf("%q, %v", p, err)
		}
		time.AfterFunc(time.Second, func() { s.Hold(false) })
		if err := m.WaitFor(t.Context(), p); err != nil {
			t.Error(err)
		}
		equal(t, "state", show(m), "k=late")
	})
}

// A put into a mirror of a prefix does not wait for progress about keys that the mirror does not hold.
func TestMirrorPrefix(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
		s.Put("a/1", "x")
		s.Put("b/1", "x")
		o := options(n)
		o.Prefix = "a/"
		m := ready(t, o)
		equal(t, "state", show(m), "a/1=x")
		start := time.Now()
		for i := range 20 {
			s.Put("b/"+strconv.Itoa(i), "y")
			if _, err := m.Put(t.Context(), "a/2", []byte("z")); err != nil {
				t.Fatal(err)
			}
		}
		equal(t, "waited", time.Since(start), 0)
		equal(t, "state", show(m), "a/1=x a/2=z")
		if _, err := m.Put(t.Context(), "b/1", nil); err == nil || !strings.Contains(err.Error(), `begin with "a/"`) {
			t.Error(err)
		}
	})
}

// Callbacks may use the mirror: a Put in one ends, although no other callback runs meanwhile.
func TestMirrorCallbackPuts(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
		m := ready(t, options(n))
		var j journal
		m.OnUpdate(func(u Update) {
			j.add(u)
			if !u.Deleted && !strings.HasPrefix(u.Key, "copy/") {
				if _, err := m.Put(t.Context(), "copy/"+u.Key, u.Value); err != nil {
					t.Error(err)
				}
				if e, _ := m.Get("copy/" + u.Key); string(e.Value) != string(u.Value) {
					t.Errorf("get in the callback: %q", e.Value)
				}
			}
		})
		s.Batch("a", "1", "b", "2")
		equal(t, "heard", j.take(), "a=1 b=2 copy/a=1 copy/b=2")
	})
}

// After Sync, what anybody had written before is visible.
func TestMirrorSync(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
		m := ready(t, options(n))
		if err := m.Sync(t.Context()); err != nil {
			t.Error(err)
		}
		s.Hold(true)
		if _, err := newClient(t, options(n)).Put(t.Context(), "k", []byte("1")); err != nil {
			t.Fatal(err)
		}
		if err := m.Sync(t.Context()); !errors.Is(err, ErrBehind) {
			t.Errorf("nobody shows the write: %v", err)
		}
		time.AfterFunc(time.Second, func() { s.Hold(false) })
		if err := m.Sync(t.Context()); err != nil {
			t.Error(err)
		}
		equal(t, "state", show(m), "k=1")

		s.Mute(true)
		s.Put("k", "2")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := m.Sync(ctx); !errors.Is(err, ErrBehind) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the mirror does not show the write: %v", err)
		}
		s.Mute(false)
		if err := m.Sync(t.Context()); err != nil {
			t.Error(err)
		}
		equal(t, "state", show(m), "k=2")
		_ = m.Close()
		if err := m.Sync(t.Context()); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
}

func TestMirrorRefused(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
		s.Token = "right"
		o := options(n)
		o.Token = "wrong"
		m := open(t, o)
		var se *StatusError
		if err := m.Ready(t.Context()); !errors.As(err, &se) || se.Status != 401 {
			t.Error(err)
		}
		if err := m.WaitFor(t.Context(), m.Position()); !errors.As(err, &se) || !errors.Is(err, ErrBehind) {
			t.Error(err)
		}
		if _, err := m.Put(t.Context(), "k", nil); !errors.As(err, &se) {
			t.Error(err)
		}
		_ = m.Close()
		if err := m.Ready(t.Context()); !errors.As(err, &se) {
			t.Error(err)
		}

		o.Token, o.Topic = "right", "u"
		if err := open(t, o).Ready(t.Context()); !errors.As(err, &se) || se.Status != 404 || errors.Is(err, ErrNotFound) {
			t.Error(err)
		}

		// Later neither ends it: both may come back.
		o.Topic = "t"
		m = ready(t, o)
		for _, status := range []int{401, 404, 503} {
			s.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
				http.Error(w, "no", status)
				return true
			})
			s.Drop()
			time.Sleep(time.Minute)
			s.Intercept(nil)
			s.Put("k", strconv.Itoa(status))
			time.Sleep(maxBackoff)
			equal(t, "state", show(m), "k="+strconv.Itoa(status))
		}
	})
}

func TestMirrorReadyTellsWhy(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		m := open(t, options(n, "http://gone"))
		err := m.Ready(ctx)
		if !errors.Is(err, ErrNotReady) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "connection refused") {
			t.Error(err)
		}
		n.Serve("html", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }))
		m = open(t, options(n, "http://html"))
		ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := m.Ready(ctx); err == nil || !strings.Contains(err.Error(), "is this a kkv server?") {
			t.Error(err)
		}
	})
}

// Who waits for a server that is not there reads once in the log why, and once that it came.
func TestMirrorLogsWhatItWaitsFor(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
		var l logs
		o := options(n, "http://late", "http://later")
		o.Logger = l.logger()
		m := open(t, o)
		time.Sleep(time.Hour)
		equal(t, "log lines while away", strings.Count(l.String(), "\n"), 1)
		if !strings.Contains(l.String(), `level=WARN msg="cannot watch yet`) || !strings.Contains(l.String(), "connection refused") {
			t.Error(l.String())
		}
		n.Serve("late", s)
		if err := m.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		equal(t, "log lines", strings.Count(l.String(), "\n"), 2)
		if !strings.Contains(l.String(), `level=INFO msg="the watch stands"`) {
			t.Error(l.String())
		}
	})
}

func TestMirrorCloses(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
		s.Put("k", "v")
		m := ready(t, options(n))
		s.Hold(true)
		done := make(chan error)
		go func() { _, err := m.Put(t.Context(), "k", []byte("w")); done <- err }()
		synctest.Wait()
		for range 2 {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := <-done; !errors.Is(err, ErrClosed) || !errors.Is(err, ErrBehind) {
			t.Error(err)
		}
		for _, err := range []error{m.Ready(t.Context()), func() error { _, err := m.Put(t.Context(), "k", nil); return err }()} {
			if !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
		}
		equal(t, "state", show(m), "k=v")
		if m.Stats().Live {
			t.Error("live after Close")
		}

		ctx, cancel := context.WithCancel(t.Context())
		m, err := Open(ctx, options(n, "http://gone")) // Open's context ends it, too
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := m.Ready(t.Context()); !errors.Is(err, ErrClosed) || !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		synctest.Wait()
		_ = m.Close()
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
