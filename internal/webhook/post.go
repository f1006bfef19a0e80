package webhook

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/kkv-project/kkv/internal/feed"
)

// post is one request, as it is sent and sent again.
type post struct {
	id    string // of the body: what is sent again has the same
	items []item
	body  []byte

	// v1
	partition int32
	offset    int64
	gen       uint64 // of its lane when it was made
	offsets   string // {"1":3}

	// v2
	states uint64 // the pending's when it was made
	reset  string
	synced bool
}

// item is a key in a post: which change of it the post tells.
type item struct {
	e         *entry
	seq       uint64
	partition int32
	offset    int64 // of the record told, which may be newer than what was read in the feed by then; -1: none is
}

// told reports whether it has told the newest change of its key.
func (it *item) told() bool {
	e := it.e
	return e.need <= it.seq || !e.deleted && e.partition == it.partition && e.offset <= it.offset
}

func newPost(p *pending) *post { return &post{id: "kkv_" + rand.Text(), states: p.states} }

func (n *post) add(it item) {
	it.e.inFlight = true
	n.items = append(n.items, it)
}

// form is a kind of body, and which of the pending changes go into one.
type form interface {
	// name is that of the setting.
	name() string
	// carries reports whether a body can name key.
	carries(key []byte) bool
	// quiet reports whether c by itself is no reason for a push.
	quiet(c *feed.Change) bool
	// next makes the next POST, of up to maxKeys keys; nil with nothing to tell. The caller must end it, by told or
	// failed, before it calls next again.
	next(p *pending, maxKeys int) *post
	// current reports whether n, which failed, may be sent again as it is.
	current(p *pending, n *post) bool
}

// newClient is c, or a client of our own, that follows no redirect.
func newClient(c *http.Client) *http.Client {
	var own http.Client
	if c != nil {
		own = *c
	} else {
		own.Transport = &http.Transport{ // its Proxy is nil: none
			DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			TLSHandshakeTimeout: 5 * time.Second,
			MaxIdleConnsPerHost: 2,
			IdleConnTimeout:     90 * time.Second,
			DisableCompression:  true,
		}
	}
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &own
}

// statusError is an answer other than 2xx.
type statusError int

func (s statusError) Error() string {
	advice := "the application must answer 2xx"
	if s >= 300 && s < 400 {
		advice = "redirects are not followed: name the final URL"
	}
	return fmt.Sprintf("answered %d %s; %s", int(s), http.StatusText(int(s)), advice)
}

// send makes the request once. nil means 2xx.
func (d *Dispatcher) send(ctx context.Context, url string, n *post) error {
	ctx, cancel := context.WithTimeout(ctx, d.o.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(n.body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "kkv")
	req.Header.Set("X-Kkv-Topic", d.o.Topic)
	if n.offsets != "" {
		req.Header.Set("X-Kkv-Offsets", n.offsets)
	}
	d.sign(req.Header, n, time.Now())
	// Not sent, being empty; it tells net/http that the request may be repeated on a new connection if the
	// receiver closed the idle one (Node does after 5 s) just as we used it.
	req.Header["Idempotency-Key"] = []string{}
	resp, err := d.client.Do(req)
	if err != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return fmt.Errorf("no answer within %v: %w", d.o.Timeout, err)
		}
		return err
	}
	_, _ = io.CopyN(io.Discard, resp.Body, maxDrain) // the status has decided; this only frees the connection
	_ = resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return statusError(resp.StatusCode)
	}
	return nil
}
