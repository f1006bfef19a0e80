package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/kkv-project/kkv/internal/store"
	"github.com/kkv-project/kkv/internal/wire"
)

const (
	batchKeys  = 10_000  // keys of one batch get at most
	batchBytes = 4 << 20 // bytes of its request
)

// lines writes NDJSON in chunks, compressed where asked for.
type lines struct {
	rc  *http.ResponseController
	w   io.Writer
	buf []byte
	end func() error
}

func newLines(w http.ResponseWriter, r *http.Request) *lines {
	l := &lines{rc: http.NewResponseController(w), w: w, end: func() error { return nil }}
	h := w.Header()
	h.Set("Content-Type", "application/x-ndjson")
	h["Cache-Control"] = noCache
	if coding := accepted(r.Header["Accept-Encoding"]); coding != "" {
		h.Set("Content-Encoding", coding)
		l.w, l.end = compressor(w, coding)
	}
	return l
}

func (l *lines) add(c *wire.Change) error {
	l.buf = wire.AppendNDJSON(l.buf, c)
	if len(l.buf) < flushBytes {
		return nil
	}
	return l.flush()
}

func (l *lines) flush() error {
	_ = l.rc.SetWriteDeadline(time.Now().Add(writeTimeout)) // not every ResponseWriter has one
	_, err := l.w.Write(l.buf)
	l.buf = l.buf[:0]
	return err
}

// close writes what is left. A client that is gone needs no error.
func (l *lines) close() {
	if l.flush() == nil {
		_ = l.end()
	}
}

// list answers GET …/keys?prefix=&after=&limit=&values=true: one line a key in key order, all at the position that
// the header names, streamed while writes go on. A list that takes longer than Options.ListTimeout ends with a line of
// type "error".
func (s *Server) list(w http.ResponseWriter, r *http.Request, q url.Values, _ string) {
	w.Header()["Vary"] = varyList
	if !s.await(w, r, q) {
		return
	}
	limit, values := -1, false
	if v := q.Get("limit"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			problem(w, r, http.StatusBadRequest, "bad-request", "limit is a number from 1 up.")
			return
		}
		limit = n
	}
	switch v := q.Get("values"); v {
	case "", "false":
	case "true":
		values = true
	default:
		problem(w, r, http.StatusBadRequest, "bad-request", "values is true or false.")
		return
	}
	var after []byte
	if q.Has("after") {
		after = []byte(q.Get("after"))
	}
	snap, mark, err := s.cache.Snapshot()
	if err != nil {
		problem(w, r, http.StatusServiceUnavailable, "not-ready", err.Error())
		return
	}
	var f fields
	f.mark(mark)
	f.into(w.Header())
	out := newLines(w, r)
	if r.Method == http.MethodHead {
		return
	}
	until := time.Now().Add(s.o.ListTimeout)
	for rec := range snap.All([]byte(q.Get("prefix")), after) {
		if limit == 0 {
			break
		}
		limit--
		if out.add(putLine(rec, values)) != nil {
			return // the client is gone
		}
		if len(out.buf) == 0 && time.Now().After(until) {
			out.buf = append(out.buf, `{"type":"error","detail":"the list took longer than --list-timeout; go on with after= the last key"}`+"\n"...)
			break
		}
	}
	out.close()
}

func putLine(r *store.Record, values bool) *wire.Change {
	c := &wire.Change{Type: wire.Put, Key: r.Key, Partition: r.Partition, Offset: r.Offset, Timestamp: r.Timestamp, Headers: r.Headers.List()}
	if values {
		c.Value = r.Value
	}
	return c
}

// batchGet answers POST …/keys:batchGet: one line a key in the order asked for, all at one position.
func (s *Server) batchGet(w http.ResponseWriter, r *http.Request, q url.Values, _ string) {
	w.Header()["Vary"] = varyList
	if !s.await(w, r, q) {
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, batchBytes))
	if err != nil {
		problem(w, r, http.StatusRequestEntityTooLarge, "too-large", "The keys may be of "+strconv.Itoa(batchBytes)+" bytes at most: "+err.Error()+".")
		return
	}
	keys, err := batchRequest(body)
	if err != nil {
		problem(w, r, http.StatusBadRequest, "bad-request", err.Error())
		return
	}
	recs := make([]store.Record, len(keys))
	mark, err := s.cache.GetMany(keys, recs)
	if err != nil {
		problem(w, r, http.StatusServiceUnavailable, "not-ready", err.Error())
		return
	}
	var f fields
	f.mark(mark)
	for i := range recs {
		if recs[i].Conflict {
			f.text("Kkv-Conflict", "true")
			break
		}
	}
	f.into(w.Header())
	out := newLines(w, r)
	for i := range recs {
		c := putLine(&recs[i], true)
		if recs[i].Value == nil {
			c = &wire.Change{Type: wire.Absent, Key: keys[i]}
		}
		if out.add(c) != nil {
			return // the client is gone
		}
	}
	out.close()
}

// batchRequest reads {"keys":["a","b"]}; {"keysBase64":[…]} takes keys that are not UTF-8, and comes after keys.
func batchRequest(body []byte) ([][]byte, error) {
	var req struct {
		Keys       []string `json:"keys"`
		KeysBase64 [][]byte `json:"keysBase64"`
	}
	if err := json.Unmarshal(body, &req); err != nil {
		return nil, fmt.Errorf("The body is not {\"keys\":[…]}: %w.", err) //nolint:staticcheck // a sentence for the client
	}
	keys := make([][]byte, 0, len(req.Keys)+len(req.KeysBase64))
	for _, k := range req.Keys {
		keys = append(keys, []byte(k))
	}
	keys = append(keys, req.KeysBase64...)
	switch {
	case len(keys) == 0:
		return nil, errors.New("The body names no keys: send {\"keys\":[…]}.") //nolint:staticcheck // a sentence for the client
	case len(keys) > batchKeys:
		return nil, fmt.Errorf("At most %d keys at a time.", batchKeys) //nolint:staticcheck // a sentence for the client
	}
	return keys, nil
}
