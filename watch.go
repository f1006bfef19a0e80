package kkv

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/kkv-project/kkv/internal/wire"
)

// silence is how long a watch may say nothing before its connection is given up for dead. A server sends a progress
// line at least every 10 s (issue 6; CLIENT.md).
const silence = 30 * time.Second

// maxLine bounds a line of a watch, in bytes: far above what Kafka lets into a record.
const maxLine = 1 << 30

// WatchOptions say which keys a watch is about, and from where on. The zero value is the state of all keys, with values,
// and then every change.
type WatchOptions struct {
	Key    string // only this key, if not empty
	Prefix string // only keys that begin so
	// Since leaves out what was told up to this position, which came from a watch, a read or a mirror: first come exactly the
	// keys that were put or deleted since, each as it is now, up to a Synced. Where no server can know every delete since
	// then, the whole state comes instead, after a Reset.
	Since Position
	// SinceNow leaves out the state: a Synced comes first, and then changes. It excludes Since.
	SinceNow bool
	KeysOnly bool // leave values out
}

// query is all but since.
func (o *WatchOptions) query() string {
	q := make([]string, 0, 3)
	if o.Key != "" {
		q = append(q, "key="+escape(o.Key))
	}
	if o.Prefix != "" {
		q = append(q, "prefix="+escape(o.Prefix))
	}
	if o.KeysOnly {
		q = append(q, "values=false")
	} else {
		q = append(q, "values=true")
	}
	return "?" + strings.Join(q, "&")
}

// since is what a watch with these options asks for at first.
func (o *WatchOptions) since() (string, error) {
	switch {
	case o.SinceNow && !o.Since.IsZero():
		return "", errors.New("WatchOptions has both Since and SinceNow; set one")
	case o.SinceNow:
		return "now", nil
	}
	return o.Since.String(), nil
}

// Watch is the state of the keys asked for, as Puts up to a Synced, and then every change as it comes, in log order
// per key. It runs in the caller's goroutine, for as long as the caller iterates.
//
// It reconnects for ever, to the servers in turn, and resumes where it was: what was put or deleted meanwhile comes as
// Puts and Deletes up to a Synced, each key as it is by then; the events of a batch that a lost connection cut short come
// again. Where a server cannot know every delete since (and where a connection was lost before the first Synced, or during
// a reset) the whole state comes anew: a Reset, then Puts up to a Synced; what was not put again by then is gone.
//
// It ends with an error, its last element, when ctx ends or when the servers refuse the request (a wrong token, an
// unknown topic). A state is never older than what this client has read and written before. To go on from there later, keep the Position of the last Change that had one and give it as Since.
func (c *Client) Watch(ctx context.Context, o WatchOptions) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		r := resumer{yield: yield}
		var err error
		if r.since, err = o.since(); err == nil {
			r.w = watch{c: c, query: o.query(), since: func() string { return r.since }, begin: r.begin, change: r.change, fatal: r.fatal}
			err = r.w.run(ctx)
		}
		if !errors.Is(err, errStop) {
			yield(Change{}, fmt.Errorf("kkv: watch: %w", err))
		}
	}
}

// resumer turns the lines of one watch over many connections into Changes, and knows from where to resume.
type resumer struct {
	w     watch
	yield func(Change, error) bool
	since string // what to ask for next: "", "now" or a position
	own   bool   // since was told by a server
	told  bool   // something was yielded
}

// begin takes back what was told so far where the state comes anew.
func (r *resumer) begin(since string) error {
	if since == "" && r.told {
		return r.emit(Change{Kind: Reset, Reason: "reconnected"})
	}
	return nil
}

func (r *resumer) emit(ch Change) error {
	r.told = true
	if !r.yield(ch, nil) {
		return errStop
	}
	return nil
}

func (r *resumer) change(l *wire.Change, p Position) error {
	switch {
	case l.Type == wire.Reset: // until the state is whole there is nothing to resume from
		r.since, r.own = "", false
	case !p.IsZero():
		r.since, r.own = p.String(), true
	}
	k, ok := kindOf(l.Type)
	if !ok {
		return nil
	}
	ch := Change{Kind: k, Position: p, Reason: l.Reason}
	if l.HasKey() {
		ch.Entry = entryOf(l)
	}
	return r.emit(ch)
}

func (r *resumer) fatal(err error) bool {
	var se *StatusError
	if !errors.As(err, &se) {
		return true
	}
	if r.own && refusesSince(se) { // a watch that stood goes on in any case
		r.since, r.own = "", false
		return false
	}
	return !(r.w.opened && se.Status == http.StatusNotFound) // a topic that was there may come back
}

// refusesSince reports whether an answer may be about the position rather than the rest of the request.
func refusesSince(e *StatusError) bool {
	return e.Status == http.StatusBadRequest || e.Status == http.StatusConflict
}

var (
	errStop   = errors.New("the reader stopped")
	errSilent = fmt.Errorf("the server said nothing for %v", silence)
)

// errClosing: the server ends the stream in good order.
type errClosing struct{ retry time.Duration }

func (e *errClosing) Error() string { return "the server is closing" }

// watch reads one watch for ever, over as many connections as it takes. It is for one goroutine.
type watch struct {
	c     *Client
	query string
	// since is called before each request, and says from where on: a position, "now", or "" for the whole state.
	since func() string
	// begin is called when the server has accepted the request.
	begin func(since string) error
	// change is called with each line that is not Closing, and its position, zero if it has none.
	change func(*wire.Change, Position) error
	// fatal decides whether to end for an answer that refuses the request.
	fatal func(error) bool
	// lost hears of every failure, if not nil.
	lost func(error)

	server  int  // the one to ask
	resumes bool // it was asked from a position on
	opened  bool // the servers accepted the watch at least once
	synced  bool // and sent the whole state at least once
	good    bool // the current connection has
	away    bool // it was logged that there is no connection
}

// run ends with ctx's cause, errStop, or the answer that fatal found to be so.
func (w *watch) run(ctx context.Context) error {
	var b backoff
	n := len(w.c.servers)
	w.server = int(w.c.at.Load())
	refused, tried := 0, 0 // in a row
	for {
		w.good = false
		err := w.connect(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, errStop):
			return err
		}
		if w.lost != nil {
			w.lost(err)
		}
		if w.good {
			b.failures, tried = 0, 0
			w.away = true
			w.c.log.Warn("lost the watch; reconnecting", "server", w.name(), "err", err)
		}
		refused++
		switch {
		case errors.Is(err, ErrReset) && !w.resumes: // what this client had seen before is of another time
			w.c.forget()
			refused = 0
		case !refuses(err) || !w.fatal(err):
			refused = 0
		}
		if refused >= n {
			return err
		}
		if !w.synced && !w.away && (tried+1)%n == 0 && !errors.Is(err, ErrNotReady) { // a server that loads is no trouble
			w.away = true
			w.c.log.Warn("cannot watch yet; trying again until it works", "server", w.name(), "err", err)
		}
		w.server = (w.server + 1) % n
		if tried++; tried%n != 0 { // another server was not asked yet
			err = sleep(ctx, rand.N(minBackoff))
		} else {
			err = w.pause(ctx, &b, err)
		}
		if err != nil {
			return err
		}
	}
}

// pause waits before all servers are tried again. err is the failure of the last one.
func (w *watch) pause(ctx context.Context, b *backoff, err error) error {
	limit, least := maxBackoff, time.Duration(0)
	if !w.synced || errors.Is(err, ErrNotReady) {
		limit = startupBackoff
	}
	var closing *errClosing
	var se *StatusError
	switch {
	case errors.As(err, &closing):
		least = min(closing.retry, maxBackoff)
	case errors.As(err, &se):
		least = min(se.RetryAfter, limit)
	}
	return b.wait(ctx, limit, least)
}

func (w *watch) name() string {
	if u, err := url.Parse(w.c.servers[w.server]); err == nil {
		return u.Redacted()
	}
	return ""
}

// connect reads one connection to its end, which is always an error.
func (w *watch) connect(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer idle.Stop()
	err := w.stream(ctx, idle)
	if errors.Is(context.Cause(ctx), errSilent) {
		return errSilent
	}
	return err
}

func (w *watch) stream(ctx context.Context, idle *time.Timer) error {
	topic, err := w.c.topicPath(ctx)
	if err != nil {
		return err
	}
	path := topic + "/watch" + w.query
	since := w.since()
	w.resumes = since != "" && since != "now"
	if since != "" {
		path += "&since=" + since // unreserved characters all
	}
	resp, err := w.c.send(ctx, w.server, call{method: http.MethodGet, path: path, accept: "application/x-ndjson",
		anyPosition: w.resumes})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return statusError(resp)
	}
	if typ, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); typ != "application/x-ndjson" {
		return fmt.Errorf("the answer is %q, not application/x-ndjson; is this a kkv server?", typ)
	}
	w.opened = true
	w.c.prefer(w.server)
	if err := w.begin(since); err != nil {
		return err
	}
	r := bufio.NewReaderSize(idleReader{resp.Body, idle}, 64<<10)
	var buf []byte
	for {
		if buf, err = readLine(r, buf[:0]); err != nil {
			return fmt.Errorf("read the watch: %w", err)
		}
		if err := w.line(buf); err != nil {
			return err
		}
		if cap(buf) > 1<<20 { // one large value need not be paid for ever
			buf = nil
		}
	}
}

func (w *watch) line(buf []byte) error {
	l, err := wire.ParseNDJSON(buf)
	if err != nil {
		return err
	}
	if l.Type == wire.Closing {
		return &errClosing{time.Duration(l.RetryMs) * time.Millisecond}
	}
	p, err := ParsePosition(l.Position)
	if err != nil {
		return fmt.Errorf("a %s line of the watch: %w", l.Type, err)
	}
	if !p.IsZero() {
		w.c.saw(p)
	}
	if err := w.change(&l, p); err != nil {
		return err
	}
	if l.Type == wire.Synced {
		if w.away {
			w.away = false
			msg := "the watch is back"
			if !w.synced {
				msg = "the watch stands"
			}
			w.c.log.Info(msg, "server", w.name())
		}
		w.synced, w.good = true, true
	}
	return nil
}

// idleReader puts the timer off with every byte that comes, so that a large value on a slow line is no silence.
type idleReader struct {
	r     io.Reader
	timer *time.Timer
}

func (r idleReader) Read(b []byte) (int, error) {
	n, err := r.r.Read(b)
	if n > 0 {
		r.timer.Reset(silence)
	}
	return n, err
}

// readLine appends the next line to buf, without its line break. A last line without one was cut off: an error.
func readLine(r *bufio.Reader, buf []byte) ([]byte, error) {
	for {
		part, err := r.ReadSlice('\n')
		buf = append(buf, part...)
		switch {
		case err == nil:
			return buf[:len(buf)-1], nil
		case len(buf) > maxLine:
			return nil, fmt.Errorf("a line is longer than %d bytes", maxLine)
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(buf) > 0:
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}
