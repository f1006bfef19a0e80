package kkv

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kkv-project/kkv/internal/position"
)

// Mirror is a topic, or the keys of it that begin with a prefix, in the application's memory, kept current by a
// watch. It is safe for concurrent use. Its reads never wait, neither for the network nor for each other.
//
// While the servers are away it keeps what it has and reconnects for ever; [Stats] tell. After a reconnection it takes in
// what changed meanwhile, deletes included, in one step; or the whole state, where a server cannot know every delete
// since. It never goes back: what a replica says is taken over only when it is no older than what the mirror shows.
type Mirror struct {
	c      *Client
	prefix string
	ctx    context.Context // ends with the mirror, or when it was refused; its cause says why
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
	notify *notifier

	state  atomic.Pointer[state] // nil until the first one is whole
	live   atomic.Bool
	counts counts

	ready chan struct{} // closed when the first state is whole

	mu      sync.Mutex
	moved   chan struct{} // closed when state changes; nil while nobody waits for that
	lastErr error         // of the latest connection
}

// state is what a mirror shows at one position. It is immutable.
type state struct {
	root  *node
	pos   Position
	keys  int
	bytes int64
}

type counts struct {
	updates, resets, connects, failures atomic.Uint64
	heard                               atomic.Int64
}

// Open starts a Mirror and does not wait for it: [Mirror.Ready] does. Its error is about o only. The mirror ends
// with [Mirror.Close], or with ctx.
func Open(ctx context.Context, o Options) (*Mirror, error) {
	c, err := NewClient(o)
	if err != nil {
		return nil, err
	}
	m := &Mirror{c: c, prefix: o.Prefix, notify: newNotifier(c.log), ready: make(chan struct{})}
	m.ctx, m.cancel = context.WithCancelCause(ctx)
	m.wg.Go(func() { m.notify.run(m.ctx) })
	m.wg.Go(m.run)
	return m, nil
}

// Close ends the mirror and waits for its goroutines, thus for a callback that is running too: do not call it from
// one. Updates that no callback has heard of yet are dropped. Get and All go on answering from the last state.
// It returns nil, any number of times.
func (m *Mirror) Close() error {
	m.cancel(ErrClosed)
	m.wg.Wait()
	if m.c.own != nil {
		m.c.own.CloseIdleConnections()
	}
	return nil
}

// Ready waits until the first state is whole. It ends early, with a *[StatusError], when the servers refuse the
// token or know no such topic; then the mirror stays empty for good. When ctx ends first, the error wraps
// ErrNotReady and what went wrong last.
func (m *Mirror) Ready(ctx context.Context) error {
	select {
	case <-m.ready:
	case <-m.ctx.Done():
	case <-ctx.Done():
		m.mu.Lock()
		last := m.lastErr
		m.mu.Unlock()
		if last == nil {
			return fmt.Errorf("kkv: mirror: %w: %w", ErrNotReady, context.Cause(ctx))
		}
		return fmt.Errorf("kkv: mirror: %w: %w; last failure: %w", ErrNotReady, context.Cause(ctx), last)
	}
	if err := m.ended(); err != nil {
		return fmt.Errorf("kkv: mirror: %w", err)
	}
	return nil
}

// ended says why the mirror no longer follows its topic; nil if it does.
func (m *Mirror) ended() error {
	cause := context.Cause(m.ctx)
	if cause == nil || errors.Is(cause, ErrClosed) || refuses(cause) {
		return cause
	}
	return fmt.Errorf("%w: %w", ErrClosed, cause) // Open's context
}

// OnUpdate makes f hear of every change from now on, after Get shows it, in log order per key. Of the first state it
// hears nothing; nor, after a reset or a reconnection, of keys that are as they were: only of the true differences.
// Of a key that vanished in a reset the Update has Offset -1 and no Timestamp, for the record that deleted it was
// not seen.
//
// All callbacks of a mirror run one after the other in one goroutine, so a slow one delays the others, but neither
// Get nor the watch. It may call any method but Close. While very many updates wait (65,536), those of one key are
// merged: its newest state always arrives. A panic is recovered, logged and counted.
//
// stop may be called from f itself. A call that has begun, or is just beginning, may end after stop returned.
func (m *Mirror) OnUpdate(f func(Update)) (stop func()) { return m.notify.add(f) }

// Get is the key's newest record that the mirror has seen. Before the mirror is ready there is none. The Entry's
// Value and Headers must not be modified.
func (m *Mirror) Get(key string) (Entry, bool) {
	if s := m.state.Load(); s != nil {
		if e := s.root.get(key); e != nil {
			return *e, true
		}
	}
	return Entry{}, false
}

// All is every key that begins with prefix, in the order of their bytes, with its Entry, at one position: that at
// which the iteration began, however long it takes. The entries' Values and Headers must not be modified.
func (m *Mirror) All(prefix string) iter.Seq2[string, Entry] {
	return func(yield func(string, Entry) bool) {
		s := m.state.Load()
		if s == nil {
			return
		}
		for e := range s.root.prefixed(prefix) {
			if !yield(e.Key, *e) {
				return
			}
		}
	}
}

// Put writes value, which may be empty, and returns when this mirror shows it (or something newer). The key must
// begin with the mirror's prefix.
//
// The write is acknowledged whenever the position returned is not zero: an error that wraps ErrBehind then says only
// that the mirror did not show it before ctx ended. ErrOutcomeUnknown says that nobody knows.
func (m *Mirror) Put(ctx context.Context, key string, value []byte) (Position, error) {
	return m.write(ctx, "PUT", key, value)
}

// Delete deletes key and returns when this mirror no longer shows it, as [Mirror.Put] does.
func (m *Mirror) Delete(ctx context.Context, key string) (Position, error) {
	return m.write(ctx, "DELETE", key, nil)
}

func (m *Mirror) write(ctx context.Context, method, key string, value []byte) (Position, error) {
	if !strings.HasPrefix(key, m.prefix) {
		return Position{}, fmt.Errorf("kkv: the mirror shows only keys that begin with %q, thus never %q; write by its Client",
			m.prefix, key)
	}
	if err := m.ended(); err != nil {
		return Position{}, fmt.Errorf("kkv: mirror: %w", err)
	}
	w, err := m.c.write(ctx, method, key, value)
	if err != nil {
		return w.pos, err
	}
	// The server may answer how far it is, in all partitions. This mirror need only have come to the record; and
	// with a prefix it hears of other keys' progress only every few seconds.
	want := w.pos
	if w.offset >= 0 && w.partition >= 0 && !want.p.AsOf().IsZero() {
		want = Position{position.FromWrite(want.p.TopicID(), w.partition, w.offset)}
	}
	return w.pos, m.WaitFor(ctx, want)
}

// Sync waits until every write that was acknowledged before the call, whoever made it, is visible here: it asks a server
// for its position by a fresh read and then waits for that. A mirror of a prefix hears of other keys' progress only
// every half second, and may take as long. An error wraps ErrBehind where that was not reached in time.
func (m *Mirror) Sync(ctx context.Context) error {
	if err := m.ended(); err != nil {
		return fmt.Errorf("kkv: mirror: %w", err)
	}
	var now Position
	err := m.c.read(ctx, "/keys?limit=1", []ReadOption{Fresh()}, func(resp *http.Response, _ []byte) (err error) {
		now, err = ParsePosition(resp.Header.Get("Kkv-Position"))
		return err
	})
	if err != nil {
		return fmt.Errorf("kkv: sync: %w", err)
	}
	return m.WaitFor(ctx, now)
}

// WaitFor waits until the mirror's position covers p, so that all that p has seen is visible here. If ctx or the
// mirror ends first, the error wraps ErrBehind beside the reason.
func (m *Mirror) WaitFor(ctx context.Context, p Position) error {
	for {
		moved, ok := m.reached(p)
		if ok {
			return nil
		}
		var why error
		select {
		case <-moved:
			continue
		case <-ctx.Done():
			why = context.Cause(ctx)
		case <-m.ctx.Done():
			why = m.ended()
		}
		return fmt.Errorf("kkv: the mirror is at %q, %w, %q: %w", m.Position(), ErrBehind, p, why)
	}
}

// reached reports whether the mirror covers p, and if not, what is closed when it moves.
func (m *Mirror) reached(p Position) (<-chan struct{}, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.state.Load(); s != nil && s.pos.Covers(p) {
		return nil, true
	}
	if m.moved == nil {
		m.moved = make(chan struct{})
	}
	return m.moved, false
}

// Position is how far the mirror has come; zero before it is ready.
func (m *Mirror) Position() Position {
	if s := m.state.Load(); s != nil {
		return s.pos
	}
	return Position{}
}

// Client is the mirror's own: it reads from the servers, never older than what the mirror shows.
func (m *Mirror) Client() *Client { return m.c }

// Stats are plain numbers about a mirror, for any metrics library. Counters start at 0 with Open.
type Stats struct {
	Ready bool // the first state was whole
	// Live: the watch stands and the state is current up to what was sent on it. False while reconnecting.
	Live      bool
	Keys      int
	Bytes     int64     // of all keys and values
	LastHeard time.Time // when the server last said anything; zero if never

	Updates  uint64 // changes applied since the first state
	Connects uint64 // watches that a server accepted
	Failures uint64 // connections that ended, or did not come about
	Resets   uint64 // states taken over after the first
	Pending  int    // updates that callbacks have not heard of yet
	Merged   uint64 // updates that a newer one of the same key replaced while pending
	Panics   uint64 // of callbacks
}

// Stats are the mirror's numbers now. They cost next to nothing.
func (m *Mirror) Stats() Stats {
	st := Stats{
		Live:     m.live.Load(),
		Updates:  m.counts.updates.Load(),
		Connects: m.counts.connects.Load(),
		Failures: m.counts.failures.Load(),
		Resets:   m.counts.resets.Load(),
		Pending:  int(m.notify.pending.Load()),
		Merged:   m.notify.merged.Load(),
		Panics:   m.notify.panics.Load(),
	}
	if s := m.state.Load(); s != nil {
		st.Ready, st.Keys, st.Bytes = true, s.keys, s.bytes
	}
	if ns := m.counts.heard.Load(); ns != 0 {
		st.LastHeard = time.Unix(0, ns)
	}
	return st
}
