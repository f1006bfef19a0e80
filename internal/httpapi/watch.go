package httpapi

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/kkv-project/kkv/internal/feed"
	"github.com/kkv-project/kkv/internal/position"
	"github.com/kkv-project/kkv/internal/store"
	"github.com/kkv-project/kkv/internal/wire"
)

const (
	writeTimeout  = 10 * time.Second       // for one flush; a reader that takes longer is cut off and comes back
	progressEvery = 10 * time.Second       // at most so long is a stream silent
	progressAfter = 500 * time.Millisecond // after changes that were not for this stream, so that its position follows
	flushBytes    = 32 << 10
	reasonHorizon = "beyond-horizon" // what happened since the position asked for, or while lagging, is not known
)

// stream is one watch.
type stream struct {
	s      *Server
	w      http.ResponseWriter
	rc     *http.ResponseController
	sse    bool
	values bool
	prefix []byte
	key    []byte // nil: every key with prefix
	buf    []byte
	pos    position.Position // everything up to here has been considered for this stream
	due    time.Time         // when the stream names its position at the latest
	moved  bool              // changes for others have moved the position since it was named
}

// watch answers GET …/watch: the state at one position as puts, synced, and then every change as it is applied,
// as NDJSON or, asked for by Accept, as server-sent events (CLIENT.md). since=now leaves the state out. Any other
// since, or a Last-Event-ID, gets a reset and the whole state, which is always a right answer to it.
func (s *Server) watch(w http.ResponseWriter, r *http.Request, q url.Values) {
	st := &stream{s: s, w: w, rc: http.NewResponseController(w), values: true, prefix: []byte(q.Get("prefix"))}
	if q.Has("key") {
		st.key = []byte(q.Get("key"))
		st.prefix = st.key
	}
	switch q.Get("values") {
	case "", "true":
	case "false":
		st.values = false
	default:
		problem(w, r, http.StatusBadRequest, "bad-request", "values is true or false.")
		return
	}
	since := q.Get("since")
	if since == "" {
		since = r.Header.Get("Last-Event-ID")
	}
	reset := ""
	if since != "" && since != "now" {
		p, err := position.Parse(since)
		if err != nil {
			problem(w, r, http.StatusBadRequest, "bad-position", err.Error())
			return
		}
		if reset = reasonHorizon; p.AsOf().IsZero() {
			problem(w, r, http.StatusBadRequest, "bad-position", "A position that came from a write alone says nothing of other keys; resume from one that came from a read or a watch.")
			return
		}
	}
	select {
	case <-s.draining:
		problem(w, r, http.StatusServiceUnavailable, "draining", "Come back, or ask another replica.")
		return
	default:
	}
	if _, err := s.cache.Mark(); err != nil {
		problem(w, r, http.StatusServiceUnavailable, "not-ready", err.Error())
		return
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would hold the stream back
	h.Set("Vary", "Accept, Last-Event-ID")
	h.Set("Content-Type", "application/x-ndjson")
	for _, a := range r.Header.Values("Accept") {
		if strings.Contains(a, "text/event-stream") {
			st.sse = true
			h.Set("Content-Type", "text/event-stream")
		}
	}
	_ = st.run(r, reset, since == "now") // it ends when the client is gone
}

// run sends the state and then follows the feed until the client is gone or the server drains.
func (st *stream) run(r *http.Request, reset string, skipState bool) error {
	rd, err := st.state(reset, skipState)
	for err == nil {
		var b *feed.Batch
		var more <-chan struct{}
		b, more, err = rd.TryNext()
		switch {
		case errors.Is(err, feed.ErrLagged):
			rd, err = st.state(reasonHorizon, false)
		case err != nil:
		case b != nil && b.Reset != "":
			rd, err = st.state(b.Reset, false)
		case b != nil:
			st.batch(b)
			if len(st.buf) >= flushBytes {
				err = st.flush()
			}
		default:
			if err = st.flush(); err == nil {
				err = st.wait(r, more)
			}
		}
	}
	return err
}

var errEnded = errors.New("the watch has ended")

// wait returns when there is more in the feed; meanwhile it says how far the stream is.
func (st *stream) wait(r *http.Request, more <-chan struct{}) error {
	left := time.Until(st.due)
	if left <= 0 { // also while changes for others keep coming
		return st.progress()
	}
	t := time.NewTimer(left)
	defer t.Stop()
	select {
	case <-more:
		return nil
	case <-t.C:
		return st.progress()
	case <-r.Context().Done():
		return errEnded
	case <-st.s.closing:
		st.emit(&wire.Change{Type: wire.Closing, RetryMs: 500 + rand.Int64N(2500)}) // spread out, so that they do not come back all at once
		_ = st.flush()
		return errEnded
	}
}

// state sends everything as puts, after a reset if there is a reason for one, and synced; the reader returned
// goes on from there.
func (st *stream) state(reset string, skip bool) (*feed.Reader, error) {
	snap, mark, rd, err := st.s.cache.Watch()
	if err != nil {
		return nil, err
	}
	if reset != "" {
		st.emit(&wire.Change{Type: wire.Reset, Reason: reset})
	}
	keys := 0
	if !skip {
		for rec := range snap.All(st.prefix, nil) {
			if st.key != nil && !bytes.Equal(rec.Key, st.key) {
				continue
			}
			keys++
			st.emit(st.put(rec))
			if len(st.buf) >= flushBytes {
				if err := st.flush(); err != nil {
					return nil, err
				}
			}
		}
	}
	st.pos, st.due = mark.Position, time.Now().Add(progressEvery)
	st.emit(&wire.Change{Type: wire.Synced, Position: mark.Text, Keys: keys})
	return rd, st.flush()
}

func (st *stream) put(r *store.Record) *wire.Change {
	c := &wire.Change{Type: wire.Put, Key: r.Key, Partition: r.Partition, Offset: r.Offset, Timestamp: r.Timestamp, Headers: r.Headers.List()}
	if st.values {
		c.Value = r.Value
	}
	return c
}

// batch writes what of b is for this stream; its last event carries the position.
func (st *stream) batch(b *feed.Batch) {
	st.pos = b.Position
	last := -1
	for i := range b.Changes {
		if st.wants(b.Changes[i].Key) {
			last = i
		}
	}
	if last < 0 {
		if soon := time.Now().Add(progressAfter); soon.Before(st.due) && !st.moved { // once: a busy topic must not put it off
			st.due, st.moved = soon, true
		}
		return
	}
	for i := range b.Changes[:last+1] {
		ch := &b.Changes[i]
		if !st.wants(ch.Key) {
			continue
		}
		c := wire.Change{Type: wire.Put, Key: ch.Key, Partition: ch.Partition, Offset: ch.Offset, Timestamp: ch.Timestamp, Headers: ch.Headers.List(), Reason: ch.Reason}
		if ch.Deleted {
			c.Type = wire.Delete
		} else if st.values {
			c.Value = ch.Value
		}
		if i == last {
			c.Position, st.due, st.moved = b.Position.String(), time.Now().Add(progressEvery), false
		}
		st.emit(&c)
	}
}

func (st *stream) wants(key []byte) bool {
	if st.key != nil {
		return bytes.Equal(key, st.key)
	}
	return bytes.HasPrefix(key, st.prefix)
}

// progress names the position that this stream has reached; where the cache's is the same vector, with the later
// time at which that was proved current.
func (st *stream) progress() error {
	c := wire.Change{Type: wire.Progress, AgeMs: -1}
	if mark, err := st.s.cache.Mark(); err == nil && st.pos.Covers(mark.Position) {
		st.pos = mark.Position
		if age, ok := mark.Age(); ok {
			c.AgeMs = age.Milliseconds()
		}
	}
	c.Position, st.due, st.moved = st.pos.String(), time.Now().Add(progressEvery), false
	st.emit(&c)
	return st.flush()
}

func (st *stream) emit(c *wire.Change) {
	if st.sse {
		st.buf = wire.AppendSSE(st.buf, c)
	} else {
		st.buf = wire.AppendNDJSON(st.buf, c)
	}
}

func (st *stream) flush() error {
	if len(st.buf) == 0 {
		return nil
	}
	_ = st.rc.SetWriteDeadline(time.Now().Add(writeTimeout)) // not every ResponseWriter has one
	if _, err := st.w.Write(st.buf); err != nil {
		return err
	}
	st.buf = st.buf[:0]
	if cap(st.buf) > 4*flushBytes {
		st.buf = nil // one large batch must not stay with an idle watcher
	}
	return st.rc.Flush()
}
