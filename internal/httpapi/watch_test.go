package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kkv-project/kkv/internal/cache"
	"github.com/kkv-project/kkv/internal/ingest"
	"github.com/kkv-project/kkv/internal/position"
	"github.com/kkv-project/kkv/internal/wire"
)

// follower reads a watch as NDJSON.
type follower struct {
	t     *testing.T
	lines *bufio.Scanner
	resp  *http.Response
}

func (g *rig) follow(query string, header ...string) *follower {
	g.t.Helper()
	ctx, cancel := context.WithCancel(g.t.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", "http://localhost:8091/v1/topics/fixture/watch"+query, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := g.client.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { cancel(); _ = resp.Body.Close() })
	if resp.StatusCode != 200 {
		g.t.Fatalf("watch%s: %s", query, resp.Status)
	}
	return &follower{g.t, bufio.NewScanner(resp.Body), resp}
}

// next is the next line, progress left out, as "type key=value".
func (f *follower) next() (wire.Change, string) {
	f.t.Helper()
	for f.lines.Scan() {
		c, err := wire.ParseNDJSON(f.lines.Bytes())
		if err != nil {
			f.t.Fatal(err)
		}
		if c.Type != wire.Progress {
			s := c.Type
			if c.HasKey() {
				s += " " + string(c.Key)
			}
			if c.Value != nil {
				s += "=" + string(c.Value)
			}
			return c, s
		}
	}
	f.t.Fatalf("the watch ended: %v", f.lines.Err())
	panic("unreachable")
}

func (f *follower) want(want ...string) (last wire.Change) {
	f.t.Helper()
	for _, w := range want {
		c, got := f.next()
		if got != w {
			f.t.Fatalf("watch: %q, want %q", got, w)
		}
		last = c
	}
	return last
}

func TestWatchStateThenLive(t *testing.T) {
	inBubble(t, func(t *testing.T, g *rig) {
		g.put(0, "a", []byte("1"))
		g.put(1, "b", []byte("2"))
		f := g.follow("")
		if ct := f.resp.Header.Get("Content-Type"); ct != "application/x-ndjson" || f.resp.Header.Get("Cache-Control") != "no-store" || f.resp.Header.Get("X-Accel-Buffering") != "no" {
			t.Errorf("headers %v", f.resp.Header)
		}
		synced := f.want("put a=1", "put b=2", "synced")
		if synced.Keys != 2 || synced.Position == "" {
			t.Errorf("synced %+v", synced)
		}
		g.put(0, "a", []byte("3"))
		live := f.want("put a=3")
		from, _ := position.Parse(synced.Position)
		to, err := position.Parse(live.Position)
		if err != nil || !to.Covers(from) || to.Partition(0).Next != live.Offset+1 {
			t.Errorf("synced at %v, then %v, %v", from, to, err)
		}
		g.put(1, "b", nil)
		g.put(1, "b", nil) // a tombstone on nothing is no change
		g.put(0, "c", []byte{})
		f.want("delete b", "put c=")
	})
}

func TestWatchFilters(t *testing.T) {
	inBubble(t, func(t *testing.T, g *rig) {
		for _, k := range []string{"a", "ab", "b"} {
			g.put(0, k, []byte("1"))
		}
		prefix, key, bare, now := g.follow("?prefix=a"), g.follow("?key=a"), g.follow("?values=false"), g.follow("?since=now")
		prefix.want("put a=1", "put ab=1", "synced")
		key.want("put a=1", "synced")
		bare.want("put a", "put ab", "put b", "synced")
		now.want("synced")
		for _, k := range []string{"b", "ab", "a"} {
			g.put(0, k, []byte("2"))
		}
		prefix.want("put ab=2", "put a=2")
		key.want("put a=2")
		bare.want("put b", "put ab", "put a")
		now.want("put b=2", "put ab=2", "put a=2")
		g.get("/v1/topics/fixture/watch?values=some").wantProblem(t, 400, "bad-request")
		g.get("/v1/topics/fixture/watch?since=x").wantProblem(t, 400, "bad-position")
		g.get("/v1/topics/fixture/watch?since="+position.FromWrite([16]byte{1}, 0, 1).String()).wantProblem(t, 400, "bad-position")
	})
}

// TestWatchAtLeast: the state that a watch begins with is as fresh as was asked for.
func TestWatchAtLeast(t *testing.T) {
	inBubble(t, func(t *testing.T, g *rig) {
		g.put(0, "a", []byte("1"))
		g.follow("", "Kkv-At-Least", "0:0").want("put a=1", "synced")
		g.follow("?consistency=fresh").want("put a=1", "synced")
		g.get("/v1/topics/fixture/watch?atLeast=0:7&timeout=100ms").wantProblem(t, 504, "behind")
	})
}

func TestWatchProgress(t *testing.T) {
	inBubble(t, func(t *testing.T, g *rig) {
		f := g.follow("?prefix=mine")
		f.want("synced")
		g.put(0, "other", []byte("1"))
		start := time.Now()
		for i, want := range []time.Duration{progressAfter, progressAfter + progressEvery, progressAfter + 2*progressEvery} {
			if !f.lines.Scan() {
				t.Fatal(f.lines.Err())
			}
			c, err := wire.ParseNDJSON(f.lines.Bytes())
			p, err2 := position.Parse(c.Position)
			if err != nil || err2 != nil || c.Type != wire.Progress || p.Partition(0).Next != 1 || c.AgeMs < 0 || c.AgeMs > 1000 {
				t.Errorf("%s", f.lines.Bytes())
			}
			if d := time.Since(start); d != want {
				t.Errorf("progress %d after %v, want %v", i, d, want)
			}
		}
	})
}

// TestWatchResumes: exactly what changed since, without IDs, then synced, then what is live.
func TestWatchResumes(t *testing.T) {
	inBubble(t, func(t *testing.T, g *rig) {
		for _, k := range []string{"a", "ab", "b", "gone", "a-gone"} {
			g.put(0, k, []byte("1"))
		}
		at := g.get("/v1/topics/fixture/keys/a").Header.Get("Kkv-Position")
		if c := g.follow("?since=" + at).want("synced"); c.Keys != 0 || c.Position == "" {
			t.Errorf("nothing has changed: %+v", c)
		}
		g.put(1, "new", []byte("1"))
		g.put(0, "ab", []byte("2"))
		g.put(0, "ab", []byte("3"))
		g.put(0, "gone", nil)
		g.put(0, "a-gone", nil)
		all, prefix, key, bare := g.follow("?since="+at), g.follow("?prefix=a&since="+at), g.follow("?key=ab&since="+at), g.follow("?values=false", "Last-Event-ID", at)
		for range 2 {
			if c, text := all.next(); text != "put new=1" && text != "put ab=3" || c.Position != "" {
				t.Errorf("all: %q at %q", text, c.Position)
			}
		}
		synced := all.want("delete a-gone", "delete gone", "synced")
		if synced.Keys != 4 || synced.Position == "" {
			t.Errorf("synced %+v", synced)
		}
		prefix.want("put ab=3", "delete a-gone", "synced")
		key.want("put ab=3", "synced")
		for range 2 {
			if _, text := bare.next(); text != "put new" && text != "put ab" {
				t.Errorf("bare: %q", text)
			}
		}
		bare.want("delete a-gone", "delete gone", "synced")
		g.put(0, "ab", []byte("4"))
		for _, f := range []*follower{all, prefix, key} {
			if c := f.want("put ab=4"); c.Position == "" {
				t.Error("a live event without a position")
			}
		}
		g.follow("?since="+synced.Position).want("put ab=4", "synced")
		// A browser comes back with the URL that it began with, and how far it has come.
		for _, began := range []string{"now", at} {
			g.follow("?since="+began, "Last-Event-ID", synced.Position).want("put ab=4", "synced")
		}
	})
}

func TestWatchSinceElsewhere(t *testing.T) {
	inBubble(t, func(t *testing.T, g *rig) {
		g.put(0, "a", []byte("1"))
		m, _ := g.cache.Mark()
		id := m.Position.TopicID()
		ahead := position.New(id, time.Now(), []position.Partition{{Next: 2, Epoch: position.EpochUnknown}, {Next: 0}})
		g.get("/v1/topics/fixture/watch?timeout=1s&since="+ahead.String()).wantProblem(t, 503, "behind")
		// One that this replica has yet to reach is waited for.
		go func() {
			<-time.After(time.Second)
			g.put(0, "b", []byte("1"))
		}()
		g.follow("?since=" + ahead.String()).want("synced")
		// A truncated log's, and another topic's, cannot be reached.
		lost := position.New(id, time.Now(), []position.Partition{{Next: 9}, {Next: 0}})
		if c := g.follow("?timeout=2s&since="+lost.String()).want("reset", "put a=1", "put b=1", "synced"); c.Keys != 2 {
			t.Errorf("synced %+v", c)
		}
		other := position.New([16]byte{1}, time.Now(), []position.Partition{{Next: 1}})
		f := g.follow("?since=" + other.String())
		if c := f.want("reset"); c.Reason != "topic-recreated" {
			t.Errorf("%+v", c)
		}
		f.want("put a=1", "put b=1", "synced")
	})
}

// TestWatchFallsOffTheRing: it catches up from the store, each key once, without a reset, and goes on.
func TestWatchFallsOffTheRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		g.waitReady()
		g.put(0, "gone", []byte("1"))
		s := &stream{s: g.server, values: true}
		f := g.follow("")
		f.want("put gone=1", "synced")
		m, _ := g.cache.Mark()
		s.pos, s.seq = m.Position, 1
		w := httptest.NewRecorder()
		s.w, s.rc = w, http.NewResponseController(w)
		for i := range 30 {
			g.put(0, "a", fmt.Append(nil, i))
		}
		g.put(0, "gone", nil)
		rd, err := s.catchUp(s.pos)
		if err != nil {
			t.Fatal(err)
		}
		var lines []wire.Change
		for l := range strings.Lines(w.Body.String()) {
			c, err := wire.ParseNDJSON([]byte(l))
			if err != nil {
				t.Fatal(err)
			}
			lines = append(lines, c)
		}
		if len(lines) != 3 || string(lines[0].Value) != "29" || lines[0].Position != "" || lines[1].Type != wire.Delete || lines[2].Type != wire.Progress ||
			lines[2].Position == "" || lines[2].Merged != 29 {
			t.Errorf("%s", w.Body)
		}
		g.put(0, "a", []byte("live"))
		if b, _, err := rd.TryNext(); err != nil || b == nil || string(b.Changes[0].Value) != "live" {
			t.Errorf("then %v, %v", b, err)
		}
	})
}

func TestMaxWatchers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, func(o *Options) { o.MaxWatchers = 2 })
		g.waitReady()
		one, two := g.follow(""), g.follow("")
		one.want("synced")
		two.want("synced")
		r := g.get("/v1/topics/fixture/watch")
		r.wantProblem(t, 503, "too-many-watchers")
		if r.Header.Get("Retry-After") == "" {
			t.Error("it does not say when to come back")
		}
		_ = one.resp.Body.Close()
		<-time.After(time.Second)
		g.follow("").want("synced")
	})
}

func TestWatchAsServerSentEvents(t *testing.T) {
	inBubble(t, func(t *testing.T, g *rig) {
		g.put(0, "a", []byte(`{"x": 1}`))
		f := g.follow("", "Accept", "text/event-stream")
		if ct := f.resp.Header.Get("Content-Type"); ct != "text/event-stream" {
			t.Errorf("Content-Type %q", ct)
		}
		lines := func(n int) (out []string) {
			for range n {
				if !f.lines.Scan() {
					t.Fatal(f.lines.Err())
				}
				out = append(out, f.lines.Text())
			}
			return out
		}
		got := lines(7)
		if got[0] != "event: put" || !strings.HasPrefix(got[1], `data: {"key":"a","value":{"x": 1},"partition":0,"offset":0,`) || got[2] != "" ||
			got[3] != "event: synced" || !strings.HasPrefix(got[4], "id: ") || got[5] != `data: {"keys":1}` || got[6] != "" {
			t.Errorf("%q", got)
		}
		g.server.EndStreams()
		if got := lines(2); !strings.HasPrefix(got[0], "retry: ") || f.lines.Scan() {
			t.Errorf("%q", got)
		}
		g.get("/v1/topics/fixture/watch").wantProblem(t, 503, "draining")
	})
}

// TestWatchOfAReplacedState: a topic made anew is a reset and the new state.
func TestWatchOfAReplacedState(t *testing.T) {
	inBubble(t, func(t *testing.T, g *rig) {
		g.put(0, "old", []byte("1"))
		f := g.follow("")
		f.want("put old=1", "synced")
		if err := g.Fake.DeleteTopic("fixture"); err != nil {
			t.Fatal(err)
		}
		if err := g.Fake.CreateTopic("fixture", 2, nil); err != nil {
			t.Fatal(err)
		}
		if c := f.want("reset"); c.Reason != "topic-recreated" {
			t.Errorf("reset %+v", c)
		}
		f.want("synced")
	})
}

// TestWatchKeepsUpInOrder: many changes, none missing, none twice, in log order.
func TestWatchKeepsUpInOrder(t *testing.T) {
	inBubble(t, func(t *testing.T, g *rig) {
		f := g.follow("")
		f.want("synced")
		const n = 2000
		go func() {
			for i := range n {
				g.admin.Produce(t.Context(), record(fmt.Sprintf("k%d", i%50), fmt.Sprint(i)), nil)
			}
		}()
		for i := range n {
			if c, _ := f.next(); c.Offset != int64(i) || string(c.Value) != fmt.Sprint(i) {
				t.Fatalf("event %d: %+v", i, c)
			}
		}
	})
}

// TestWatchProgressOnABusyTopic: changes for others do not put progress off.
func TestWatchProgressOnABusyTopic(t *testing.T) {
	inBubble(t, func(t *testing.T, g *rig) {
		f := g.follow("?key=mine")
		f.want("synced")
		go func() {
			for i := range 50 {
				g.admin.Produce(t.Context(), record("other", fmt.Sprint(i)), nil)
				<-time.After(200 * time.Millisecond)
			}
			g.admin.Produce(t.Context(), record("mine", "1"), nil)
		}()
		seen := 0
		for f.lines.Scan() {
			c, err := wire.ParseNDJSON(f.lines.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			if c.Type != wire.Progress {
				break
			}
			seen++
		}
		if seen < 10 {
			t.Errorf("%d progress lines in 10 s of changes for others", seen)
		}
	})
}

// TestProgressWaitsForWhatExpired: the log start of the cache is ahead of the stream's while the deletes that it stands for
// lie in the feed, unread. Whoever resumed from there would never hear of them.
func TestProgressWaitsForWhatExpired(t *testing.T) {
	c := cache.New(cache.Options{})
	c.Load(ingest.Incarnation{TopicID: [16]byte{1}, Partitions: []ingest.Progress{{}}, Ends: []int64{0}}, "")
	c.Loaded()
	c.Apply(&ingest.Batch{Records: []ingest.Record{{Key: []byte("k"), Value: []byte("1")}}, Progress: []ingest.Progress{{Next: 1}}})
	before, _ := c.Mark()
	c.Apply(&ingest.Batch{Progress: []ingest.Progress{{Next: 1, LogStart: 1}}})
	w := httptest.NewRecorder()
	st := &stream{s: &Server{cache: c}, w: w, rc: http.NewResponseController(w), pos: before.Position}
	if err := st.progress(); err != nil {
		t.Fatal(err)
	}
	told, err := wire.ParseNDJSON(bytes.TrimSpace(w.Body.Bytes()))
	if err != nil || told.Position != before.Text {
		t.Errorf("progress names %q, %v, and the stream is at %q", told.Position, err, before.Text)
	}
}
