package httpapi

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

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

func TestWatchSinceIsAnsweredByTheWholeState(t *testing.T) {
	inBubble(t, func(t *testing.T, g *rig) {
		g.put(0, "a", []byte("1"))
		at := g.get("/v1/topics/fixture/keys/a").Header.Get("Kkv-Position")
		if r := g.follow("?since="+at).want("reset", "put a=1", "synced"); r.Keys != 1 {
			t.Errorf("synced %+v", r)
		}
		g.follow("", "Last-Event-ID", at).want("reset", "put a=1", "synced")
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
