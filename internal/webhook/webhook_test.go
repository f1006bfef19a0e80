package webhook

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// pipeClient is the package's own client, on connections in memory that serve handles until it returns.
func pipeClient(t *testing.T, serve func(net.Conn)) (*http.Client, *int) {
	dials := new(int)
	c := newClient(nil)
	c.Transport.(*http.Transport).DialContext = func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		*dials++
		go func() {
			defer far.Close()
			serve(far)
		}()
		return near, nil
	}
	t.Cleanup(c.CloseIdleConnections)
	return c, dials
}

// The original's POSTs, as recorded, but for User-Agent and the order of headers.
func TestRecordedWebhooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var got []string
		client, dials := pipeClient(t, func(conn net.Conn) {
			var raw bytes.Buffer
			in := bufio.NewReader(io.TeeReader(conn, &raw))
			for {
				req, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, req.Body)
				mu.Lock()
				got = append(got, raw.String())
				mu.Unlock()
				raw.Reset()
				_, _ = io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
			}
		})
		c := newFakeCache(0)
		newRig(t, c, Options{Client: client, Targets: Static("http://127.0.0.1:8080/kafka-keyvalue/v1/updates")})
		c.next = []int64{3, 2}
		c.apply(mut{1, "push-0", "x"})
		pass(0)
		c.apply(mut{1, "push-1", "x"})
		pass(0)
		c.apply(mut{0, "push-2", "x"})
		pass(0)

		want := func(partition, offset, key string) []string {
			return []string{
				"POST /kafka-keyvalue/v1/updates HTTP/1.1",
				"content-length: 72",
				"content-type: application/json",
				"host: 127.0.0.1:8080",
				"user-agent: kkv",
				`x-kkv-offsets: {"` + partition + `":` + offset + `}`,
				"x-kkv-topic: fixture",
				"",
				`{"v":1,"topic":"fixture","offsets":{"` + partition + `":` + offset + `},"updates":{"` + key + `":{}}}`,
			}
		}
		var norm [][]string
		for _, raw := range got {
			head, body, _ := strings.Cut(raw, "\r\n\r\n")
			lines := strings.Split(head, "\r\n")
			for i := range lines[1:] {
				name, value, _ := strings.Cut(lines[1+i], ":")
				lines[1+i] = strings.ToLower(name) + ":" + value
			}
			slices.Sort(lines[1:])
			norm = append(norm, append(lines, "", body))
		}
		wants := [][]string{want("1", "2", "push-0"), want("1", "3", "push-1"), want("0", "3", "push-2")}
		// The recording says 72 for bodies of 67 bytes, its topic having been renamed since.
		for _, w := range wants {
			w[1] = fmt.Sprintf("content-length: %d", len(w[8]))
		}
		if diff := cmp.Diff(wants, norm); diff != "" {
			t.Error(diff)
		}
		if *dials != 1 {
			t.Errorf("%d connections for three POSTs, want 1", *dials)
		}
	})
}

func TestMergedWhileDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeCache(0)
		r := newRig(t, c, Options{}, "a")
		a := r.hosts["a"]
		a.set(answer(503))
		c.apply(mut{0, "k", "0"}, mut{0, "l", "0"})
		pass(time.Hour)
		down := a.take()
		// 1, 2, 4 … 60 s, of each up to a half left out
		if n := len(down); n < 60 || n > 135 {
			t.Errorf("%d tries in an hour", n)
		}
		for i, call := range down {
			if call.body != down[0].body {
				t.Fatalf("try %d: %s, want %s", i, call.body, down[0].body)
			}
			if i > 0 && call.at-down[i-1].at > maxBackoff {
				t.Errorf("a pause of %v", call.at-down[i-1].at)
			}
		}
		for i := range 100 {
			c.apply(mut{0, "k", fmt.Sprint(i + 1)}, mut{1, "m", fmt.Sprint(i + 1)})
		}
		synctest.Wait()
		s := r.d.Stats()
		if s.OK != 0 || s.Failures != uint64(len(down)) || s.Targets[0].Retries != uint64(len(down))-1 || s.Dispatched != 101 {
			t.Errorf("%+v", s)
		}
		target := s.Targets[0]
		target.LastError, _, _ = strings.Cut(target.LastError, ";")
		want := TargetStats{ID: "http://a/updates", URL: "http://a/updates", Ready: true, PendingKeys: 3, Merged: 100 + 99, Retries: uint64(len(down)) - 1,
			OldestPending: time.Hour, Failing: len(down), LastError: "answered 503 Service Unavailable"}
		if diff := cmp.Diff(want, target); diff != "" {
			t.Error(diff)
		}
		a.set(nil)
		pass(maxBackoff)
		// In order of change, k's newest being after l's; partition 0 first, for it has waited longest.
		r.expect("a", "0:101 l,k", "1:99 m")
		s = r.d.Stats()
		if s.OK != 2 || s.Targets[0].Merged != 100+99 || s.Targets[0].PendingKeys != 0 || s.Targets[0].LastError != "" {
			t.Errorf("%+v", s)
		}
		if fails, again := r.logs.count("webhook target fails"), r.logs.count("answers again"); fails != 1 || again != 1 ||
			r.logs.count("\n") != 2 {
			t.Errorf("log:\n%s", r.logs.b.String())
		}
		a.set(answer(503)) // the pauses begin anew
		c.apply(mut{0, "k", "x"})
		pass(time.Second)
		if n := len(a.take()); n < 2 {
			t.Errorf("%d tries in a second", n)
		}
	})
}

func TestFailures(t *testing.T) {
	tests := []struct {
		name   string
		behave func(context.Context, call) (int, error)
		takes  time.Duration
		err    string
	}{
		{"500", answer(500), 0, "answered 500"},
		{"404", answer(404), 0, "answered 404"},
		{"302", answer(302), 0, "redirects are not followed"},
		{"307", answer(307), 0, "redirects are not followed"},
		{"refused", func(context.Context, call) (int, error) { return 0, errors.New("connection refused") }, 0, "refused"},
		{"hangs", hang, 3 * time.Second, "no answer within 3s"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newFakeCache(0)
				r := newRig(t, c, Options{Timeout: 3 * time.Second, Backoff: 2 * time.Second}, "a")
				r.hosts["a"].set(tt.behave)
				c.apply(mut{0, "k", "v"})
				pass(tt.takes)
				s := r.d.Stats()
				if s.Failures != 1 || s.OK != 0 || !strings.Contains(s.Targets[0].LastError, tt.err) {
					t.Errorf("%+v", s)
				}
				r.hosts["a"].set(nil)
				pass(2 * time.Second)
				r.expect("a", "0:0 k", "0:0 k")
				if s := r.d.Stats(); s.OK != 1 || s.Targets[0].PendingKeys != 0 {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

func TestConnectionReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		client, dials := pipeClient(t, func(conn net.Conn) {
			in := bufio.NewReader(conn)
			for {
				req, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, req.Body)
				if n++; n == 1 || n == 3 { // the first on a new connection, and one on a used connection
					return
				}
				_, _ = io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
			}
		})
		c := newFakeCache(0)
		r := newRig(t, c, Options{Client: client, Targets: Static("http://a/")})
		c.apply(mut{0, "k", "v"})
		pass(time.Second)
		if s := r.d.Stats(); s.Failures != 1 || s.OK != 1 {
			t.Errorf("%+v", s)
		}
		// A used connection that the receiver closes is not the receiver's fault: sent again at once.
		c.apply(mut{0, "k", "w"})
		pass(0)
		if s := r.d.Stats(); s.Failures != 1 || s.OK != 2 || n != 4 || *dials != 3 {
			t.Errorf("%+v after %d requests on %d connections", s, n, *dials)
		}
	})
}

func TestSlowTargetDelaysNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeCache(0)
		r := newRig(t, c, Options{}, "slow", "quick", "dead")
		r.hosts["slow"].set(func(ctx context.Context, _ call) (int, error) {
			select {
			case <-time.After(9 * time.Second):
				return 200, nil
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		})
		r.hosts["dead"].set(hang)
		for i := range 90 {
			c.apply(mut{int32(i % 3), fmt.Sprint("k", i%3), fmt.Sprint(i)})
			pass(100 * time.Millisecond)
			r.expect("quick", fmt.Sprintf("%d:%d k%d", i%3, i/3, i%3))
		}
		r.expect("slow", "0:0 k0", "1:29 k1") // the second began at 9 s
		pass(9 * time.Second)
		r.expect("slow", "2:29 k2")
		pass(9 * time.Second)
		r.expect("slow", "0:29 k0")
	})
}

func TestTargetsComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, targets := newFakeCache(0), make(feedOfTargets)
		r := newRig(t, c, Options{Targets: targets}, "a", "b")
		tell := func(ts ...Target) {
			targets <- ts
			synctest.Wait()
		}
		a, notA := Target{"a", "http://a/", true}, Target{"a", "http://a/", false}
		c.apply(mut{0, "before", "1"})
		tell(a, Target{"a", "http://b/", true}) // the first of one ID counts
		c.apply(mut{0, "k", "1"})
		r.expect("a", "0:1 k")
		tell(notA)
		c.apply(mut{0, "k", "2"}, mut{1, "l", "1"})
		c.apply(mut{0, "k", "3"})
		pass(time.Hour)
		r.expect("a")
		if s := r.d.Stats().Targets[0]; s.PendingKeys != 2 || s.OldestPending != time.Hour || s.Ready {
			t.Errorf("%+v", s)
		}
		tell(a)
		r.expect("a", "0:3 k", "1:0 l")

		// One that turns ready, or has moved, is tried at once, whatever the pause was.
		r.hosts["a"].set(answer(500))
		c.apply(mut{0, "k", "4"})
		pass(time.Hour)
		r.hosts["a"].take()
		tell(notA)
		tell(a)
		r.expect("a", "0:4 k")
		pass(time.Second) // and the pauses begin anew
		if n := len(r.hosts["a"].take()); n == 0 {
			t.Error("the pause is as long as before")
		}
		tell(Target{"a", "http://b/", true})
		r.expect("b", "0:4 k")

		// Gone, and back with the same ID: it starts afresh.
		tell(notA)
		c.apply(mut{0, "k", "5"})
		tell()
		if n := len(r.d.Stats().Targets); n != 0 {
			t.Errorf("%d targets", n)
		}
		c.apply(mut{0, "k", "6"})
		r.hosts["a"].set(nil)
		tell(a)
		pass(time.Hour)
		r.expect("a")
		c.apply(mut{0, "m", "1"})
		r.expect("a", "0:7 m")
	})
}

func TestAGoneTargetsPostIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, targets := newFakeCache(0), make(feedOfTargets)
		r := newRig(t, c, Options{Targets: targets, Timeout: time.Hour}, "a")
		cancelled := make(chan time.Duration, 1)
		r.hosts["a"].set(func(ctx context.Context, _ call) (int, error) {
			<-ctx.Done()
			cancelled <- time.Since(r.start)
			return 0, ctx.Err()
		})
		targets <- []Target{{"a", "http://a/", true}}
		synctest.Wait()
		c.apply(mut{0, "k", "1"})
		pass(time.Minute)
		targets <- nil
		if at := <-cancelled; at != time.Minute {
			t.Errorf("cancelled at %v", at)
		}
		synctest.Wait()
		if s := r.d.Stats(); s.Failures != 0 || r.logs.count("\n") != 0 {
			t.Errorf("%+v\n%s", s, r.logs.b.String())
		}
	})
}

func TestRunEndsPromptly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeCache(0)
		r := newRig(t, c, Options{Timeout: time.Hour}, "hangs", "fails")
		r.hosts["hangs"].set(hang)
		r.hosts["fails"].set(answer(500))
		c.apply(mut{0, "k", "1"})
		pass(10 * time.Second)
		r.stop()
		if d := time.Since(r.start); d != 10*time.Second {
			t.Errorf("Run ended after %v", d)
		}
		if r.logs.count("\n") != 1 {
			t.Errorf("log:\n%s", r.logs.b.String())
		}
	})
}

type brokenTargets struct{ err error }

func (b brokenTargets) Run(context.Context, func([]Target)) error { return b.err }

func TestTargetsThatFailEndRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("no permission")
		d := New(Options{Source: newFakeCache(0), Topic: "t", Targets: brokenTargets{broken}})
		if err := d.Run(t.Context()); !errors.Is(err, broken) {
			t.Errorf("Run: %v", err)
		}
	})
}

// The client of our own, on real sockets: no redirect is followed, and a receiver's long answer is no trouble.
func TestOwnClient(t *testing.T) {
	var mu sync.Mutex
	var paths []string
	seen := make(chan struct{}, 10)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		paths = append(paths, req.Method+" "+req.URL.String())
		n := len(paths)
		mu.Unlock()
		if n == 1 {
			http.Redirect(w, req, "/moved", http.StatusTemporaryRedirect)
		} else {
			_, _ = w.Write(make([]byte, 2*maxDrain))
		}
		seen <- struct{}{}
	}))
	defer srv.Close()
	c := newFakeCache(0)
	targets := make(feedOfTargets)
	d := New(Options{Source: c, Topic: "t", Backoff: time.Millisecond, Targets: targets,
		Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- d.Run(ctx) }()
	targets <- []Target{{"a", srv.URL + "/updates?x=1", true}}
	targets <- []Target{{"a", srv.URL + "/updates?x=1", true}} // taken once the first has been set
	c.apply(mut{0, "k", "1"})
	<-seen
	<-seen
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	want := []string{"POST /updates?x=1", "POST /updates?x=1"}
	if diff := cmp.Diff(want, paths); diff != "" {
		t.Error(diff)
	}
}

func TestPause(t *testing.T) {
	for _, tt := range []struct {
		base     time.Duration
		failures int
		most     time.Duration
	}{
		{time.Second, 1, time.Second},
		{time.Second, 2, 2 * time.Second},
		{time.Second, 6, 32 * time.Second},
		{time.Second, 7, time.Minute},
		{time.Second, 1 << 40, time.Minute},
		{time.Hour, 3, time.Hour},
		{1, 1, 1},
	} {
		for range 100 {
			if d := pause(tt.base, tt.failures); d < tt.most/2 || d > tt.most || d <= 0 {
				t.Errorf("pause(%v, %d) = %v", tt.base, tt.failures, d)
			}
		}
	}
}
