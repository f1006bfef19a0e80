package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/kkv-project/kkv/internal/ingest"
	"github.com/kkv-project/kkv/internal/position"
)

// Errors of the waits. A Behind is the usual one.
var (
	// ErrOtherTopic: the position belongs to another incarnation of the topic.
	ErrOtherTopic = errors.New("the position belongs to another incarnation of the topic")
	// ErrTruncated: the position covers records that the log does not have, or has others in place of.
	ErrTruncated = errors.New("the position covers records that were lost when the log was truncated")
	// ErrTooStale: it cannot be shown that the data is as new as was asked for.
	ErrTooStale = errors.New("the data is older than was asked for, or its age is not known")
)

// Behind says where a wait stood when its time was up.
type Behind struct {
	Partition    int32
	Wanted, Have int64 // fetch positions
	Reason       string
	cause        error
}

// Reasons of a Behind (GUARANTEES rule 6).
const (
	BehindPlain  = "behind"
	BehindOpenTx = "open-transaction"
	BehindLeader = "no-leader"
	BehindMemory = "memory-limit"
)

func (b *Behind) Error() string {
	if b.Reason == BehindLeader {
		return fmt.Sprintf("the leaders could not be asked how far the topic reaches: %v", b.cause)
	}
	text := fmt.Sprintf("partition %d is at %d and %d is wanted", b.Partition, b.Have, b.Wanted)
	switch b.Reason {
	case BehindOpenTx:
		text += ": an open transaction holds the last stable offset back until it ends or times out"
	case BehindMemory:
		text += ": the memory limit holds the partition; raise --max-bytes"
	default:
		text += ": it is being read"
	}
	return text
}

func (b *Behind) Unwrap() error { return b.cause }

// wait blocks until reached holds for the state served, and calls it again whenever the position moves. If it has to
// block, it calls want first, which says to the reader what is waited for. It reports false when ctx ends first.
func (c *Cache) wait(ctx context.Context, reached func(st *state) (bool, error), want func()) (bool, error) {
	for first := true; ; first = false {
		moved, err := c.look(reached)
		if moved == nil || err != nil {
			return err == nil, err
		}
		if first {
			want()
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return false, nil
		}
	}
}

// look returns nil if reached holds for the state served, else a channel that is closed when the position moves.
func (c *Cache) look(reached func(st *state) (bool, error)) (<-chan struct{}, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cur == nil {
		return nil, c.notReady()
	}
	if ok, err := reached(c.cur); ok || err != nil {
		return nil, err
	}
	if c.moved == nil {
		c.moved = make(chan struct{})
	}
	return c.moved, nil
}

// WaitFor waits until the cache serves the record at offset of partition, or has passed it. A zero topicID is any
// incarnation's. Before the cache is ready it waits for that, too. The error is a Behind that wraps ctx's.
func (c *Cache) WaitFor(ctx context.Context, topicID [16]byte, partition int32, offset int64) error {
	select {
	case <-c.ready:
	case <-ctx.Done():
		return &Behind{Partition: partition, Wanted: offset + 1, Reason: BehindPlain, cause: context.Cause(ctx)}
	}
	ok, err := c.wait(ctx, func(st *state) (bool, error) {
		return (topicID == [16]byte{} || st.topicID == topicID) && st.reached(partition, offset+1), nil
	}, func() { c.reader.Want(partition, offset+1) })
	if ok || err != nil {
		return err
	}
	return c.behind(ctx, partition, offset+1)
}

// reached reports whether the partition is there and has what lay below next.
func (st *state) reached(partition int32, next int64) bool {
	return int(partition) < len(st.parts) && st.parts[partition].reached(next)
}

// next is the partition's fetch position, 0 for one that is not there yet.
func (st *state) next(partition int32) int64 {
	if int(partition) < len(st.parts) {
		return st.parts[partition].Next
	}
	return 0
}

func (c *Cache) behind(ctx context.Context, partition int32, wanted int64) error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	b := &Behind{Partition: partition, Wanted: wanted, Reason: BehindPlain, cause: context.Cause(ctx)}
	if c.cur == nil {
		return b
	}
	b.Have, b.Reason = c.cur.next(partition), c.cur.behind(partition)
	return b
}

// behind says what keeps a partition from going on.
func (st *state) behind(partition int32) string {
	if st.held[partition] {
		return BehindMemory
	}
	if int(partition) < len(st.parts) {
		if p := &st.parts[partition]; p.stable >= 0 && p.stable <= p.Next && p.end > p.Next {
			return BehindOpenTx
		}
	}
	return BehindPlain
}

// AtLeast waits until the cache has applied everything that p covers (GUARANTEES rule 6). Errors: ErrNotReady;
// ErrOtherTopic, ErrTruncated, as soon as that can be known; a Behind when ctx ends.
func (c *Cache) AtLeast(ctx context.Context, p position.Position) error {
	if p.IsZero() {
		return nil
	}
	began := time.Now()
	asked := false
	starts := false // whoever issued p knew of records that have expired and are served here
	var missing int32
	reached := func(st *state) (bool, error) {
		if st.topicID != p.TopicID() {
			if asked { // Kafka has another one; or the position's was served here, and another took its place
				return false, ErrOtherTopic
			}
			return false, nil
		}
		asked = true
		reached := true
		for i := range p.Len() {
			want := p.Partition(int32(i))
			if want.Next < 0 {
				continue
			}
			if i < len(st.parts) && (!st.parts[i].holds(want) || st.parts[i].endsBelow(want, began)) {
				return false, ErrTruncated
			}
			is := st.reached(int32(i), want.Next) // an empty partition that is not known yet counts, too
			if i < len(st.parts) && st.parts[i].LogStart < want.LogStart {
				is, starts = false, true
			}
			if reached && !is {
				missing, reached = int32(i), false
			}
		}
		return reached, nil
	}
	c.mu.RLock()
	other := c.cur != nil && c.cur.topicID != p.TopicID()
	c.mu.RUnlock()
	if other { // we may be the old one: ask Kafka, at once
		e, err := c.barriers.pass(ctx, c)
		switch {
		case err != nil:
			return &Behind{Reason: BehindLeader, cause: err}
		case e.TopicID != p.TopicID():
			asked = true
		}
	}
	ok, err := c.wait(ctx, reached, func() {
		for i := range p.Len() {
			if next := p.Partition(int32(i)).Next; next > 0 {
				c.reader.Want(int32(i), next)
			}
		}
		if starts {
			c.reader.WantStarts()
		}
	})
	if ok || err != nil {
		return err
	}
	return c.behind(ctx, missing, p.Partition(missing).Next)
}

// under notes that the record at offset was written under the leader epoch.
func (p *part) under(epoch int32, offset int64) {
	if n := len(p.epochs); epoch >= 0 && (n == 0 || p.epochs[n-1].epoch < epoch) {
		p.epochs = append(p.epochs, epochStart{epoch, offset})
	}
}

// holds reports whether the log read is the one in which want was issued: no epoch above want's began below it
// (KIP-101). A record that compaction took may have begun an epoch earlier than was seen; the test is then kind.
func (p *part) holds(want position.Partition) bool {
	if want.Epoch < 0 {
		return true
	}
	for _, e := range p.epochs {
		if e.epoch > want.Epoch {
			return e.start >= want.Next
		}
	}
	return true
}

// endsBelow reports whether the leader, asked since began, has less than what want covers. Whoever issued want read it up
// to there, below a high watermark, and those do not go back but by truncation. An acknowledged write that nobody has read
// yet (its epoch is not known) may be waited for.
func (p *part) endsBelow(want position.Partition, began time.Time) bool {
	return want.Epoch >= 0 && p.Next < want.Next && p.endAsked.After(began) && p.end < want.Next
}

// Fresh waits until the cache has applied every write that was acknowledged before the call: it asks the leaders how
// far their logs reach, and waits for that (GUARANTEES rule 4). Readers that come while the leaders are being asked
// share the next question, never the one under way. Errors: ErrNotReady; a Behind when ctx ends.
func (c *Cache) Fresh(ctx context.Context) error {
	if _, err := c.Mark(); err != nil {
		return err
	}
	e, err := c.barriers.pass(ctx, c)
	if err != nil {
		return &Behind{Reason: BehindLeader, cause: err}
	}
	missing := int32(0)
	reached := func(st *state) (ok bool, err error) {
		missing, ok = c.covers(st, &e)
		return ok, nil
	}
	ok, err := c.wait(ctx, reached, func() {
		for i, end := range e.Offsets {
			c.reader.Want(int32(i), end)
		}
	})
	if ok || err != nil {
		return err
	}
	return c.behind(ctx, missing, e.Offsets[missing])
}

// covers reports whether st, the state served, has all that the leaders had, and names a partition that lacks something. A
// state that is being replaced by another reading of the same log does not count: that log is not the one it was. What
// is known here of the state's age goes into it.
func (c *Cache) covers(st *state, e *ingest.Ends) (missing int32, ok bool) {
	if st.topicID != e.TopicID || c.next != nil && c.next.topicID == e.TopicID { // what takes its place is being loaded
		return 0, false
	}
	for i, end := range e.Offsets {
		if end > 0 && !st.reached(int32(i), end) {
			return int32(i), false
		}
	}
	for i := range min(len(e.Offsets), len(st.parts)) {
		if st.parts[i].current(e.Asked) {
			st.mark.Store(nil)
		}
	}
	return 0, true
}

// MaxStale returns at once if the data is known to be at most d old, and else does as Fresh. Not met, the error wraps
// ErrTooStale.
func (c *Cache) MaxStale(ctx context.Context, d time.Duration) error {
	m, err := c.Mark()
	if err != nil {
		return err
	}
	if age, ok := m.Age(); ok && age <= d && d > 0 {
		return nil
	}
	if err := c.Fresh(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrTooStale, err)
	}
	return nil
}

// barriers lets many readers share one question to the leaders. At most one is under way.
type barriers struct {
	mu   sync.Mutex
	ctx  context.Context // of Cache.Run; nil outside of it
	busy bool
	next *barrier // not sent yet; nil if nobody waits for one
}

type barrier struct {
	done chan struct{}
	ends ingest.Ends
	err  error
}

// barrierTimeout bounds one question, so that the readers of one that hangs can go on to the next.
const barrierTimeout = 2 * time.Second

// barrierRetry keeps readers from asking again at once where asking fails at once.
const barrierRetry = 20 * time.Millisecond

func (b *barriers) open(ctx context.Context) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ctx = ctx
}

func (b *barriers) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ctx = nil
}

// pass returns an answer to a question that was sent after the call, trying until ctx ends.
func (b *barriers) pass(ctx context.Context, c *Cache) (ingest.Ends, error) {
	for {
		q, err := b.join(c)
		if err != nil {
			return ingest.Ends{}, err
		}
		select {
		case <-q.done:
		case <-ctx.Done():
			return ingest.Ends{}, context.Cause(ctx)
		}
		if q.err == nil {
			return q.ends, nil
		}
		if ctx.Err() != nil || errors.Is(q.err, ingest.ErrNotRunning) {
			return ingest.Ends{}, q.err
		}
		select {
		case <-time.After(barrierRetry):
		case <-ctx.Done():
		}
	}
}

// join returns the question that is sent next.
func (b *barriers) join(c *Cache) (*barrier, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ctx == nil || b.ctx.Err() != nil {
		return nil, ingest.ErrNotRunning
	}
	if b.next == nil {
		b.next = &barrier{done: make(chan struct{})}
	}
	if !b.busy {
		b.busy = true
		ctx := b.ctx
		c.aside.Go(func() { b.run(ctx, c) })
	}
	return b.next, nil
}

// run sends questions, one at a time, until nobody waits for one.
func (b *barriers) run(ctx context.Context, c *Cache) {
	for {
		b.mu.Lock()
		q := b.next
		b.next = nil
		if q == nil {
			b.busy = false
			b.mu.Unlock()
			return
		}
		b.mu.Unlock()
		qctx, cancel := context.WithTimeout(ctx, barrierTimeout)
		q.ends, q.err = c.reader.Ends(qctx)
		cancel()
		close(q.done)
	}
}
