package httpapi

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kkv-project/kkv/internal/cache"
	"github.com/kkv-project/kkv/internal/feed"
	"github.com/kkv-project/kkv/internal/position"
	"github.com/kkv-project/kkv/internal/wire"
)

const (
	writeTimeout  = 10 * time.Second       // for one flush, or half of it; a reader that takes longer is cut off and comes back
	progressEvery = 10 * time.Second       // at most so long is a stream silent
	progressAfter = 500 * time.Millisecond // after changes that were not for this stream, so that its position follows
	flushBytes    = 32 << 10
)

// stream is one watch. Between batches it holds no buffer, for there may be many thousands.
type stream struct {
	s      *Server
	w      http.ResponseWriter
	rc     *http.ResponseController
	sse    bool
	values bool
	prefix []byte
	key    []byte  // nil: every key with prefix
	buf    *[]byte // what is not yet written; nil: nothing
	dirty  bool    // something was written that is not flushed
	timer  *time.Timer
	fires  time.Time         // when timer does; zero: not set
	until  time.Time         // the connection's write deadline
	pos    position.Position // everything up to here has been considered for this stream
	seq    uint64            // the feed's count of changes there
	merged uint64            // changes of which only the outcome was told, since the position was last named
	due    time.Time         // when the stream names its position at the latest
	moved  bool              // changes for others have moved the position since it was named
}

// buffers are the streams' while they have something to write.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// watch answers GET …/watch: the state at one position as puts, synced, and then every change as it is applied, as NDJSON
// or, asked for by Accept, as server-sent events (CLIENT.md). With since, or a Last-Event-ID, what changed since then
// takes the place of the state, or comes after a reset where that cannot be known (GUARANTEES rules 9, 11 and 15).
// since=now leaves the state out.
func (s *Server) watch(w http.ResponseWriter, r *http.Request, q url.Values) {
	defer s.watchers.Add(-1)
	st, since := s.newStream(w, r, q, s.watchers.Add(1))
	if st == nil {
		return
	}
	defer st.release()
	_ = st.run(r, since, askedSince(r, q) == "now") // it ends when the client is gone
}

// askedSince is from where on a watch is asked for. A browser that reconnects sends the URL of its beginning, and in
// Last-Event-ID how far it has come: so that counts.
func askedSince(r *http.Request, q url.Values) string {
	return cmp.Or(r.Header.Get("Last-Event-ID"), q.Get("since"))
}

// newStream reads what is asked for, as one of open watches, or answers why not and returns nil. It is apart from watch
// because what a function needs on its stack it keeps while others run: a watch lives in less than a quarter of 16 KiB, to
// let the runtime take half of that back.
func (s *Server) newStream(w http.ResponseWriter, r *http.Request, q url.Values, open int64) (st *stream, since position.Position) {
	st = &stream{s: s, w: w, rc: http.NewResponseController(w), values: true, prefix: []byte(q.Get("prefix"))}
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
		return nil, since
	}
	if s.isDraining() {
		problem(w, r, http.StatusServiceUnavailable, "draining", "Come back, or ask another replica.")
		return nil, since
	}
	if s.o.MaxWatchers > 0 && open > int64(s.o.MaxWatchers) {
		problem(w, r, http.StatusServiceUnavailable, "too-many-watchers", "This server takes "+strconv.Itoa(s.o.MaxWatchers)+" watches at a time (--max-watchers); come back, or ask another replica.")
		return nil, since
	}
	since, ok := s.since(w, r, q)
	if !ok {
		return nil, since
	}
	if _, err := s.cache.Mark(); err != nil {
		problem(w, r, http.StatusServiceUnavailable, "not-ready", err.Error())
		return nil, since
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
	return st, since
}

// since reads from where on a watch is asked for, and waits until this replica is there; or it answers why not, and
// reports false. A position that is not in this replica's log is left to what follows, which is a reset.
func (s *Server) since(w http.ResponseWriter, r *http.Request, q url.Values) (since position.Position, ok bool) {
	text := askedSince(r, q)
	if text == "" || text == "now" {
		return since, true
	}
	since, err := position.Parse(text)
	if err != nil {
		problem(w, r, http.StatusBadRequest, "bad-position", err.Error())
		return since, false
	}
	if since.AsOf().IsZero() {
		problem(w, r, http.StatusBadRequest, "bad-position", "A position that came from a write alone says nothing of other keys; resume from one that came from a read or a watch.")
		return since, false
	}
	limit, err := timeout(r, q)
	if err != nil {
		problem(w, r, http.StatusBadRequest, "bad-request", err.Error())
		return since, false
	}
	ctx, cancel := context.WithTimeout(r.Context(), limit)
	defer cancel()
	err = s.cache.AtLeast(ctx, since)
	if behind, is := errors.AsType[*cache.Behind](err); is {
		problem(w, r, http.StatusServiceUnavailable, "behind", behind.Error())
		return since, false
	}
	if err != nil && !errors.Is(err, cache.ErrOtherTopic) && !errors.Is(err, cache.ErrTruncated) {
		s.refuse(w, r, err)
		return since, false
	}
	return since, true
}

// run sends the state, or what changed since, and then follows the feed until the client is gone or the server ends
// streams.
func (st *stream) run(r *http.Request, since position.Position, skip bool) error {
	res, err := st.s.cache.Resume(since)
	if err != nil {
		return err
	}
	if err := st.state(res, skip); err != nil {
		return err
	}
	rd := res.Reader
	for err == nil {
		var b *feed.Batch
		var more <-chan struct{}
		b, more, err = rd.TryNext()
		switch {
		case errors.Is(err, feed.ErrLagged):
			rd, err = st.catchUp(st.pos)
		case err != nil:
		case b != nil && b.Reset != "":
			rd, err = st.replaced(b.Reset)
		case b != nil:
			err = st.batch(b)
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
	switch { // the timer goes on from one batch to the next, for each moves due, and mostly back
	case st.timer == nil:
		st.timer, st.fires = time.NewTimer(left), st.due
	case st.fires.IsZero() || st.due.Before(st.fires):
		st.timer.Reset(left)
		st.fires = st.due
	}
	select {
	case <-more:
		return nil
	case <-st.timer.C:
		st.fires = time.Time{}
		return nil
	case <-r.Context().Done():
		return errEnded
	case <-st.s.closing:
		st.end()
		return errEnded
	}
}

// end tells the reader when to come back.
func (st *stream) end() {
	st.emit(&wire.Change{Type: wire.Closing, RetryMs: 500 + rand.Int64N(2500)}) // spread out, so that they do not come back all at once
	_ = st.flush()
}

// state sends what res tells, or nothing, and synced, the first to name a position. After a reset, synced says that
// keys not sent since are gone.
func (st *stream) state(res *cache.Resume, skip bool) error {
	if res.Reset != "" {
		st.emit(&wire.Change{Type: wire.Reset, Reason: res.Reset})
	}
	keys := 0
	if !skip {
		var err error
		if keys, err = st.changes(res); err != nil {
			return err
		}
	}
	st.at(res)
	st.emit(&wire.Change{Type: wire.Synced, Position: res.Mark.Text, Keys: keys})
	return st.flush()
}

// at is where the stream is with res.
func (st *stream) at(res *cache.Resume) {
	st.pos, st.seq, st.due, st.moved = res.Mark.Position, res.Reader.Seq, time.Now().Add(progressEvery), false
}

// changes sends what of res is for this stream, and counts it. A reader that makes it last longer than a list may, and
// so holds its snapshot, is told to come back and cut off (GUARANTEES rule 19).
func (st *stream) changes(res *cache.Resume) (n int, err error) {
	until := time.Now().Add(st.s.o.ListTimeout)
	for ch := range res.All(st.prefix) {
		if st.key != nil && !bytes.Equal(ch.Key, st.key) {
			continue
		}
		n++
		st.change(ch, "")
		if st.full() {
			if err := st.flush(); err != nil {
				return n, err
			}
			if time.Now().After(until) {
				st.end()
				return n, errEnded
			}
		}
	}
	return n, nil
}

// catchUp sends what changed since then to a stream that fell off the feed's ring, each key as it is now; where that is
// not known, a reset and everything.
func (st *stream) catchUp(since position.Position) (*feed.Reader, error) {
	res, err := st.s.cache.Resume(since)
	if err != nil {
		return nil, err
	}
	if res.Reset != "" {
		return res.Reader, st.state(res, false)
	}
	passed := res.Reader.Seq - st.seq
	told, err := st.changes(res)
	if err != nil {
		return nil, err
	}
	st.at(res)
	if st.key == nil && len(st.prefix) == 0 && passed > uint64(told) { // of other streams' keys it is not known how many passed
		st.merged += passed - uint64(told)
	}
	return res.Reader, st.progress()
}

// replaced starts again with the state that took the place of the one that was served.
func (st *stream) replaced(reason string) (*feed.Reader, error) {
	res, err := st.s.cache.Resume(position.Position{})
	if err != nil {
		return nil, err
	}
	res.Reset = reason
	return res.Reader, st.state(res, false)
}

// Forms in which a batch is encoded once for all streams of all keys.
const (
	formSSE = 1 << iota
	formValues
)

// batch writes what of b is for this stream; its last event carries the position.
func (st *stream) batch(b *feed.Batch) error {
	st.pos, st.seq = b.Position, b.Seq
	if st.key == nil && len(st.prefix) == 0 && len(b.Changes) > 0 && st.s.watchers.Load() > 1 {
		form := 0
		if st.sse {
			form |= formSSE
		}
		if st.values {
			form |= formValues
		}
		if encoded, ok := b.Form(form, func() []byte { return st.encode(b) }); ok {
			st.due, st.moved = time.Now().Add(progressEvery), false
			return st.write(encoded)
		}
	}
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
		return nil
	}
	for i := range b.Changes[:last+1] {
		switch ch := &b.Changes[i]; {
		case i == last:
			st.due, st.moved = time.Now().Add(progressEvery), false
			st.change(ch, b.Position.String())
		case st.wants(ch.Key):
			st.change(ch, "")
		}
		if st.full() {
			if err := st.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// encode is all of b, in the stream's form.
func (st *stream) encode(b *feed.Batch) []byte {
	e := stream{sse: st.sse, values: st.values, buf: new([]byte)}
	for i := range b.Changes {
		pos := ""
		if i == len(b.Changes)-1 {
			pos = b.Position.String()
		}
		e.change(&b.Changes[i], pos)
	}
	return *e.buf
}

func (st *stream) change(ch *feed.Change, pos string) {
	c := wire.Change{Type: wire.Put, Position: pos, Key: ch.Key, Partition: ch.Partition, Offset: ch.Offset, Timestamp: ch.Timestamp, Headers: ch.Headers.List(), Reason: ch.Reason}
	if ch.Deleted {
		c.Type = wire.Delete
	} else if st.values {
		c.Value = ch.Value
	}
	st.emit(&c)
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
	c := wire.Change{Type: wire.Progress, AgeMs: -1, Merged: st.merged}
	if mark, err := st.s.cache.Mark(); err == nil && st.pos.Same(mark.Position) { // not Covers: a log start that is ahead stands for deletes still to be read
		st.pos = mark.Position
		if age, ok := mark.Age(); ok {
			c.AgeMs = age.Milliseconds()
		}
	}
	c.Position, st.due, st.moved, st.merged = st.pos.String(), time.Now().Add(progressEvery), false, 0
	st.emit(&c)
	return st.flush()
}

func (st *stream) emit(c *wire.Change) {
	if st.buf == nil {
		st.buf = buffers.Get().(*[]byte)
	}
	if st.sse {
		*st.buf = wire.AppendSSE(*st.buf, c)
	} else {
		*st.buf = wire.AppendNDJSON(*st.buf, c)
	}
}

// full: it is time to flush.
func (st *stream) full() bool { return st.buf != nil && len(*st.buf) >= flushBytes }

// write writes b behind what is buffered.
func (st *stream) write(b []byte) error {
	if err := st.drain(); err != nil {
		return err
	}
	if now := time.Now(); st.until.Sub(now) < writeTimeout/2 { // setting it costs about as much as a small write
		st.until = now.Add(writeTimeout)
		_ = st.rc.SetWriteDeadline(st.until) // not every ResponseWriter has one
	}
	st.dirty = true
	_, err := st.w.Write(b)
	return err
}

// drain writes what is buffered and gives the buffer back.
func (st *stream) drain() error {
	if st.buf == nil {
		return nil
	}
	b := st.buf
	st.buf = nil
	defer giveBack(b)
	return st.write(*b)
}

func (st *stream) release() {
	if st.buf != nil {
		giveBack(st.buf)
	}
}

// giveBack keeps buffers of the usual size for the next.
func giveBack(b *[]byte) {
	if cap(*b) <= 4*flushBytes {
		*b = (*b)[:0]
		buffers.Put(b)
	}
}

func (st *stream) flush() error {
	if err := st.drain(); err != nil || !st.dirty {
		return err
	}
	st.dirty = false
	return st.rc.Flush()
}
