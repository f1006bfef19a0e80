// Package feed hands the changes that a cache has applied to any number of readers, in log order per partition.
//
// It is one ring of batches, bounded in bytes, into which readers hold cursors: the writer never waits for a
// reader and a reader has no queue (DESIGN decision 7). A reader that falls off the ring is told so, by
// ErrLagged, and catches up from the store.
package feed

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/kkv-project/kkv/internal/position"
	"github.com/kkv-project/kkv/internal/wire"
)

// ErrLagged: the reader was slower than the ring is long; batches it has not seen are gone from it.
var ErrLagged = errors.New("the reader fell behind the feed's ring")

// DefaultBytes bounds the ring where New is told no number: some 10,000 changes of 200 bytes. What is in the ring keeps
// the store's memory of it alive, also where that is dead.
const DefaultBytes = 4 << 20

// Change is what one record did to one key. It is immutable.
type Change struct {
	Key       []byte
	Value     []byte // nil if Deleted
	Deleted   bool
	Partition int32
	Offset    int64
	Epoch     int32
	Timestamp int64 // milliseconds since the Unix epoch: the record's own
	Headers   wire.Headers
	// Equal: the value is byte for byte what the key had before; only old webhooks leave such a change out.
	Equal bool
	// Reason says why a key vanished without a tombstone, or "" (GUARANTEES rule 13).
	Reason string
}

// Batch is what one Apply of the cache changed. It is immutable.
type Batch struct {
	Changes []Change
	// Position is the cache's position with this batch applied.
	Position position.Position
	// Reset is the reason why the state was replaced as a whole, or "". Then Changes are of the keys that vanished with
	// it, or went back to an older record, and a reader gets the rest from the store: all of it, or what changed since its
	// position.
	Reset string
	// History: read while loading, before the cache was ready for the first time.
	History bool
	// Seq is how many changes were published up to this batch, those in it included; Publish sets it.
	Seq uint64

	memo memo
}

// memo is what readers have made of a batch.
type memo struct {
	mu    sync.Mutex
	forms map[int][]byte
}

// memoMost bounds the batches that are kept in other forms, which the ring's bytes do not count.
const memoMost = 64 << 10

// Form returns what make made of the batch for the same form before, so that many readers make it once. It is not for
// large batches, of which it says so.
func (b *Batch) Form(form int, make func() []byte) (encoded []byte, ok bool) {
	if b.size() > memoMost {
		return nil, false
	}
	b.memo.mu.Lock()
	defer b.memo.mu.Unlock()
	if e, ok := b.memo.forms[form]; ok {
		return e, true
	}
	if b.memo.forms == nil {
		b.memo.forms = map[int][]byte{}
	}
	e := make()
	b.memo.forms[form] = e
	return e, true
}

func (b *Batch) size() int {
	n := 128
	for i := range b.Changes {
		c := &b.Changes[i]
		n += 160 + len(c.Key) + len(c.Value) + len(c.Headers)
	}
	return n
}

// Feed is safe for concurrent use.
type Feed struct {
	mu    sync.Mutex
	max   int
	ring  []*Batch // ring[i] has number first+i
	first uint64
	bytes int
	seq   uint64        // changes published
	more  chan struct{} // closed and replaced when something is published

	lagged atomic.Int64
}

// New makes a Feed that keeps at least the newest batch and, beyond it, maxBytes; 0 means DefaultBytes.
func New(maxBytes int) *Feed {
	if maxBytes <= 0 {
		maxBytes = DefaultBytes
	}
	return &Feed{max: maxBytes, more: make(chan struct{})}
}

// Publish appends b. The caller must not change it afterwards. It never waits for readers.
func (f *Feed) Publish(b *Batch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seq += uint64(len(b.Changes))
	b.Seq = f.seq
	f.ring = append(f.ring, b)
	f.bytes += b.size()
	drop := 0
	for f.bytes > f.max && drop < len(f.ring)-1 {
		f.bytes -= f.ring[drop].size()
		f.ring[drop] = nil
		drop++
	}
	f.ring = f.ring[drop:]
	f.first += uint64(drop)
	close(f.more)
	f.more = make(chan struct{})
}

// Limit changes the bound of New, from the next Publish on.
func (f *Feed) Limit(maxBytes int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.max = maxBytes
}

// Bytes is how much the ring holds at present, about.
func (f *Feed) Bytes() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bytes
}

// Lagged counts the readers that fell off the ring.
func (f *Feed) Lagged() int64 { return f.lagged.Load() }

// Reader is a cursor whose first Next returns the first batch published after this call. It holds no memory but
// itself and needs no closing.
func (f *Feed) Reader() *Reader {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &Reader{f: f, next: f.first + uint64(len(f.ring)), Seq: f.seq}
}

// Reader is a cursor into a Feed, for one goroutine.
type Reader struct {
	// Seq is the Batch.Seq that the cursor stood at when it was made.
	Seq uint64

	f    *Feed
	next uint64
}

// Next returns the batch under the cursor and moves on, waiting for it if need be. It ends with ctx's error, or
// with ErrLagged for good.
func (r *Reader) Next(ctx context.Context) (*Batch, error) {
	for {
		b, more, err := r.TryNext()
		if b != nil || err != nil {
			return b, err
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// TryNext is Next without waiting: with nothing to return, it returns a channel that is closed when there is.
func (r *Reader) TryNext() (*Batch, <-chan struct{}, error) {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	if r.next < r.f.first {
		r.f.lagged.Add(1)
		return nil, nil, ErrLagged
	}
	if i := r.next - r.f.first; i < uint64(len(r.f.ring)) {
		r.next++
		return r.f.ring[i], nil, nil
	}
	return nil, r.f.more, nil
}
