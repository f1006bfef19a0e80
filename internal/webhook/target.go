package webhook

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/kkv-project/kkv/internal/feed"
	"github.com/kkv-project/kkv/internal/position"
)

// target reads the feed for one receiver and sends it POSTs. All but what mu guards belongs to run's goroutine.
type target struct {
	d      *Dispatcher
	id     string
	cancel context.CancelFunc
	poke   chan struct{} // of capacity 1: url or ready changed

	reader *feed.Reader
	live   bool // something other than skipped history was read

	done     chan error // of capacity 1: how the POST under way ended
	inFlight *post
	retry    *post // the last POST, if it failed
	maxKeys  int
	pause    *time.Timer
	pausing  bool
	tries    int // failures in a row, or since the receiver last moved or turned ready

	mu      sync.Mutex // run writes under it, others read; url, ready and wake are the Dispatcher's to write
	url     string
	ready   bool
	wake    bool // forget the pause: the receiver has moved or turned ready
	start   start
	from    position.Position // where start is fromPosition
	pending *pending
	merged  uint64
	retries uint64
	failing int // failures in a row
	lastErr string
	since   time.Time // of the first of them
}

// start is what a target is told first. It is done, and fromReader from then on, once the cache is ready.
type start int

const (
	fromReader   start = iota // what its reader brings
	fromPosition              // what changed since a position
	fromState                 // everything; from is zero
)

func newTarget(d *Dispatcher, l Target, cancel context.CancelFunc) *target {
	t := &target{d: d, id: l.ID, url: l.URL, ready: l.Ready, cancel: cancel, poke: make(chan struct{}, 1),
		reader: d.o.Source.Reader(), done: make(chan error, 1), maxKeys: d.o.MaxKeysPerPost, pending: newPending()}
	t.start, t.from = d.starts(l.ID)
	return t
}

// starts says how a target starts that has a reader from now on. d.mu is held.
func (d *Dispatcher) starts(id string) (start, position.Position) {
	if at, ok := d.cursors.take(id); ok {
		if at.IsZero() {
			return fromState, at
		}
		return fromPosition, at
	}
	if d.o.Loading() {
		if d.o.V2 {
			return fromState, position.Position{}
		}
		return fromReader, position.Position{} // as the original: what is read once the cache is ready
	}
	from, reaches, ok := d.past.before(time.Now())
	if d.o.V2 && !reaches {
		return fromState, position.Position{}
	}
	if !ok {
		_, from = d.o.Source.Newest(nil)
	}
	return fromPosition, from
}

// update takes over what a new list says of the target.
func (t *target) update(l Target) {
	t.mu.Lock()
	if l.URL != t.url || l.Ready && !t.ready {
		t.wake = true
	}
	t.url, t.ready = l.URL, l.Ready
	t.mu.Unlock()
	select {
	case t.poke <- struct{}{}:
	default:
	}
}

// closed stands for a feed that has more.
var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// run goes on until ctx ends. It never waits for the receiver: while a POST is under way it reads on and merges.
func (t *target) run(ctx context.Context) {
	t.pause = time.NewTimer(0)
	t.pause.Stop()
	defer t.pause.Stop()
	for ctx.Err() == nil {
		more := t.read()
		t.send(ctx)
		select {
		case <-more:
		case err := <-t.done:
			t.ended(ctx, err)
		case <-t.pause.C:
			t.pausing = false
		case <-t.poke:
		case <-ctx.Done():
		}
	}
	if t.inFlight != nil {
		t.ended(ctx, <-t.done) // promptly, for its context has ended
	}
}

// read merges one batch, if there is one, and returns a channel that is closed when there is more to read.
func (t *target) read() <-chan struct{} {
	if t.start != fromReader && !t.d.o.Loading() {
		t.begin()
		return closed
	}
	b, more, err := t.reader.TryNext()
	switch {
	case err != nil: // ErrLagged
		t.lagged()
	case b == nil:
		return more
	case t.start != fromReader: // begin finds it in the cache
	case b.History && !t.d.o.History:
		t.mu.Lock()
		t.pending.read(b.Position)
		t.mu.Unlock()
	case b.Reset != "":
		t.live = true
		t.vanished(b)
		t.catchUp(position.Position{}, b.Reset)
		// The state just merged does not name what was deleted between the reset and now.
		t.catchUp(b.Position, b.Reset)
	default:
		t.live = true
		t.merge(b)
	}
	return closed
}

// begin tells what is to be told first.
func (t *target) begin() {
	t.live = true
	t.catchUp(t.from, reasonNone)
}

// cursor is up to where the target was told; ok is false while that is not known.
func (t *target) cursor() (at position.Position, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.start != fromReader {
		return t.from, true
	}
	return t.pending.cursor(false)
}

// vanished merges the deletes of the keys that went with the state that b replaces. The state that is merged next takes back
// those of them that have come again.
func (t *target) vanished(b *feed.Batch) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range b.Changes {
		if c := &b.Changes[i]; t.d.carries(c.Key) {
			t.pending.add(c, false, now)
		}
	}
}

func (t *target) merge(b *feed.Batch) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range b.Changes {
		if c := &b.Changes[i]; t.d.carries(c.Key) && t.pending.add(c, t.d.form.quiet(c), now) {
			t.merged++
		}
	}
	t.pending.read(b.Position)
}

// lagged finds the way back after falling off the ring.
func (t *target) lagged() {
	if !t.live && !t.d.o.History {
		// What was missed may all be history. It is, if loading goes on after a new reader was taken.
		r := t.d.o.Source.Reader()
		if t.d.o.Loading() {
			t.reader = r
			return
		}
	}
	t.live = true
	t.catchUp(t.pending.trail.last(), reasonNone)
}

// catchUp merges what changed since then, or the whole state for the zero Position, for which there is a reason. What
// it merges is told even if the value is an equal one: that cannot be known here.
func (t *target) catchUp(since position.Position, reason string) {
	var changes []feed.Change
	at, reset, r := t.d.o.Source.ChangedSince(since, func(c feed.Change) {
		if t.d.carries(c.Key) {
			c.Key, c.Value, c.Headers = bytes.Clone(c.Key), nil, nil
			changes = append(changes, c)
		}
	})
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if since.IsZero() || reset != "" {
		before := t.pending.trail.last()
		t.pending.replace(changes, at, cmp.Or(reset, reason), at.TopicID() != before.TopicID(), now)
	} else {
		if len(t.pending.trail) == 0 {
			t.pending.read(since)
		}
		t.merged += t.pending.addAll(changes, now)
		t.pending.read(at)
	}
	t.reader, t.start = r, fromReader
}

// reasonNone: a target is told the whole state since no position is known up to which it was told.
const reasonNone = "no-position"

// send sends the next POST, if it is time for one.
func (t *target) send(ctx context.Context) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.wake {
		t.wake, t.pausing, t.tries = false, false, 0
		t.pause.Stop()
	}
	if t.inFlight != nil || t.pausing || !t.ready {
		return
	}
	n := t.retry
	t.retry = nil
	if n != nil && t.d.form.current(t.pending, n) {
		t.pending.renew(n)
	} else if n = t.d.form.next(t.pending, t.maxKeys); n == nil {
		return
	}
	if t.failing > 0 {
		t.retries++
	}
	t.inFlight = n
	url := t.url
	go func() { t.done <- t.d.send(ctx, url, n) }()
}

// ended takes in how the POST under way ended.
func (t *target) ended(ctx context.Context, err error) {
	n := t.inFlight
	t.inFlight = nil
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		t.d.ok.Add(1)
		t.pending.told(n, time.Now())
		if t.failing > 0 {
			t.d.o.Logger.Info("webhook target answers again", "target", t.id, "topic", t.d.o.Topic,
				"failures", t.failing, "after", time.Since(t.since).Round(time.Millisecond))
		}
		t.failing, t.tries, t.lastErr = 0, 0, ""
		return
	}
	if ctx.Err() != nil {
		return // cancelled by us
	}
	t.d.failures.Add(1)
	t.merged += t.pending.failed(n)
	t.retry = n
	if status := statusError(0); errors.As(err, &status) && status == http.StatusRequestEntityTooLarge && len(n.items) > 1 {
		t.maxKeys, t.retry = len(n.items)/2, nil
	}
	t.failing++
	t.tries++
	t.lastErr = err.Error()
	if t.failing == 1 {
		t.since = time.Now()
		t.d.o.Logger.Warn("webhook target fails; changes accumulate and are tried again for ever",
			"target", t.id, "topic", t.d.o.Topic, "pendingKeys", len(t.pending.keys), "error", err)
	}
	t.pausing = true
	t.pause.Reset(pause(t.d.o.Backoff, t.tries))
}

// pause is how long to wait after so many failures in a row.
func pause(base time.Duration, failures int) time.Duration {
	d := base
	for i := 1; i < failures && d < maxBackoff; i++ {
		d = min(2*d, maxBackoff)
	}
	return d - rand.N(d/2+1)
}
