// Package cache ties a topic's reader, its store and its feed together: what is read becomes readable first and
// is announced after that (DESIGN decision 3), and every answer is a value with the position of the one state
// that it was taken from. What it promises, by the rules of GUARANTEES:
//
//   - Ready: every record is in up to the ends that the topic had at the start (DESIGN decision 2).
//   - Get, GetMany, Snapshot, Watch and Resume answer from one state, with its position (rule 2).
//   - Fresh: every write acknowledged before the call is in (rules 4 and 5). AtLeast, WaitFor: what a position covers is
//     in, or is known not to be of this log (rules 1 and 6). Mark.Age is never less than the truth (rule 7).
//   - Reader and Resume: whoever follows the feed, or comes back with a position, is told of every key that changed, went
//     or expired, or that this cannot be known (rules 9, 11 and 13).
//   - A log that is not the one read any more is read anew beside the state served, and what vanished is told (rules 10
//     and 12).
//   - At its limit of memory a partition stands still; nothing is evicted (rule 19).
package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kkv-project/kkv/internal/feed"
	"github.com/kkv-project/kkv/internal/ingest"
	"github.com/kkv-project/kkv/internal/store"
	"github.com/kkv-project/kkv/internal/wire"
)

// ErrNotReady: the topic has not been read to the end that it had at start.
var ErrNotReady = errors.New("not ready: the topic is still being read")

// The ring of recent changes has a share of the payload's bytes: room for readers to lag in, in proportion to what they
// would have to read otherwise.
const (
	feedShare = 16
	feedMost  = 64 << 20
)

// Stage is how far a Cache is, in the original's numbers (metric kkv_stage).
type Stage int

// The stages, in their order. Assigning: the topic or its leaders are not found yet.
const (
	Created           Stage = 10
	Assigning         Stage = 50
	Resetting         Stage = 60
	PollingHistorical Stage = 80
	Polling           Stage = 90
)

func (s Stage) String() string {
	switch s {
	case Created:
		return "Created"
	case Assigning:
		return "Assigning"
	case Resetting:
		return "Resetting"
	case PollingHistorical:
		return "PollingHistorical"
	case Polling:
		return "Polling"
	}
	return fmt.Sprintf("Stage(%d)", int(s))
}

// Options of a Cache.
type Options struct {
	Ingest ingest.Options
	// FeedBytes bounds the ring of recent changes; 0: feedShare of the payload, within feed.DefaultBytes and feedMost.
	FeedBytes int
	// MaxBytes is what the store may take, in bytes of memory; 0: no limit. Records that need more are held, and
	// their partition stands still, until tombstones or smaller values make room: nothing is evicted (rule 19).
	MaxBytes int64
	// AnnounceHistory: also feed what is read before the cache is ready for the first time.
	AnnounceHistory bool
}

// Cache holds one topic. Its methods are safe for concurrent use. It implements ingest.Sink, whose methods only
// its reader calls.
type Cache struct {
	o      Options
	reader *ingest.Reader
	feed   *feed.Feed
	ready  chan struct{} // closed when the first load is complete

	nullKeys atomic.Int64
	aside    sync.WaitGroup // goroutines that sort, and that ask the leaders
	barriers barriers

	mu      sync.RWMutex
	cur     *state // what is served; nil until the first load is complete
	next    *state // what is being loaded, aside; nil when nothing is
	stage   Stage
	trouble error
	moved   chan struct{} // closed and replaced when the position moves; nil while nobody waits

	retention       time.Duration // the lowest delete.retention.ms seen of this incarnation
	retentionOf     [16]byte      // the incarnation; zero: none was told yet
	resumed, resets int64         // readers that came with a position: told what they missed, or everything
}

// state is one incarnation's store with its position. It is guarded by Cache.mu.
type state struct {
	store   *store.Store
	topicID [16]byte
	parts   []part
	reason  string         // why it replaces another, "" for the first
	ordered chan struct{}  // closed when snapshots can be taken
	held    map[int32]bool // partitions that stand still for want of memory
	mark    atomic.Pointer[Mark]

	// Of the load.
	began          time.Time
	starts, ends   []int64
	records, bytes int64
}

// sortAtOnce is how many keys are sorted under the lock: in about a millisecond.
const sortAtOnce = 5000

// New makes a Cache; nothing runs before Run.
func New(o Options) *Cache {
	c := &Cache{o: o, feed: feed.New(o.FeedBytes), ready: make(chan struct{}), stage: Created}
	c.reader = ingest.New(o.Ingest, c)
	return c
}

// Topic is the name of the topic served.
func (c *Cache) Topic() string { return c.o.Ingest.Topic }

// Run reads the topic until ctx ends, which is no error. See ingest.Reader.Run for the errors that end it.
func (c *Cache) Run(ctx context.Context) error {
	c.mu.Lock()
	c.stage = Assigning
	c.mu.Unlock()
	defer c.aside.Wait()
	c.barriers.open(ctx)
	defer c.barriers.close()
	return c.reader.Run(ctx)
}

// Listable waits until lists and watches can be answered: the cache is ready and its keys are sorted. It ends with
// ctx's error.
func (c *Cache) Listable(ctx context.Context) error {
	select {
	case <-c.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	c.mu.RLock()
	ordered := c.cur.ordered
	c.mu.RUnlock()
	select {
	case <-ordered:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Ready is closed once every record up to the end captured at start is in. It stays so.
func (c *Cache) Ready() <-chan struct{} { return c.ready }

// Load is ingest.Sink's.
func (c *Cache) Load(inc ingest.Incarnation, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := &state{store: store.New(), topicID: inc.TopicID, reason: reason, ordered: make(chan struct{}), held: map[int32]bool{},
		ends: inc.Ends, began: time.Now()}
	if c.o.MaxBytes > 0 {
		st.store.LimitTombstones(c.o.MaxBytes / 10)
	}
	for _, p := range inc.Partitions {
		st.progress(p)
		st.starts = append(st.starts, p.Next)
	}
	c.next = st
	if c.cur == nil {
		c.stage = PollingHistorical
	} else {
		c.stage = Resetting
	}
	c.wake()
}

// Apply is ingest.Sink's.
func (c *Cache) Apply(b *ingest.Batch) (held []ingest.Held) {
	held, starts := c.apply(b)
	for _, p := range starts {
		for !c.expire(p.Partition, p.LogStart) {
		}
	}
	return held
}

// apply is Apply but for what expires with it, since which log starts it returns: the one place where the store changes,
// the position moves and the feed hears of it, in this order and under one lock, so that whoever hears of a change can
// read it.
func (c *Cache) apply(b *ingest.Batch) (held []ingest.Held, starts []ingest.Progress) {
	c.mu.Lock()
	defer c.mu.Unlock()
	st, live := c.writable()
	if st == nil {
		return nil, nil
	}
	announce := live || c.cur == nil && c.o.AnnounceHistory
	room := c.o.MaxBytes
	if len(st.held) > 0 {
		room -= room / 32 // each time that a partition goes on, it is fetched again: not for the sake of one record
	}
	var changes []feed.Change
	for i := range b.Records {
		r := &b.Records[i]
		if len(held) > 0 && slices.ContainsFunc(held, func(h ingest.Held) bool { return h.Partition == r.Partition }) {
			continue // behind what is held
		}
		st.parts[r.Partition].under(r.Epoch, r.Offset)
		if r.Key == nil {
			c.nullKeys.Add(1)
			continue
		}
		rec := store.Record{Key: r.Key, Value: r.Value, Partition: r.Partition, Offset: r.Offset, Epoch: r.Epoch,
			Timestamp: r.Timestamp, Headers: headers(r.Headers)}
		if c.o.MaxBytes > 0 && st.store.Memory().Settled() > room && st.store.Grows(&rec) {
			held = append(held, ingest.Held{Partition: r.Partition, Record: *r})
			continue
		}
		eff := st.store.Apply(&rec)
		if !announce || !eff.Changed {
			continue
		}
		if eff.Deleted {
			changes = append(changes, deletionOf(&rec, ""))
			continue
		}
		changes = append(changes, changeOf(&eff.Now, eff.Equal))
	}
	for _, p := range b.Progress {
		delete(st.held, p.Partition)
		for _, h := range held {
			if h.Partition == p.Partition {
				p.Next = h.Record.Offset
				st.held[p.Partition] = true
			}
		}
		if st.progress(p) {
			starts = append(starts, p)
		}
	}
	st.count(b)
	st.mark.Store(nil)
	if announce && (len(changes) > 0 || live) {
		c.publish(st, live, changes)
	}
	c.wake()
	return held, starts
}

// publish tells the feed what has become of st.
func (c *Cache) publish(st *state, live bool, changes []feed.Change) {
	if c.o.FeedBytes == 0 {
		c.feed.Limit(int(min(max(st.store.Bytes()/feedShare, feed.DefaultBytes), feedMost)))
	}
	c.feed.Publish(&feed.Batch{Changes: changes, Position: st.readMark().Position, History: !live})
}

// expireMost bounds the records that expire under one lock, and so for how long that keeps readers waiting.
const expireMost = 1000

// expire removes some of what the partition's log start has moved past, and reports whether it was the rest; then the
// state has that log start (GUARANTEES rule 13).
func (c *Cache) expire(partition int32, start int64) (all bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	st, live := c.writable()
	announce := live || c.cur == nil && c.o.AnnounceHistory
	var changes []feed.Change
	all = st.store.Expire(partition, start, expireMost, func(gone *store.Record, e store.Effect) {
		switch {
		case !announce || !e.Changed:
		case e.Deleted:
			changes = append(changes, deletionOf(gone, ReasonExpired))
		default: // another partition's record is the value again
			ch := changeOf(&e.Now, false)
			ch.Reason = ReasonExpired
			changes = append(changes, ch)
		}
	})
	if all {
		st.parts[partition].LogStart = start
	}
	st.mark.Store(nil)
	if len(changes) > 0 || all && live {
		c.publish(st, live, changes)
	}
	c.wake()
	return all
}

// writable is the state that records go to, and whether it is the one served.
func (c *Cache) writable() (st *state, live bool) {
	if c.next != nil {
		return c.next, false
	}
	return c.cur, true
}

// deletionOf tells that r's key is gone. It copies the key, whose bytes are not the feed's.
func deletionOf(r *store.Record, reason string) feed.Change {
	return feed.Change{Key: bytes.Clone(r.Key), Deleted: true, Partition: r.Partition, Offset: r.Offset, Epoch: r.Epoch,
		Timestamp: r.Timestamp, Reason: reason}
}

func changeOf(r *store.Record, equal bool) feed.Change {
	return feed.Change{Key: r.Key, Value: r.Value, Partition: r.Partition, Offset: r.Offset, Epoch: r.Epoch,
		Timestamp: r.Timestamp, Headers: r.Headers, Equal: equal}
}

func headers(hs []kgo.RecordHeader) (out wire.Headers) {
	for _, h := range hs {
		out = out.Append(h.Key, h.Value)
	}
	return out
}

// Loaded is ingest.Sink's. Of the first load, gets are answered from here on; lists, snapshots and watches as soon as
// the keys are sorted, which goes on aside. A later one takes its place whole.
func (c *Cache) Loaded() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next == nil {
		return
	}
	if c.cur != nil {
		c.replace()
		return
	}
	st := c.next
	build := st.store.StartOrder()
	finish := func() {
		st.store.FinishOrder(build())
		close(st.ordered)
	}
	if st.store.Len() <= sortAtOnce {
		finish()
	} else {
		c.aside.Go(func() {
			o := build()
			build = func() *store.Order { return o }
			c.mu.Lock()
			defer c.mu.Unlock()
			finish()
		})
	}
	c.serve(st)
	close(c.ready)
	c.feed.Publish(&feed.Batch{Position: st.readMark().Position}) // so that readers from before know where they are
	c.wake()
}

// serve makes st what is served. All the records that there were when it was begun are in it.
func (c *Cache) serve(st *state) {
	c.cur, c.next = st, nil
	c.stage = Polling
	for i := range st.parts {
		p := &st.parts[i]
		p.eras[len(p.eras)-1].current(p.Next)
	}
	st.mark.Store(nil)
}

// Current is ingest.Sink's.
func (c *Cache) Current(partition int32, end, stable int64, asked time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	st, _ := c.writable()
	if st == nil || int(partition) >= len(st.parts) {
		return
	}
	st.parts[partition].answered(end, stable, asked)
	st.mark.Store(nil)
	c.wake()
}

// Retention is ingest.Sink's.
func (c *Cache) Retention(topicID [16]byte, d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if topicID != c.retentionOf || d < c.retention {
		c.retentionOf, c.retention = topicID, d
	}
}

// Trouble is ingest.Sink's.
func (c *Cache) Trouble(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trouble = err
}

// wake tells those who wait that the position has moved.
func (c *Cache) wake() {
	if c.moved != nil {
		close(c.moved)
		c.moved = nil
	}
}

// Get reads key's record into r, as views, reports whether there is one, and returns the position of the state that
// either was taken from. The error is ErrNotReady, with what stands in the way.
func (c *Cache) Get(key []byte, r *store.Record) (bool, *Mark, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.cur == nil {
		return false, nil, c.notReady()
	}
	return c.cur.store.Get(key, r), c.cur.readMark(), nil
}

// GetMany is Get for all keys at one position; recs has their length. An absent key's record has a nil Value.
func (c *Cache) GetMany(keys [][]byte, recs []store.Record) (*Mark, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.cur == nil {
		return nil, c.notReady()
	}
	for i, k := range keys {
		if !c.cur.store.Get(k, &recs[i]) {
			recs[i] = store.Record{}
		}
	}
	return c.cur.readMark(), nil
}

// Partitions lists the partitions in which key lives, its value's first; none if it is absent or the cache not
// ready.
func (c *Cache) Partitions(key []byte) []int32 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.cur == nil {
		return nil
	}
	return c.cur.store.Partitions(key)
}

func (c *Cache) notReady() error {
	if c.trouble != nil {
		return fmt.Errorf("%w: %w", ErrNotReady, c.trouble)
	}
	return fmt.Errorf("%w (stage %s)", ErrNotReady, c.stage)
}

// Snapshot returns all keys at one position. The error is ErrNotReady, with what stands in the way.
func (c *Cache) Snapshot() (store.Snapshot, *Mark, error) {
	s, m, _, err := c.Watch()
	return s, m, err
}

// Watch is Snapshot with a reader of exactly the batches that follow it.
func (c *Cache) Watch() (store.Snapshot, *Mark, *feed.Reader, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.awaitOrder(); err != nil {
		return store.Snapshot{}, nil, nil, err
	}
	return c.cur.store.Snapshot(), c.cur.readMark(), c.feed.Reader(), nil
}

// awaitOrder returns under the lock, which it lets go of meanwhile, when snapshots can be taken.
func (c *Cache) awaitOrder() error {
	for c.cur != nil && !c.cur.store.Ordered() {
		ordered := c.cur.ordered
		c.mu.Unlock()
		<-ordered // at most seconds, for ten million keys
		c.mu.Lock()
	}
	if c.cur == nil {
		return c.notReady()
	}
	return nil
}

// Reader starts at the next batch that the cache applies.
func (c *Cache) Reader() *feed.Reader { return c.feed.Reader() }
