package robustness

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/kkv-project/kkv/internal/position"
	"github.com/kkv-project/kkv/internal/verify"
	"github.com/kkv-project/kkv/internal/wire"
)

// reader reads in every way, at any replica, and remembers how far it has seen.
type reader struct {
	w    *world
	r    *rand.Rand
	seen position.Position
	tags map[string]verify.Item // what an ETag stood for
}

func (w *world) newReader(n int) *reader {
	return &reader{w: w, r: w.rand("reader", n), tags: map[string]verify.Item{}}
}

func (x *reader) run(every time.Duration) {
	for x.w.pause(x.r, every) {
		if run, base, ok := x.w.replicas[x.r.IntN(len(x.w.replicas))].at(); ok {
			x.read(run, base)
		}
	}
}

// read makes one request and records its answer; one that fails on the way says nothing.
func (x *reader) read(run int, base string) {
	op := verify.Read{Run: run, MaxStale: -1, Age: -1, Kind: verify.Kind(x.r.IntN(3))}
	q := url.Values{"timeout": {fmt.Sprint(200+x.r.IntN(3000), "ms")}}
	x.demand(&op, q)
	op.Call = x.w.rec.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if x.do(ctx, &op, base, q) == nil {
		op.Return = x.w.rec.Now()
		x.w.rec.Read(op)
		x.w.answers.Add(1)
		x.seen = x.seen.Merge(op.Position)
	}
}

// demand asks for freshness, or for none.
func (x *reader) demand(op *verify.Read, q url.Values) {
	switch x.r.IntN(6) {
	case 0, 1:
		op.Fresh = true
		q.Set("consistency", "fresh")
	case 2:
		op.MaxStale = time.Duration(x.r.IntN(2000)) * time.Millisecond
		q.Set("maxStale", op.MaxStale.String())
	case 3:
		op.AtLeast = append(op.AtLeast, x.seen)
		q.Add("atLeast", x.seen.String())
	case 4:
		v, ok := x.w.acked.Load(x.r.IntN(writers))
		if !ok {
			return
		}
		p := v.(position.Position)
		if x.r.IntN(4) == 0 { // as a producer that knows nothing of topic IDs
			i := int32(p.Len() - 1)
			op.AtLeast = append(op.AtLeast, position.FromWrite([16]byte{}, i, p.Partition(i).Next-1))
			q.Add("atLeast", fmt.Sprintf("%d:%d", i, p.Partition(i).Next-1))
			return
		}
		op.AtLeast = append(op.AtLeast, p, x.seen)
		q.Add("atLeast", p.String()+","+x.seen.String())
	}
}

func (x *reader) do(ctx context.Context, op *verify.Read, base string, q url.Values) error {
	base += "/v1/topics/" + topic + "/keys"
	method, body, tag := http.MethodGet, io.Reader(nil), ""
	var keys []string
	switch op.Kind {
	case verify.Get:
		keys = []string{anyKey(x.r)}
		base += "/" + keys[0]
		if x.r.IntN(4) == 0 {
			for t, item := range x.tags {
				if item.Key == keys[0] {
					tag = t
				}
			}
		}
	case verify.List:
		op.Prefix = append(prefixes, "")[x.r.IntN(len(prefixes)+1)]
		q.Set("prefix", op.Prefix)
		q.Set("values", "true")
	case verify.Batch:
		for range 1 + x.r.IntN(5) {
			keys = append(keys, anyKey(x.r))
		}
		b, _ := json.Marshal(map[string]any{"keys": keys}) // strings: cannot fail
		method, body, base = http.MethodPost, bytes.NewReader(b), base+":batchGet"
	}
	return x.send(ctx, op, method, base+"?"+q.Encode(), body, tag, keys)
}

// send makes the request; keys are those that it asks for by name.
func (x *reader) send(ctx context.Context, op *verify.Read, method, target string, body io.Reader, tag string, keys []string) error {
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		x.w.t.Error(err)
		return err
	}
	if tag != "" {
		req.Header.Set("If-None-Match", tag)
	}
	resp, err := x.w.http.Do(req)
	if err != nil {
		return err
	}
	defer discard(resp.Body)
	return x.answer(op, resp, keys)
}

// answer reads a response into op.
func (x *reader) answer(op *verify.Read, resp *http.Response, keys []string) (err error) {
	op.Status = resp.StatusCode
	if ms, err := strconv.ParseInt(resp.Header.Get("Kkv-Age-Ms"), 10, 64); err == nil {
		op.Age = time.Duration(ms) * time.Millisecond
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	switch op.Status {
	case http.StatusOK, http.StatusNotModified, http.StatusNotFound:
		if op.Position, err = position.Parse(resp.Header.Get("Kkv-Position")); err != nil || op.Position.IsZero() {
			x.w.t.Errorf("%s %s answers %s at position %q: %v", resp.Request.Method, resp.Request.URL, resp.Status, resp.Header.Get("Kkv-Position"), err)
			return io.ErrUnexpectedEOF
		}
	default:
		var p struct{ Type string }
		_ = json.Unmarshal(b, &p) // what is no problem document has no type
		op.Problem = strings.TrimPrefix(p.Type, "/problems/")
		if op.Status < 500 && op.Status != http.StatusConflict || op.Status == http.StatusInternalServerError {
			x.w.t.Errorf("%s %s answers %s: %s", resp.Request.Method, resp.Request.URL, resp.Status, b)
		}
		return nil
	}
	x.count(op)
	if op.Kind != verify.Get {
		op.Items, err = items(b)
		return err
	}
	item := verify.Item{Key: keys[0], Absent: op.Status == http.StatusNotFound}
	if !item.Absent {
		if _, err := fmt.Sscanf(resp.Header.Get("Kkv-Record"), "%d:%d", &item.Partition, &item.Offset); err != nil {
			x.w.t.Errorf("Kkv-Record: %q", resp.Header.Get("Kkv-Record"))
		}
		tag := resp.Header.Get("ETag")
		if item.Value = string(b); op.Status == http.StatusNotModified {
			item.Value = x.tags[tag].Value
		}
		x.tags[tag] = item
	}
	op.Items = []verify.Item{item}
	return nil
}

func (x *reader) count(op *verify.Read) {
	c := &x.w.counts
	for _, k := range []struct {
		n   interface{ Add(int64) int64 }
		did bool
	}{{&c.fresh, op.Fresh}, {&c.lists, op.Kind == verify.List}, {&c.atLeast, len(op.AtLeast) > 0}, {&c.maxStale, op.MaxStale >= 0}} {
		if k.did {
			k.n.Add(1)
		}
	}
}

// items reads the lines of a list or batch get.
func items(b []byte) (out []verify.Item, err error) {
	for line := range bytes.Lines(b) {
		c, err := wire.ParseNDJSON(line)
		if err != nil {
			return nil, err
		}
		out = append(out, verify.Item{Key: string(c.Key), Value: string(c.Value), Partition: c.Partition, Offset: c.Offset, Absent: c.Type == wire.Absent})
	}
	return out, nil
}

// watcher watches at one replica after the other, and resumes with the last id that it was given.
type watcher struct {
	w     *world
	r     *rand.Rand
	since position.Position
	sse   bool
}

func (w *world) newWatcher(n int) *watcher {
	return &watcher{w: w, r: w.rand("watcher", n), sse: n%2 == 1}
}

func (x *watcher) run() {
	final := false
	for !final {
		select {
		case <-x.w.over:
			x.w.t.Error("a watcher was not connected at the end")
			return
		default:
		}
		if x.r.IntN(10) == 0 {
			x.since = position.Position{}
		}
		if run, base, ok := x.w.replicas[x.r.IntN(len(x.w.replicas))].at(); ok {
			final = x.watch(run, base)
		}
		if !final {
			<-time.After(time.Duration(x.r.IntN(500)) * time.Millisecond)
		}
	}
}

// watch is one connection. It reports whether it stood until the end.
func (x *watcher) watch(run int, base string) (final bool) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go x.w.cutWatch(ctx, cancel, time.Duration(x.r.Int64N(int64(12*time.Second))))
	s := verify.Stream{Run: run, Since: x.since, Prefix: append(prefixes, "")[x.r.IntN(len(prefixes)+1)]}
	q := url.Values{"prefix": {s.Prefix}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/v1/topics/"+topic+"/watch", nil)
	if err != nil {
		x.w.t.Error(err)
		return false
	}
	if x.sse {
		req.Header.Set("Accept", "text/event-stream")
		req.Header.Set("Last-Event-ID", s.Since.String())
	} else if !s.Since.IsZero() {
		q.Set("since", s.Since.String())
	}
	req.URL.RawQuery = q.Encode()
	s.Call = x.w.rec.Now()
	resp, err := x.w.http.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		if resp.StatusCode != http.StatusServiceUnavailable {
			b, _ := io.ReadAll(resp.Body)
			x.w.t.Errorf("a watch since %s is answered %s: %s", s.Since, resp.Status, b)
			x.since = position.Position{}
		}
		return false
	}
	x.follow(&s, bufio.NewReader(resp.Body))
	select {
	case <-x.w.over:
		s.Final = true
	default:
	}
	x.w.rec.Stream(s)
	return s.Final
}

// cutWatch cancels a watch after d, unless traffic has ended by then: it stands until all is over.
func (w *world) cutWatch(ctx context.Context, cancel func(), d time.Duration) {
	defer cancel()
	select {
	case <-time.After(d):
		return
	case <-ctx.Done():
		return
	case <-w.ending:
	}
	select {
	case <-w.over:
	case <-ctx.Done():
	}
}

// follow reads events until the stream ends.
func (x *watcher) follow(s *verify.Stream, body *bufio.Reader) {
	for {
		e, err := x.event(body)
		if err != nil {
			return
		}
		switch {
		case e.Type == wire.Reset:
			x.since = position.Position{}
			x.w.counts.resets.Add(1)
		case !e.Position.IsZero():
			x.since = e.Position
		}
		if e.Type == wire.Synced && !s.Since.IsZero() && s.Events != nil && s.Events[0].Type != wire.Reset {
			x.w.counts.resumed.Add(1)
		}
		s.Events = append(s.Events, e)
	}
}

// event reads one line of NDJSON, or one server-sent event.
func (x *watcher) event(body *bufio.Reader) (verify.Event, error) {
	line, err := body.ReadBytes('\n')
	if err != nil {
		return verify.Event{}, err
	}
	if x.sse {
		if line, err = ndjson(line, body); err != nil {
			return verify.Event{}, err
		}
	}
	c, err := wire.ParseNDJSON(line)
	if err != nil {
		x.w.t.Errorf("a watch's line %q: %v", line, err)
		return verify.Event{}, err
	}
	p, err := position.Parse(c.Position)
	if err != nil {
		x.w.t.Errorf("a watch's line %q: %v", line, err)
	}
	return verify.Event{Type: c.Type, Key: string(c.Key), Value: string(c.Value), Partition: c.Partition, Offset: c.Offset, Position: p, Reason: c.Reason}, err
}

// ndjson reads the rest of a server-sent event (WHATWG HTML, section 9.2) and turns it into the line that says the
// same.
func ndjson(line []byte, body *bufio.Reader) ([]byte, error) {
	kind, data, id := "", "", ""
	for {
		field, value, _ := strings.Cut(strings.TrimSuffix(string(line), "\n"), ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "event":
			kind = value
		case "data":
			data = value
		case "id":
			id = value
		case "retry":
			kind, data = wire.Closing, `{"retryMs":`+value+`}`
		case "":
			if kind != "" {
				sep := ","
				if data == "{}" {
					sep = ""
				}
				return fmt.Appendf(nil, `{"type":%q,"position":%q%s%s`, kind, id, sep, data[1:]), nil
			}
		}
		var err error
		if line, err = body.ReadBytes('\n'); err != nil {
			return nil, err
		}
	}
}
