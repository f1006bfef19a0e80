package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kkv-project/kkv/internal/feed"
	"github.com/kkv-project/kkv/internal/position"
	"github.com/kkv-project/kkv/internal/wire"
)

// pass lets d of the bubble's time go by, and all that is to happen then happen.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// mut is a record.
type mut struct {
	partition  int32
	key, value string // a value of "" is a tombstone
}

// fakeCache is a Source with the parts of a cache that matter here.
type fakeCache struct {
	remember bool // ChangedSince names deleted keys, too
	horizons bool // ChangedSince knows nothing from before a reset
	feed     *feed.Feed

	mu      sync.Mutex
	topicID byte
	next    []int64
	keys    map[string]feed.Change // Deleted for a tombstone
	history bool
	events  int               // batches published
	horizon position.Position // where the state last began anew
}

func newFakeCache(ringBytes int) *fakeCache {
	return &fakeCache{feed: feed.New(ringBytes), topicID: 1, next: make([]int64, 3), keys: map[string]feed.Change{}}
}

func (c *fakeCache) Reader() *feed.Reader { return c.feed.Reader() }

func (c *fakeCache) ChangedSince(since position.Position, f func(feed.Change)) (position.Position, string, *feed.Reader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	reset := ""
	if !since.IsZero() && (!c.position().Covers(since) || c.horizons && !since.Covers(c.horizon)) {
		since, reset = position.Position{}, "topic-recreated"
	}
	for _, ch := range c.keys {
		if (ch.Deleted && (!c.remember || since.IsZero())) || ch.Offset < since.Partition(ch.Partition).Next {
			continue
		}
		scratch := bytes.Clone(ch.Key)
		ch.Key = scratch
		f(ch)
		clear(scratch) // valid only during f
	}
	return c.position(), reset, c.feed.Reader()
}

func (c *fakeCache) Newest(keys [][]byte) ([]feed.Change, position.Position) {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]feed.Change, len(keys))
	for i, key := range keys {
		if ch, ok := c.keys[string(key)]; ok && !ch.Deleted {
			out[i] = ch
		} else {
			out[i] = feed.Change{Key: key, Deleted: true}
		}
	}
	return out, c.position()
}

func (c *fakeCache) position() position.Position {
	parts := make([]position.Partition, len(c.next))
	for i, n := range c.next {
		parts[i].Next = n
	}
	return position.New([16]byte{c.topicID}, time.Time{}, parts)
}

// apply makes one batch of ms, and returns its changes.
func (c *fakeCache) apply(ms ...mut) []feed.Change {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := &feed.Batch{History: c.history}
	for _, m := range ms {
		ch := feed.Change{Key: []byte(m.key), Value: []byte(m.value), Partition: m.partition, Offset: c.next[m.partition]}
		if m.value == "" {
			ch.Value, ch.Deleted = nil, true
		}
		old, ok := c.keys[m.key]
		ch.Equal = ok && old.Partition == m.partition && old.Deleted == ch.Deleted && bytes.Equal(old.Value, ch.Value)
		c.next[m.partition]++
		c.keys[m.key] = ch
		b.Changes = append(b.Changes, ch)
	}
	b.Position = c.position()
	c.events++
	c.feed.Publish(b)
	return b.Changes
}

// reset replaces the state as a whole: keep says which keys stay. newTopic: their records start again at 0.
func (c *fakeCache) reset(newTopic bool, keep func(key string) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if newTopic {
		c.topicID++
		c.next = make([]int64, len(c.next))
	}
	for _, key := range slices.Sorted(maps.Keys(c.keys)) {
		ch := c.keys[key]
		if ch.Deleted || !keep(key) {
			delete(c.keys, key)
			continue
		}
		if newTopic {
			ch.Offset = c.next[ch.Partition]
			c.next[ch.Partition]++
			c.keys[key] = ch
		}
	}
	c.events++
	for i := range c.next { // so that no position from before is one after
		if c.horizons {
			c.next[i]++
		}
	}
	c.horizon = c.position()
	c.feed.Publish(&feed.Batch{Reset: "topic-recreated", Position: c.horizon})
}

func (c *fakeCache) get(key string) (value string, found bool, next []int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch, ok := c.keys[key]
	return string(ch.Value), ok && !ch.Deleted, slices.Clone(c.next)
}

// call is a POST as a receiver got it.
type call struct {
	at        time.Duration // since the rig's start
	partition int32
	offset    int64
	keys      []string
	body      string
	events    int // of the cache when it came in
	header    http.Header
	v2        bodyV2
}

// bodyV2 is a v2 body as a receiver reads it.
type bodyV2 struct {
	ID, Topic, Reset, Position string
	Synced                     bool
	Changes                    []json.RawMessage

	lines  []wire.Change
	epochs []int32
}

func (b *bodyV2) parse(t *testing.T) {
	for _, raw := range b.Changes {
		c, err := wire.ParseNDJSON(raw)
		if err != nil {
			t.Error(err)
		}
		var e struct{ Epoch *int32 }
		if err := json.Unmarshal(raw, &e); err != nil || e.Epoch == nil {
			t.Errorf("epoch of %s: %v", raw, err)
			continue
		}
		b.lines, b.epochs = append(b.lines, c), append(b.epochs, *e.Epoch)
	}
}

func (c call) String() string {
	if c.v2.ID != "" {
		var s []string
		if c.v2.Reset != "" {
			s = append(s, "reset")
		}
		for _, l := range c.v2.lines {
			s = append(s, fmt.Sprintf("%s=%s@%d:%d", l.Key, l.Value, l.Partition, l.Offset))
		}
		if c.v2.Synced {
			s = append(s, "synced")
		}
		return strings.Join(s, " ")
	}
	return fmt.Sprintf("%d:%d %s", c.partition, c.offset, strings.Join(c.keys, ","))
}

// receiver answers 204 at once, or what behave says after having looked.
type receiver struct {
	mu     sync.Mutex
	behave func(ctx context.Context, c call) (status int, err error)
	calls  []call
}

func (r *receiver) set(behave func(context.Context, call) (int, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.behave = behave
}

// take returns the calls since the last take.
func (r *receiver) take() []call {
	r.mu.Lock()
	defer r.mu.Unlock()
	cs := r.calls
	r.calls = nil
	return cs
}

func (r *receiver) strings() []string {
	var s []string
	for _, c := range r.take() {
		s = append(s, c.String())
	}
	return s
}

func answer(status int) func(context.Context, call) (int, error) {
	return func(context.Context, call) (int, error) { return status, nil }
}

func hang(ctx context.Context, _ call) (int, error) {
	<-ctx.Done()
	return 0, ctx.Err()
}

// rig is a Dispatcher between a fakeCache and receivers in memory, by host.
type rig struct {
	t     *testing.T
	cache *fakeCache
	hosts map[string]*receiver
	d     *Dispatcher
	start time.Time
	logs  *logs
	stop  func() // ends Run and waits for it
}

// newRig needs a bubble. Without o.Targets there are static ones at http://<host>/updates, else hosts answer
// what o.Targets names.
func newRig(t *testing.T, cache *fakeCache, o Options, hosts ...string) *rig {
	t.Helper()
	r := &rig{t: t, cache: cache, hosts: map[string]*receiver{}, start: time.Now(), logs: &logs{}}
	var urls []string
	for _, h := range hosts {
		r.hosts[h] = &receiver{}
		urls = append(urls, "http://"+h+"/updates")
	}
	o.Source, o.Topic, o.Logger = cache, "fixture", slog.New(slog.NewTextHandler(r.logs, nil))
	if o.Targets == nil {
		o.Targets = Static(urls...)
	}
	if o.Client == nil {
		o.Client = &http.Client{Transport: r}
	}
	r.d = New(o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.d.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(r.stop)
	synctest.Wait()
	return r
}

func (r *rig) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	c := call{at: time.Since(r.start), body: string(body), header: req.Header}
	if r.d.o.V2 {
		if err := json.Unmarshal(body, &c.v2); err != nil || c.v2.Topic != "fixture" || c.v2.ID != req.Header.Get("Webhook-Id") {
			r.t.Errorf("body %s: %v", body, err)
		}
		c.v2.parse(r.t)
		return r.answer(req, c)
	}
	var b struct {
		V       int
		Topic   string
		Offsets map[string]int64
		Updates json.RawMessage
	}
	if err := json.Unmarshal(body, &b); err != nil || b.V != 1 || b.Topic != "fixture" || len(b.Offsets) != 1 {
		r.t.Errorf("body %s: %v", body, err)
	}
	for p, o := range b.Offsets {
		_, _ = fmt.Sscan(p, &c.partition)
		c.offset = o
	}
	c.keys = members(r.t, b.Updates)
	if got, want := req.Header.Get("x-kkv-offsets"), fmt.Sprintf(`{"%d":%d}`, c.partition, c.offset); got != want {
		r.t.Errorf("x-kkv-offsets %s, want %s", got, want)
	}
	return r.answer(req, c)
}

// answer hands c to its host, and answers as that wants to.
func (r *rig) answer(req *http.Request, c call) (resp *http.Response, err error) {
	r.cache.mu.Lock()
	c.events = r.cache.events
	r.cache.mu.Unlock()

	h := r.hosts[req.URL.Host]
	h.mu.Lock()
	h.calls = append(h.calls, c)
	behave := h.behave
	h.mu.Unlock()
	status := http.StatusNoContent
	if behave != nil {
		if status, err = behave(req.Context(), c); err != nil {
			return nil, err
		}
	}
	return &http.Response{StatusCode: status, Header: http.Header{"Location": {"http://elsewhere/"}},
		Body: io.NopCloser(strings.NewReader("some body")), Request: req}, nil
}

// members are the names in a JSON object, in order.
func members(t *testing.T, object json.RawMessage) (names []string) {
	dec := json.NewDecoder(bytes.NewReader(object))
	if _, err := dec.Token(); err != nil {
		t.Error(err)
	}
	for dec.More() {
		name, _ := dec.Token()
		var v struct{}
		if err := dec.Decode(&v); err != nil {
			t.Error(err)
		}
		names = append(names, name.(string))
	}
	return names
}

// expect fails unless the host got exactly these calls since it was last asked.
func (r *rig) expect(host string, want ...string) {
	r.t.Helper()
	synctest.Wait()
	if got := r.hosts[host].strings(); !slices.Equal(got, want) {
		r.t.Errorf("%s got %q, want %q", host, got, want)
	}
}

// logs collects log lines.
type logs struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), s)
}

// feedOfTargets is a Targets that a test drives.
type feedOfTargets chan []Target

func (l feedOfTargets) Run(ctx context.Context, set func([]Target)) error {
	for {
		select {
		case ts := <-l:
			set(ts)
		case <-ctx.Done():
			return nil
		}
	}
}
