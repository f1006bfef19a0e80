package kkv

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Client makes one request a call and starts no goroutines. It is safe for concurrent use.
//
// It carries the Position that it has seen so far, in its answers and its watches, and sends it with every read, so
// that a server can keep a read from going back in time, whichever replica answers it.
//
// A deadline of the caller's context is told to the server, which answers a little before it: so that a read ends with
// ErrBehind rather than the context's error, and a write with its position. Without one a server waits for 5 s.
//
// Reads try the servers in turn: the next one after a connection error or a 503. A write is sent to another server
// only if the first surely did not pass it on. Where a server did not answer by the caller's deadline, the next call begins
// with another.
type Client struct {
	servers []string
	token   string
	http    *http.Client
	own     *http.Transport // nil if the caller brought an http.Client
	log     *slog.Logger
	at      atomic.Uint32 // index of the server to ask first: that which answered last

	mu    sync.Mutex
	pos   Position
	topic string // "" until asked for
}

// NewClient checks o and starts nothing.
func NewClient(o Options) (*Client, error) {
	servers, err := o.servers()
	if err != nil {
		return nil, err
	}
	c := &Client{servers: servers, token: o.Token, http: o.HTTPClient, log: o.Logger, topic: o.Topic}
	if c.http == nil {
		c.own = transport()
		c.http = &http.Client{Transport: c.own, CheckRedirect: noRedirect}
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// Position is what the client has seen so far, its own writes included.
func (c *Client) Position() Position {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pos
}

func (c *Client) saw(p Position) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pos = c.pos.Merge(p)
}

// Ready waits until a server holds the whole topic and answers reads. It ends early when every server refuses the
// token or knows nothing of kkv; else with an error that wraps ErrNotReady when ctx ends.
func (c *Client) Ready(ctx context.Context) error {
	var b backoff
	for {
		refused := 0
		var last error
		for i := range c.inTurn() {
			err := c.healthy(ctx, i)
			if err == nil {
				c.prefer(i)
				return nil
			}
			if ctx.Err() == nil || last == nil {
				last = err
			}
			if refuses(err) {
				refused++
			}
		}
		if refused == len(c.servers) {
			return fmt.Errorf("kkv: ready: %w", last)
		}
		if err := b.wait(ctx, startupBackoff, 0); err != nil {
			return fmt.Errorf("kkv: %w: %w; last answer: %w", ErrNotReady, err, last)
		}
	}
}

func (c *Client) healthy(ctx context.Context, server int) error {
	resp, err := c.send(ctx, server, call{method: http.MethodGet, path: "/q/health/ready"})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return statusError(resp)
	}
	return nil
}

// A ReadOption says how fresh a read must be. Without one, a read sees what the server that answers holds now, and
// never less than this Client has seen or written before.
type ReadOption func(http.Header)

// Fresh reads see every write that was acknowledged before the call. Not met in time, the error wraps ErrBehind.
func Fresh() ReadOption { return func(h http.Header) { h.Set("Kkv-Consistency", "fresh") } }

// AtLeast reads see all that p covers, on whichever server. Not met in time, the error wraps ErrBehind; ErrReset if p
// belongs to an earlier incarnation of the topic.
func AtLeast(p Position) ReadOption {
	return func(h http.Header) {
		if !p.IsZero() {
			h.Add("Kkv-At-Least", p.String())
		}
	}
}

// MaxStale reads see data that is known to be at most d old. Else the error wraps ErrTooStale.
func MaxStale(d time.Duration) ReadOption {
	return func(h http.Header) { h.Set("Kkv-Max-Stale", d.String()) }
}

// Get asks a server for key's newest record that it holds. An absent or deleted key is ErrNotFound. ErrReset says that
// the topic was made anew, or lost records that this Client had seen; the Client then forgets what it had seen, and
// the next read starts from there.
func (c *Client) Get(ctx context.Context, key string, how ...ReadOption) (Entry, error) {
	e := Entry{Key: key}
	err := c.read(ctx, keyPath(key), how, func(resp *http.Response, body []byte) (err error) {
		e.Value = body
		return e.setHeader(resp.Header)
	})
	if err != nil {
		return Entry{}, fmt.Errorf("kkv: get %s: %w", strconv.Quote(key), err)
	}
	return e, nil
}

// setHeader reads what a GET says about a record beside its value.
func (e *Entry) setHeader(h http.Header) error {
	if s := h.Get("Kkv-Record"); s != "" {
		p, o, _ := strings.Cut(s, ":")
		part, err := strconv.ParseInt(p, 10, 32)
		off, err2 := strconv.ParseInt(o, 10, 64)
		if err != nil || err2 != nil {
			return fmt.Errorf("the server's Kkv-Record %q is not partition:offset", s)
		}
		e.Partition, e.Offset = int32(part), off
	}
	if s := h.Get("Kkv-Timestamp"); s != "" {
		ms, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return fmt.Errorf("the server's Kkv-Timestamp %q is not a number of milliseconds", s)
		}
		e.Timestamp = time.UnixMilli(ms)
	}
	for name, values := range h {
		rest, ok := strings.CutPrefix(name, "X-Kafka-")
		if !ok {
			continue
		}
		for _, v := range values {
			b, err := base64.StdEncoding.DecodeString(v)
			if err != nil {
				return fmt.Errorf("the server's %s is not base64: %w", name, err)
			}
			e.Headers = append(e.Headers, Header{Key: rest, Value: b})
		}
	}
	// A record's own content-type goes as the answer's; octet-stream is what a record without one is answered with.
	if ct := h.Get("Content-Type"); ct != "" && ct != "application/octet-stream" && h.Get("X-Kafka-Content-Type") == "" {
		e.Headers = append(e.Headers, Header{Key: "Content-Type", Value: []byte(ct)})
	}
	slices.SortStableFunc(e.Headers, func(a, b Header) int { return strings.Compare(a.Key, b.Key) })
	return nil
}

// Put writes value, which may be empty, and returns once Kafka has acknowledged it; with the position from which on
// it can be read. Later reads of this client send that position.
//
// An error that wraps ErrOutcomeUnknown means that the record may have been written or not.
func (c *Client) Put(ctx context.Context, key string, value []byte) (Position, error) {
	w, err := c.write(ctx, http.MethodPut, key, value)
	return w.pos, err
}

// Delete writes a tombstone for key; its result and errors are those of Put. A key that has no value is no error.
func (c *Client) Delete(ctx context.Context, key string) (Position, error) {
	w, err := c.write(ctx, http.MethodDelete, key, nil)
	return w.pos, err
}

// written is an acknowledged write.
type written struct {
	pos       Position
	partition int32
	offset    int64 // -1 if the answer's body did not say
}

func (c *Client) write(ctx context.Context, method, key string, value []byte) (written, error) {
	w, err := c.tryWrite(ctx, method, key, value)
	if err != nil {
		return w, fmt.Errorf("kkv: %s %s: %w", strings.ToLower(method), strconv.Quote(key), err)
	}
	return w, nil
}

func (c *Client) tryWrite(ctx context.Context, method, key string, value []byte) (w written, err error) {
	topic, err := c.topicPath(ctx)
	if err != nil {
		return w, err
	}
	for i := range c.inTurn() {
		if err := ctx.Err(); err != nil { // nothing sent yet
			return w, err
		}
		var resp *http.Response
		if resp, err = c.send(ctx, i, call{method: method, path: topic + keyPath(key), body: value}); err != nil {
			if notSent(err) {
				continue
			}
			return w, fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
		}
		w, err = c.acknowledged(resp)
		var se *StatusError
		if !errors.As(err, &se) || !se.notSent() {
			c.prefer(i)
			return w, err
		}
	}
	return w, err
}

func (c *Client) acknowledged(resp *http.Response) (written, error) {
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusAccepted {
		err := statusError(resp)
		if err.Status >= 500 && err.Type == "" { // a proxy's: what became of the request is anyone's guess
			return written{}, fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
		}
		return written{}, err
	}
	w := written{offset: -1}
	var err error
	if w.pos, err = ParsePosition(resp.Header.Get("Kkv-Position")); err != nil {
		return w, fmt.Errorf("acknowledged, but the answer's Kkv-Position cannot be read: %w", err)
	} else if w.pos.IsZero() {
		return w, errors.New("acknowledged, but the answer has no Kkv-Position; what stands before the cache must pass it on")
	}
	c.saw(w.pos)
	var rec struct {
		Partition int32
		Offset    *int64
	}
	// The position alone is enough where the rest of the answer got lost.
	if body, err := io.ReadAll(resp.Body); err == nil && json.Unmarshal(body, &rec) == nil && rec.Offset != nil {
		w.partition, w.offset = rec.Partition, *rec.Offset
	}
	return w, nil
}

// read GETs a path below the topic from the servers in turn and hands the first answer to f.
func (c *Client) read(ctx context.Context, path string, how []ReadOption, f func(*http.Response, []byte) error) error {
	topic, err := c.topicPath(ctx)
	if err != nil {
		return err
	}
	return c.eachServer(ctx, topic+path, how, func(resp *http.Response) error {
		if resp.StatusCode != http.StatusOK {
			return statusError(resp)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return fmt.Errorf("the answer broke off: %w", err)
		}
		return f(resp, body)
	})
}

// eachServer calls f with the answers of the servers, until one's is neither a connection error nor a 503 nor behind.
func (c *Client) eachServer(ctx context.Context, path string, how []ReadOption, f func(*http.Response) error) (err error) {
	for i := range c.inTurn() {
		if err = c.ask(ctx, i, path, how, f); err == nil || errors.Is(err, ErrNotFound) {
			c.prefer(i)
			return err
		}
		if errors.Is(err, ErrReset) && !names(how) { // else it may be the caller's position that is of another time
			c.forget()
		}
		var se *StatusError
		if errors.As(err, &se) && se.Status != http.StatusServiceUnavailable && !errors.Is(err, ErrBehind) || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// names reports whether a position is among how.
func names(how []ReadOption) bool {
	h := make(http.Header)
	for _, option := range how {
		option(h)
	}
	return h.Get("Kkv-At-Least") != ""
}

// forget drops the position of an incarnation that is no more.
func (c *Client) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pos = Position{}
}

// ask calls f with the answer of one server, and takes up the position that it names.
func (c *Client) ask(ctx context.Context, server int, path string, how []ReadOption, f func(*http.Response) error) error {
	resp, err := c.send(ctx, server, call{method: http.MethodGet, path: path, how: how})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := f(resp); err != nil && !errors.Is(err, ErrNotFound) {
		return err
	} else if p, bad := ParsePosition(resp.Header.Get("Kkv-Position")); bad != nil {
		return fmt.Errorf("the answer's position: %w", bad)
	} else {
		c.saw(p)
		return err
	}
}

// call is one request.
type call struct {
	method string
	path   string // below the server's base URL, with its query
	accept string
	body   []byte
	how    []ReadOption
	// anyPosition: do not ask for what this client has seen. A watch that resumes says by itself from where on it is wanted.
	anyPosition bool
}

// send makes one request. An error means that there was no answer.
func (c *Client) send(ctx context.Context, server int, r call) (*http.Response, error) {
	var body io.Reader
	if r.body != nil {
		body = bytes.NewReader(r.body)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, c.servers[server]+r.path, body)
	if err != nil {
		return nil, err
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	if r.accept != "" {
		req.Header.Set("Accept", r.accept)
	}
	if until, ok := ctx.Deadline(); ok { // a wait that ends in time is told of by a problem, or a 202
		if left := time.Until(until); left > 0 {
			req.Header.Set("Kkv-Timeout", (left - left/8).Round(time.Millisecond).String())
		}
	}
	if r.method == http.MethodGet && !r.anyPosition {
		if p := c.Position(); !p.IsZero() {
			req.Header.Set("Kkv-At-Least", p.String())
		}
	}
	for _, option := range r.how {
		option(req.Header)
	}
	resp, err := c.http.Do(req)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		// Else every call with a short deadline would be spent on a server that hangs.
		c.at.CompareAndSwap(uint32(server), uint32((server+1)%len(c.servers)))
	}
	return resp, err
}

// inTurn is the index of every server once, that which answered last first.
func (c *Client) inTurn() iter.Seq[int] {
	return func(yield func(int) bool) {
		first := int(c.at.Load())
		for i := range c.servers {
			if !yield((first + i) % len(c.servers)) {
				return
			}
		}
	}
}

func (c *Client) prefer(server int) { c.at.Store(uint32(server)) }

// errTopics: the server has several topics or none, so Options.Topic must be set.
var errTopics = errors.New("set Options.Topic")

// topicPath is the path of the topic, learnt from a server if the options did not name it.
func (c *Client) topicPath(ctx context.Context) (string, error) {
	c.mu.Lock()
	topic := c.topic
	c.mu.Unlock()
	if topic == "" {
		var list struct {
			Topics []struct{ Topic string }
		}
		err := c.eachServer(ctx, "/v1/topics", nil, func(resp *http.Response) error {
			if resp.StatusCode != http.StatusOK {
				return statusError(resp)
			}
			return json.NewDecoder(resp.Body).Decode(&list)
		})
		if err != nil {
			return "", fmt.Errorf("ask which topic is served: %w", err)
		}
		if len(list.Topics) != 1 {
			return "", fmt.Errorf("the server has %d topics, not one; %w", len(list.Topics), errTopics)
		}
		topic = list.Topics[0].Topic
		c.mu.Lock()
		c.topic = topic
		c.mu.Unlock()
	}
	return "/v1/topics/" + escape(topic), nil
}

// keyPath is the path of key below its topic, and its query. URL parsers on the way take "." and ".." for steps
// in the path even where they are percent-encoded, so these two go as base64url.
func keyPath(key string) string {
	if key == "." || key == ".." {
		return "/keys/" + base64.RawURLEncoding.EncodeToString([]byte(key)) + "?keyEncoding=base64url"
	}
	return "/keys/" + escape(key)
}

// escape percent-encodes every byte that is not unreserved (RFC 3986, section 2.3); it fits path segments and queries.
func escape(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~", c) >= 0:
			b.WriteByte(c)
		default:
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	return b.String()
}

// notSent reports whether the answer to a write says that Kafka never saw it (GUARANTEES rule 8): a 503 of a cache, not
// one of something before it.
func (e *StatusError) notSent() bool {
	return e.Status == http.StatusServiceUnavailable && (e.name() == "not-ready" || e.name() == "not-sent")
}

// notSent reports whether err of a request says that no byte of it left: no connection came about.
func notSent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// refuses reports whether err is an answer that asking again will not change: a wrong token, topic or request.
func refuses(err error) bool {
	var se *StatusError
	if !errors.As(err, &se) {
		return errors.Is(err, errTopics)
	}
	switch se.Status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	}
	return 300 <= se.Status && se.Status < 500
}
