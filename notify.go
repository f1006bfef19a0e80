package kkv

import (
	"context"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
)

// mergeAt is how many updates may wait for slow callbacks before those of one key are merged into its newest.
const mergeAt = 1 << 16

// notifier calls the callbacks of a Mirror, from one goroutine, in the order in which updates were posted. Posting
// never waits: else a callback that itself waits for the mirror (Put, WaitFor) could never end.
type notifier struct {
	log     *slog.Logger
	wake    chan struct{} // has room for one
	pending atomic.Int64
	merged  atomic.Uint64
	panics  atomic.Uint64

	mu       sync.Mutex
	seq      uint64 // of the newest update posted
	queue    []queued
	limit    int        // queue length at which to merge
	handlers []*handler // replaced, never changed
}

type queued struct {
	seq uint64
	Update
}

type handler struct {
	f       func(Update)
	after   uint64 // registered when this was the newest update: older ones are none of its business
	stopped atomic.Bool
}

func newNotifier(log *slog.Logger) *notifier {
	return &notifier{log: log, wake: make(chan struct{}, 1), limit: mergeAt}
}

// add registers f for updates that are posted from now on.
func (n *notifier) add(f func(Update)) (stop func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := &handler{f: f, after: n.seq}
	n.handlers = append(slices.Clip(n.handlers), h)
	return func() {
		if h.stopped.Swap(true) {
			return
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		n.handlers = slices.DeleteFunc(slices.Clone(n.handlers), func(o *handler) bool { return o == h })
	}
}

func (n *notifier) post(us []Update) {
	if len(us) == 0 {
		return
	}
	n.mu.Lock()
	if len(n.handlers) == 0 {
		n.seq += uint64(len(us))
		n.mu.Unlock()
		return
	}
	for _, u := range us {
		n.seq++
		n.queue = append(n.queue, queued{n.seq, u})
	}
	n.pending.Add(int64(len(us)))
	if len(n.queue) > n.limit {
		n.merge()
	}
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// merge keeps of every key in the queue the newest update, at its own place, so that what waits is bounded by the
// number of keys.
func (n *notifier) merge() {
	before := len(n.queue)
	seen := make(map[string]struct{}, before/2)
	kept := make([]queued, 0, before/2)
	for _, q := range slices.Backward(n.queue) {
		if _, ok := seen[q.Key]; !ok {
			seen[q.Key] = struct{}{}
			kept = append(kept, q)
		}
	}
	slices.Reverse(kept)
	n.queue = kept
	n.limit = max(mergeAt, 2*len(kept)) // or a queue of as many keys would be merged at every post
	n.merged.Add(uint64(before - len(kept)))
	n.pending.Add(int64(len(kept) - before))
}

// run calls callbacks until ctx ends. What is queued then is dropped.
func (n *notifier) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.wake:
		}
		n.mu.Lock()
		batch := n.queue
		n.queue, n.limit = nil, mergeAt
		n.mu.Unlock()
		for _, q := range batch {
			n.mu.Lock()
			handlers := n.handlers
			n.mu.Unlock()
			for _, h := range handlers {
				if ctx.Err() != nil {
					return
				}
				if h.after < q.seq && !h.stopped.Load() {
					n.call(h, q.Update)
				}
			}
			n.pending.Add(-1)
		}
	}
}

// call keeps the panic of one callback from the others, as net/http does for handlers.
func (n *notifier) call(h *handler, u Update) {
	defer func() {
		if p := recover(); p != nil {
			n.panics.Add(1)
			n.log.Error("a callback of OnUpdate panicked", "key", u.Key, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	h.f(u)
}
