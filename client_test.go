package kkv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kkv-project/kkv/internal/cachetest"
	"github.com/kkv-project/kkv/internal/wire"
)

func TestOptions(t *testing.T) {
	f := func(env string, servers []string, want ...string) {
		t.Helper()
		t.Setenv("KKV_SERVER", env)
		c, err := NewClient(Options{Servers: servers})
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(c.servers, want) {
			t.Errorf("servers %q, want %q", c.servers, want)
		}
	}
	f("", nil, "http://127.0.0.1:8091")
	f("http://x:1/, https://y/base/", nil, "http://x:1", "https://y/base")
	f("http://x", []string{"http://z"}, "http://z")

	bad := func(server, want string) {
		t.Helper()
		_, err := NewClient(Options{Servers: []string{server}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q in it", server, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error tells the password: %v", server, err)
		}
	}
	bad("127.0.0.1:8091", "write it like http://")
	bad("localhost:8091", "write it like http://")
	bad("", "write it like http://")
	bad("ftp://me:secret@x", "write it like http://")
	bad("http://me:secret@x:y", "write it like http://")
	bad("http://x?topic=t", "query")
}

// Every key comes back as it went, through every part of a URL that could eat it.
func TestClientKeys(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
		c := newClient(t, options(n))
		keys := []string{"A", "", ".", "..", "...", "a/b", "a//b", "/", "//", "a/../b", "%", "%2F", "a b", "a+b", "a&b=c",
			"?", "#", "ü", "日本", "\x00", "\xff\xfe", "keys/", "~", "a;b", ":", strings.Repeat("long", 500)}
		for _, key := range keys {
			if _, err := c.Put(t.Context(), key, []byte("value of "+key)); err != nil {
				t.Errorf("put %q: %v", key, err)
			}
		}
		equal(t, "keys", len(s.Keys()), len(keys))
		for _, key := range keys {
			if v, _ := s.Value(key); v != "value of "+key {
				t.Errorf("key %q arrived with %q", key, v)
			}
			e, err := c.Get(t.Context(), key)
			if err != nil || string(e.Value) != "value of "+key || e.Key != key {
				t.Errorf("get %q: %q, %v", key, e.Value, err)
			}
			got := 0
			for ch, err := range c.Watch(t.Context(), WatchOptions{Key: key}) {
				if err != nil {
					t.Fatal(err)
				}
				if ch.Kind == Synced {
					break
				}
				got++
				if key != "" && ch.Key != key {
					t.Errorf("watch of %q put %q", key, ch.Key)
				}
			}
			if key != "" {
				equal(t, "entries of "+key, got, 1)
			}
			if _, err := c.Delete(t.Context(), key); err != nil {
				t.Errorf("delete %q: %v", key, err)
			}
			if _, err := c.Get(t.Context(), key); !errors.Is(err, ErrNotFound) {
				t.Errorf("get %q after delete: %v", key, err)
			}
		}
		equal(t, "keys left", len(s.Keys()), 0)
	})
}

func TestClientEntry(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
		part, off := s.Put("k", "", wire.Header{Key: "Trace", Value: []byte{1, 2}}, wire.Header{Key: "content-type", Value: []byte("x/y")},
			wire.Header{Key: "Trace", Value: []byte{3}})
		got, err := newClient(t, options(n)).Get(t.Context(), "k")
		want := Entry{Key: "k", Value: []byte{}, Partition: part, Offset: off, Timestamp: time.UnixMilli(time.Now().UnixMilli()),
			Headers: []Header{{"Content-Type", []byte("x/y")}, {"Trace", []byte{1, 2}}, {"Trace", []byte{3}}}}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v\nwant %+v", got, err, want)
		}
	})
}

func TestClientPosition(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
		var asked []string
		s.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
			asked = append(asked, r.Method+" "+r.Header.Get("Kkv-At-Least"))
			return false
		})
		c := newClient(t, options(n))
		if !c.Position().IsZero() {
			t.Error("a new client knows a position")
		}
		s.Put("other", "1")
		_, err := c.Get(t.Context(), "absent") // that it is absent at this position is knowledge, too
		if !errors.Is(err, ErrNotFound) || c.Position().String() != s.Position() {
			t.Errorf("%v, position %q, want %q", err, c.Position(), s.Position())
		}
		s.Hold(true)
		before := c.Position()
		p, err := c.Put(t.Context(), "k", []byte("v")) // 202
		if err != nil || before.Covers(p) || !c.Position().Covers(p) || !c.Position().Covers(before) {
			t.Errorf("put: %q, %v; client at %q", p, err, c.Position())
		}
		want := c.Position()
		if _, err := c.Get(t.Context(), "k"); !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
		equal(t, "last request", asked[len(asked)-1], "GET "+want.String())
		equal(t, "first request", asked[0], "GET ")
	})
}

func TestStatusErrors(t *testing.T) {
	for _, c := range []struct {
		status int
		typ    string
		want   error
	}{
		{503, "not-ready", ErrNotReady}, {404, "not-found", ErrNotFound}, {504, "behind", ErrBehind}, {503, "too-stale", ErrTooStale},
		{409, "position-from-another-topic", ErrReset}, {409, "position-truncated", ErrReset}, {405, "read-only", ErrReadOnly},
		{504, "outcome-unknown", ErrOutcomeUnknown}, {400, "bad-key", nil}, {404, "no-such-topic", nil}, {404, "", nil},
	} {
		bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
			s.Put("k", "v")
			s.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("Retry-After", "3")
				w.Header().Set("Kkv-Position", s.Position())
				cachetest.Problem(w, c.status, c.typ, "do this")
				return true
			})
			_, err := newClient(t, options(n)).Get(t.Context(), "k")
			var se *StatusError
			if !errors.As(err, &se) {
				t.Fatalf("%T %v", err, err)
			}
			if got := se.Unwrap(); got != c.want {
				t.Errorf("%d %s is %v, want %v", c.status, c.typ, got, c.want)
			}
			if se.Status != c.status || se.name() != c.typ || se.Detail != "do this" || se.RetryAfter != 3*time.Second ||
				se.Position.String() != s.Position() {
				t.Errorf("%+v", se)
			}
			if !strings.Contains(err.Error(), `kkv: get "k": the server answered `) || !strings.HasSuffix(err.Error(), "do this") {
				t.Error(err)
			}
		})
	}
}

// answer makes a host that answers every request with status, and counts them.
func answer(n *cachetest.Network, name string, status int, typ string) *int {
	count := new(int)
	n.Serve(name, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		*count++
		if typ == "plain" {
			http.Error(w, "a proxy says no", status)
			return
		}
		cachetest.Problem(w, status, typ, "")
	}))
	return count
}

func TestReadsTryServersInTurn(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
		s.Put("k", "v")
		loading := answer(n, "loading", 503, "not-ready")
		n.Serve("cut", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "half")
			panic(http.ErrAbortHandler)
		}))
		c := newClient(t, options(n, "http://gone", "http://loading", "http://cut", "http://a"))
		for range 3 {
			if e, err := c.Get(t.Context(), "k"); err != nil || string(e.Value) != "v" {
				t.Fatalf("%q, %v", e.Value, err)
			}
		}
		equal(t, "requests to the one that loads", *loading, 1) // the one that answered is asked first
		n.Stop("a")
		if _, err := c.Get(t.Context(), "k"); err == nil {
			t.Error("no server, no error")
		}
		forbidden := answer(n, "forbidden", 403, "plain")
		c = newClient(t, options(n, "http://forbidden", "http://loading"))
		_, err := c.Get(t.Context(), "k")
		if err == nil || !strings.Contains(err.Error(), "403 Forbidden: a proxy says no") || *forbidden != 1 || *loading != 2 {
			t.Errorf("%v after %d and %d requests", err, *forbidden, *loading)
		}
	})
}

// A server that accepts and says nothing costs one call with a deadline, not all of them.
func TestNextCallLeavesAServerThatHangs(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
		s.Put("k", "v")
		n.Serve("hung", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
		c := newClient(t, options(n, "http://hung", "http://a"))
		get := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			_, err := c.Get(ctx, "k")
			return err
		}
		if err := get(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the first get: %v", err)
		}
		for range 3 {
			if err := get(); err != nil {
				t.Errorf("a later get: %v", err)
			}
		}
	})
}

// A write goes to a second server only if the first surely did nothing with it.
func TestWriteOutcomes(t *testing.T) {
	for _, c := range []struct {
		first   string
		status  int
		typ     string
		want    error
		written bool
	}{
		{first: "gone", written: true},
		{first: "loading", status: 503, typ: "not-ready", written: true},
		{first: "away", status: 503, typ: "not-sent", written: true},
		{first: "proxy", status: 503, typ: "plain", want: ErrOutcomeUnknown},
		{first: "proxy", status: 502, typ: "plain", want: ErrOutcomeUnknown},
		{first: "late", status: 504, typ: "outcome-unknown", want: ErrOutcomeUnknown},
		{first: "cut", want: ErrOutcomeUnknown},
		{first: "readonly", status: 405, typ: "read-only", want: ErrReadOnly},
	} {
		t.Run(fmt.Sprint(c.first, c.status), func(t *testing.T) {
			bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
				cuts := 0
				switch {
				case c.status != 0:
					answer(n, c.first, c.status, c.typ)
				case c.first == "cut":
					n.Serve("cut", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
						cuts++
						panic(http.ErrAbortHandler)
					}))
				}
				cl := newClient(t, options(n, "http://"+c.first, "http://a"))
				p, err := cl.Put(t.Context(), "k", []byte("v"))
				if !errors.Is(err, c.want) || p.IsZero() != (c.want != nil) {
					t.Errorf("%q, %v; want %v", p, err, c.want)
				}
				if _, ok := s.Value("k"); ok != c.written {
					t.Errorf("written on the second: %v, want %v", ok, c.written)
				}
				if c.first == "cut" {
					equal(t, "requests", cuts, 1)
				}
			})
		})
	}
}

func TestWriteWithoutContext(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
		ctx, cancel := context.WithCancel(t.Context())
		c := newClient(t, options(n))
		cancel()
		if _, err := c.Put(ctx, "k", nil); !errors.Is(err, context.Canceled) || errors.Is(err, ErrOutcomeUnknown) {
			t.Errorf("not sent, so its outcome is known: %v", err)
		}
		s.Intercept(func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true })
		ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := c.Put(ctx, "k", nil)
		if !errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

// A record has the headers that the caller gave it: none.
func TestPutSendsNoContentType(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
		got := "no request"
		s.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
			got = strings.Join(r.Header.Values("Content-Type"), ",")
			return false
		})
		if _, err := newClient(t, options(n)).Put(t.Context(), "k", []byte("v")); err != nil {
			t.Fatal(err)
		}
		equal(t, "Content-Type", got, "")
	})
}

// A wrong topic is not an absent key.
func TestUnknownTopicIsNotAnAbsentKey(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, _ *cachetest.Server) {
		o := options(n)
		o.Topic = "u"
		_, err := newClient(t, o).Get(t.Context(), "k")
		var se *StatusError
		if !errors.As(err, &se) || se.Status != 404 || errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "this server serves t") {
			t.Error(err)
		}
	})
}

func TestTopicIsLearnt(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
		o := options(n)
		o.Topic = ""
		s.Put("k", "v")
		asked := 0
		s.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/v1/topics" {
				asked++
			}
			return false
		})
		c := newClient(t, o)
		for range 2 {
			if _, err := c.Get(t.Context(), "k"); err != nil {
				t.Fatal(err)
			}
		}
		equal(t, "asked", asked, 1)
		equal(t, "mirror", show(ready(t, o)), "k=v")

		s.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
			_, _ = io.WriteString(w, `{"topics":[{"topic":"t"},{"topic":"u"}]}`)
			return true
		})
		_, err := newClient(t, o).Get(t.Context(), "k")
		if err == nil || !strings.Contains(err.Error(), "2 topics, not one; set Options.Topic") {
			t.Error(err)
		}
		if err := open(t, o).Ready(t.Context()); !errors.Is(err, errTopics) {
			t.Error(err)
		}
	})
}

func TestClientReady(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
		s.SetReady(false)
		c := newClient(t, options(n, "http://gone", "http://a"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := c.Ready(ctx); !errors.Is(err, ErrNotReady) || !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		start := time.Now()
		time.AfterFunc(time.Minute, func() { s.SetReady(true) })
		if err := c.Ready(t.Context()); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d > time.Minute+startupBackoff {
			t.Errorf("ready only after %v", d)
		}
		s.Token = "right"
		o := options(n)
		o.Token = "wrong"
		var se *StatusError
		if err := newClient(t, o).Ready(t.Context()); !errors.As(err, &se) || se.Status != 401 {
			t.Error(err)
		}
		o.Token = "right"
		if err := newClient(t, o).Ready(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
