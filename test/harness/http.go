package harness

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"strings"
	"testing"
	"time"
)

// requestTimeout bounds one request.
const requestTimeout = 30 * time.Second

// A Response is an HTTP answer as it came: no redirect followed, nothing decompressed.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// String gives the answer for a message.
func (r *Response) String() string {
	body := r.Body
	if len(body) > 300 {
		body = append(bytes.Clone(body[:300]), "…"...)
	}
	return fmt.Sprintf("%d %q", r.Status, body)
}

// Do sends a request and returns the answer; it fails the test if there is none. The target goes into the request line byte by
// byte: http.Client would escape, clean or refuse some of the keys that people have. Headers are "Name: value".
func Do(t testing.TB, base, method, target string, headers ...string) *Response {
	t.Helper()
	return DoBody(t, base, method, target, nil, headers...)
}

// DoBody is Do with a body; a nil one sends no Content-Length, an empty one `Content-Length: 0`.
func DoBody(t testing.TB, base, method, target string, body []byte, headers ...string) *Response {
	t.Helper()
	res, err := Try(base, method, target, body, headers)
	if err != nil {
		t.Fatalf("%s %s%s: %v", method, base, target, err)
	}
	return res
}

// Try is DoBody that returns the error where no answer came.
func Try(base, method, target string, body []byte, headers []string) (*Response, error) {
	host := strings.TrimPrefix(base, "http://")
	conn, err := net.DialTimeout("tcp", host, requestTimeout)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return nil, err
	}
	var head strings.Builder
	fmt.Fprintf(&head, "%s %s HTTP/1.1\r\nConnection: close\r\n", method, target)
	if !hasHeader(headers, "Host") {
		fmt.Fprintf(&head, "Host: %s\r\n", host)
	}
	for _, h := range headers {
		head.WriteString(h + "\r\n")
	}
	if body != nil {
		fmt.Fprintf(&head, "Content-Length: %d\r\n", len(body))
	}
	head.WriteString("\r\n")
	// A server may answer and close before it has read a large body; the answer is what counts.
	_, writeErr := conn.Write(append([]byte(head.String()), body...))
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		if writeErr != nil {
			return nil, writeErr
		}
		return nil, err
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, fmt.Errorf("read body of %s: %w", res.Status, err)
	}
	// http.ReadResponse takes Content-Length out of the header where it is chunked only; keep what was sent.
	return &Response{Status: res.StatusCode, Header: res.Header, Body: got}, nil
}

func hasHeader(headers []string, name string) bool {
	for _, h := range headers {
		if k, _, ok := strings.Cut(h, ":"); ok && textproto.CanonicalMIMEHeaderKey(k) == name {
			return true
		}
	}
	return false
}

// EscapeAll percent-encodes every byte of a key that is not a letter or digit: whatever parses URLs on the way sees nothing that
// it could take for its own.
func EscapeAll(key string) string {
	var b strings.Builder
	for _, c := range []byte(key) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
