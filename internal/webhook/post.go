package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// post is one request, as it is sent and sent again.
type post struct {
	partition int32
	offset    int64
	gen       uint64 // of its lane when it was made
	items     []item
	offsets   string // {"1":3}
	body      []byte
}

// item is a key in a post: which change of it the post tells.
type item struct {
	e   *entry
	seq uint64
}

// encode writes the v1 form; updates are the members of its object of that name.
func (n *post) encode(topic string, updates []byte) {
	n.offsets = `{"` + strconv.Itoa(int(n.partition)) + `":` + strconv.FormatInt(n.offset, 10) + `}`
	b := make([]byte, 0, len(updates)+len(topic)+len(n.offsets)+64)
	b = append(b, `{"v":1,"topic":`...)
	b = appendString(b, topic)
	b = append(b, `,"offsets":`...)
	b = append(b, n.offsets...)
	b = append(b, `,"updates":{`...)
	b = append(b, updates...)
	n.body = append(b, `}}`...)
}

// appendString appends s, which is UTF-8, as a JSON string. Unlike json.Marshal it leaves <, > and & alone.
func appendString(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			buf := bytes.NewBuffer(dst)
			enc := json.NewEncoder(buf)
			enc.SetEscapeHTML(false)
			_ = enc.Encode(s) // a string into memory: cannot fail
			return buf.Bytes()[:buf.Len()-1]
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
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
	req.Header.Set("X-Kkv-Offsets", n.offsets)
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
