package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kkv-project/kkv"
	"github.com/kkv-project/kkv/test/harness"
)

// heard collects what a mirror's callback is told, as "key=value" and "-key".
type heard struct {
	mu    sync.Mutex
	lines []string
}

func (h *heard) add(u kkv.Update) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if u.Deleted {
		h.lines = append(h.lines, "-"+u.Key)
		return
	}
	h.lines = append(h.lines, u.Key+"="+string(u.Value))
}

// take waits for as many lines as are wanted and compares them, in any order: there are three partitions.
func (h *heard) take(t *testing.T, what string, want ...string) {
	t.Helper()
	slices.Sort(want)
	harness.Eventually(t, harness.StartTimeout, nil, func() error {
		h.mu.Lock()
		defer h.mu.Unlock()
		got := slices.Sorted(slices.Values(h.lines))
		if !slices.Equal(got, want) {
			return fmt.Errorf("%s: heard %q, want %q", what, got, want)
		}
		h.lines = nil
		return nil
	})
}

// testMirror: a Go mirror of two replicas, of which one is killed and one is stopped and started, is told of exactly what changed.
func testMirror(t *testing.T, e env) {
	d := e.dev(t)
	a := harness.StartServe(t, d.Kafka, d.Topic, nil)
	b := harness.StartServe(t, d.Kafka, d.Topic, nil)
	a.AwaitReady(t)
	b.AwaitReady(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	writer, err := kkv.NewClient(kkv.Options{Servers: []string{d.Cache}, Topic: d.Topic})
	if err != nil {
		t.Fatal(err)
	}
	put := func(keys ...string) {
		for _, key := range keys {
			if name, deleted := strings.CutPrefix(key, "-"); deleted {
				_, err = writer.Delete(ctx, name)
			} else {
				name, value, _ := strings.Cut(key, "=")
				_, err = writer.Put(ctx, name, []byte(value))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	put("same=1", "gone=1", "changed=1")
	m, err := kkv.Open(ctx, kkv.Options{Servers: []string{a.URL, b.URL}, Topic: d.Topic})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	if err := m.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	var h heard
	defer m.OnUpdate(h.add)()

	a.Kill()
	put("-gone", "changed=2", "new=1")
	h.take(t, "the other replica", "-gone", "changed=2", "new=1")

	if err := b.Stop(30 * time.Second); err != nil {
		t.Fatal(err)
	}
	put("-new", "changed=3", "same=2", "same=1")
	c := harness.StartServeOn(t, strings.TrimPrefix(b.URL, "http://"), d.Kafka, d.Topic, nil)
	c.AwaitReady(t)
	h.take(t, "after a restart", "-new", "changed=3") // same is as it was
	put("last=1")
	if err := m.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	var state []string
	for key, entry := range m.All("") {
		state = append(state, key+"="+string(entry.Value))
	}
	if got := strings.Join(state, " "); got != "changed=3 last=1 same=1" {
		t.Errorf("the mirror shows %s", got)
	}
	if st := m.Stats(); st.Resets != 0 || !st.Live {
		t.Errorf("%+v", st)
	}
}
