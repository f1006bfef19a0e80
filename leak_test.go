package kkv

import (
	"context"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/kkv-project/kkv/internal/cachetest"
)

// goroutines are the stacks of those in this package or of its connections.
func goroutines() (n int, stacks string) {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var kept []string
	for g := range strings.SplitSeq(string(buf), "\n\n") {
		if strings.Contains(g, "kkv.(*") || strings.Contains(g, "net/http.(*persistConn)") {
			kept = append(kept, g)
		}
	}
	return len(kept), strings.Join(kept, "\n\n")
}

// Nothing goes on after Close, nor after a watch or a list that its reader left, on real connections.
func TestNoGoroutinesLeft(t *testing.T) {
	before, _ := goroutines()
	s := cachetest.New("t")
	s.Batch("a", "1", "b", "2")
	h := httptest.NewServer(s)
	defer h.Close()
	for range 10 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		m, err := Open(ctx, Options{Servers: []string{h.URL}})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		stop := m.OnUpdate(func(Update) {})
		if _, err := m.Put(ctx, "k", nil); err != nil {
			t.Fatal(err)
		}
		for _, err := range m.Client().Watch(ctx, WatchOptions{}) {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		for _, err := range m.Client().List(ctx, "") {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		stop()
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		cancel()
	}
	// A connection's goroutines end a moment after it was closed.
	for deadline := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		after, stacks := goroutines()
		if after <= before {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines before, %d after:\n%s", before, after, stacks)
		}
	}
}
