package kkv

import (
	"bytes"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/kkv-project/kkv/internal/cachetest"
)

// bubble runs f in virtual time, with a network on which host "a" is a cache of the topic "t".
func bubble(t *testing.T, f func(t *testing.T, n *cachetest.Network, s *cachetest.Server)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := &cachetest.Network{}
		defer n.Close()
		s := cachetest.New("t")
		n.Serve("a", s)
		f(t, n, s)
	})
}

func options(n *cachetest.Network, servers ...string) Options {
	if len(servers) == 0 {
		servers = []string{"http://a"}
	}
	return Options{Servers: servers, Topic: "t", HTTPClient: n.Client()}
}

func newClient(t *testing.T, o Options) *Client {
	t.Helper()
	c, err := NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// open is a mirror that ends with the test and is not ready yet.
func open(t *testing.T, o Options) *Mirror {
	t.Helper()
	m, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

func ready(t *testing.T, o Options) *Mirror {
	t.Helper()
	m := open(t, o)
	if err := m.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	return m
}

// show is a mirror's state, as "key=value" in key order.
func show(m *Mirror) string {
	var b bytes.Buffer
	for k, e := range m.All("") {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(k + "=" + string(e.Value))
	}
	return b.String()
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}

// journal keeps what callbacks heard.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(u Update) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if u.Deleted {
		j.lines = append(j.lines, "-"+u.Key)
	} else {
		j.lines = append(j.lines, u.Key+"="+string(u.Value))
	}
}

// take is what was heard since the last take, once the bubble is quiet.
func (j *journal) take() string {
	synctest.Wait()
	j.mu.Lock()
	defer j.mu.Unlock()
	var b bytes.Buffer
	for i, l := range j.lines {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(l)
	}
	j.lines = nil
	return b.String()
}

// logs collects the lines of a logger.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logs) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}
