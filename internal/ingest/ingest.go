// Package ingest reads one topic, whole and in log order, and says how far it is.
//
// Partitions are assigned directly: there is no consumer group, nothing is committed and nothing rebalances
// (DESIGN decision 1). A Reader counts in fetch positions, not in records seen, so that transaction markers,
// aborted records, compaction's gaps and empty partitions all count as read (decision 2); what a poll hides, a
// second client asks the partition's leader (GUARANTEES rule 3, and probe).
package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/kkv-project/kkv/internal/kafka"
)

// Record is one record of the log. Its bytes lie in the buffer of its fetched batch: a Sink copies what it keeps.
type Record struct {
	Key       []byte // nil: the record has no key
	Value     []byte // nil: a tombstone
	Headers   []kgo.RecordHeader
	Partition int32
	Offset    int64
	Epoch     int32 // leader epoch of its batch (KIP-101), -1 where Kafka named none
	Timestamp int64 // milliseconds since the Unix epoch
}

// Progress is how far one partition has been read.
type Progress struct {
	Partition int32
	Next      int64 // the fetch position: everything visible below it has been delivered
	Epoch     int32 // leader epoch of the last record before Next; -1 if none was seen
	LogStart  int64
	Gap       int64 // end of the last offsets that held nothing visible on the way here; 0: there were none
	// Settled: from this position on, what lay in the gaps up to here is known. Compaction may have taken a record from
	// there because a later one took its place, and that one stood below the end which the log had when it was fetched.
	Settled int64
}

// Batch is a stretch of what was fetched: records in log order per partition, and how far the partitions named have
// come with them.
type Batch struct {
	Records  []Record
	Progress []Progress
}

// Held is the first record of one partition that a Sink had no room for. Its bytes are as in Batch.
type Held struct {
	Partition int32
	Record    Record
}

// Incarnation names the topic that a load reads.
type Incarnation struct {
	TopicID    [16]byte
	Partitions []Progress // indexed by partition: where reading starts, Next being the log start
	Ends       []int64    // indexed by partition: the load is complete when all of these are reached
}

// Sink takes what a Reader reads. Calls come one at a time.
type Sink interface {
	// Load begins a load from the log's start: the first, or one that replaces the state because the log read
	// so far is no longer Kafka's (reason says why). Until Loaded, the Sink goes on showing what it showed.
	Load(inc Incarnation, reason string)
	// Apply takes the next records. Progress may name partitions that Load did not: they were added since. It
	// returns what it has no room for: of some partitions, the first record that it did not take, nor any behind it. Their
	// position then stands there, and that record is offered again until there is room. It keeps nothing of b.
	Apply(b *Batch) (held []Held)
	// Loaded: every record up to the ends captured when the load began has been applied.
	Loaded()
	// Current: all that the partition's leader had at the time asked (its high watermark, end) is applied once
	// Next reaches end. stable is the last stable offset as asked after that, -1 if it was not.
	Current(partition int32, end, stable int64, asked time.Time)
	// Retention is the topic's delete.retention.ms as it is now: for so long at least compaction keeps a tombstone. 0
	// where it cannot be read.
	Retention(topicID [16]byte, d time.Duration)
	// Trouble says why reading does not go on, nil once it does again.
	Trouble(err error)
}

// ErrNoTopic is in the Trouble of a Reader whose topic does not exist.
var ErrNoTopic = errors.New("topic does not exist")

// Reasons for a load that replaces the state, in the words of the watch's reset (CLIENT.md).
const (
	ReasonRecreated = "topic-recreated"
	ReasonRebuilt   = "partition-rebuilt"
)

// Options of a Reader.
type Options struct {
	Kafka           kafka.Config
	Topic           string
	ReadUncommitted bool // also show records of open and aborted transactions
	// FetchBytes bounds one fetch, of which two are under way; 0 or more than 8 MiB: 8 MiB.
	FetchBytes int64
	Logger     *slog.Logger
}

const retentionConfig = "delete.retention.ms"

// CompactionSlack is how much earlier than delete.retention.ms a tombstone is counted as gone, for clocks that differ and for
// the way to the broker (GUARANTEES rules 9 and 10).
const CompactionSlack = 5 * time.Minute

// Intervals, all the time that this package knows.
const (
	watchEvery   = 500 * time.Millisecond // topic ID, partitions, high watermarks (rules 3 and 7)
	fetchMaxWait = 500 * time.Millisecond
	// Of one fetch, in bytes, at the least and at the most. Two are under way, and a small record takes several times its
	// bytes while it is in flight, so that Kafka's own 50 MiB would dwarf what is kept. A larger record comes all the same.
	fetchMinBytes = 256 << 10
	fetchMaxBytes = 8 << 20
	probeEvery    = 5 * time.Millisecond   // while somebody waits for a position that does not move
	probeMost     = 250 * time.Millisecond // the pause doubles up to this while nothing moves
	endsLeast     = 5 * time.Millisecond   // while leaders move and somebody waits to be told their ends: the pause doubles
	endsMost      = 200 * time.Millisecond // up to this
	wantFor       = time.Minute            // no wait is longer
	wantedMost    = 10_000
	unparkEvery   = 250 * time.Millisecond

	startsEvery    = 10              // rounds of watch: the log starts, for partitions to which nothing is written
	slowAfter      = 2 * time.Second // Kafka does not answer: said before the call times out
	retentionEvery = time.Minute
	retentionRetry = 5 * time.Second // while it could not be asked

	staleLeast  = 5 * time.Second // reading that goes on as usual is never so far behind
	loadLeast   = time.Minute     // a load on a topic whose tombstones go sooner cannot be saved from that
	callTimeout = 10 * time.Second
	backoffMin  = 100 * time.Millisecond
	backoffMax  = 5 * time.Second
)

func (o *Options) fetchBytes() int32 {
	if o.FetchBytes <= 0 {
		return fetchMaxBytes
	}
	return int32(min(max(o.FetchBytes, fetchMinBytes), fetchMaxBytes))
}

// Reader reads a topic into a Sink.
type Reader struct {
	o    Options
	sink Sink
	log  *slog.Logger
	aux  atomic.Pointer[kgo.Client] // while Run runs: for all that is not fetching

	known      atomic.Pointer[kafka.Topic] // as last told, but for what learn leaves out
	wantStarts atomic.Bool

	mu     sync.Mutex
	again  bool             // a load was given up since it took too long; the next one is not
	wanted map[int32]wanted // positions that somebody waits for, beyond the load's own
	kick   chan struct{}    // wakes the prober
}

// New makes a Reader; nothing runs before Run.
func New(o Options, sink Sink) *Reader {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Reader{o: o, sink: sink, log: o.Logger, wanted: map[int32]wanted{}, kick: make(chan struct{}, 1)}
}

// wanted is a position that somebody waits for, and until when at the latest: no wait is longer than wantFor.
type wanted struct {
	next  int64
	until time.Time
}

// Want says that somebody waits for the partition's position to reach next, so that the Reader looks behind
// what polls show. It may be called at any time from any goroutine.
func (r *Reader) Want(partition int32, next int64) {
	r.mu.Lock()
	now := time.Now()
	if len(r.wanted) > wantedMost { // partitions that are not there, by careless or hostile callers
		clear(r.wanted)
	}
	w := r.wanted[partition]
	if now.After(w.until) {
		w.next = 0
	}
	r.wanted[partition] = wanted{max(w.next, next), now.Add(wantFor)}
	r.mu.Unlock()
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// WantStarts says that somebody knows of a log start that has moved, so that the next round asks for them. It may be
// called at any time from any goroutine.
func (r *Reader) WantStarts() { r.wantStarts.Store(true) }

func (r *Reader) want(partition int32) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	w, ok := r.wanted[partition]
	if ok && time.Now().After(w.until) {
		delete(r.wanted, partition)
		return 0
	}
	return w.next
}

// reopen ends a session whose log is no longer the one being read.
type reopen struct {
	reason string
	err    error
}

func (e *reopen) Error() string { return e.reason + ": " + e.err.Error() }
func (e *reopen) Unwrap() error { return e.err }

// Run reads until ctx ends, which is no error. Before the first load is complete it returns an error that Kafka
// calls fatal (bad credentials, no authorization); after it, it keeps trying for ever (DESIGN decision 11).
func (r *Reader) Run(ctx context.Context) error {
	aux, err := kafka.NewClient(r.o.Kafka)
	if err != nil {
		return fmt.Errorf("ingest %s: %w", r.o.Topic, err)
	}
	defer kafka.CloseWith(ctx, aux)()
	r.aux.Store(aux)
	defer r.aux.Store(nil)
	loadedOnce, reason := false, ""
	b := backoff{}
	for {
		s := &session{r: r, aux: aux, reason: reason}
		err := s.run(ctx)
		if ctx.Err() != nil {
			return nil
		}
		loadedOnce = loadedOnce || s.loaded
		if s.loaded {
			b.reset()
		}
		var re *reopen
		switch {
		case errors.As(err, &re):
			reason = re.reason
			r.log.Warn("the log being read is gone, loading it again while the old state is served", "topic", r.o.Topic, "reason", reason, "error", re.err)
		case kafka.Classify(err) == kafka.Fatal && !loadedOnce:
			return fmt.Errorf("ingest %s: %w", r.o.Topic, err)
		default:
			r.sink.Trouble(err)
		}
		if !b.wait(ctx) {
			return nil
		}
	}
}

// backoff doubles from backoffMin to backoffMax.
type backoff struct{ next time.Duration }

func (b *backoff) reset() { b.next = 0 }

// wait sleeps and reports whether ctx is still good.
func (b *backoff) wait(ctx context.Context) bool {
	b.next = min(max(2*b.next, backoffMin), backoffMax)
	return sleep(ctx, b.next)
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// session reads one incarnation of the topic from its start on.
type session struct {
	r      *Reader
	aux    *kgo.Client // never the consumer's: a probe there waits behind a long poll (KAFKA-NOTES section 1)
	con    *kgo.Client
	reason string
	id     [16]byte

	polled  sync.Mutex // while what a poll brought is applied; before mu
	mu      sync.Mutex // one call into the sink at a time
	parts   []partition
	loaded  bool
	pollBad error            // Kafka refuses fetches
	refused bool             // only of the goroutine that polls: pollBad is set
	pending int              // partitions that have not reached their target
	parked  map[int32]Record // by partition: the first record that the sink had no room for
	bad     error

	gone          *reopen       // what there is to know of the log can no longer be read; set once
	retention     time.Duration // for how long compaction keeps tombstones; 0: unknown
	retentionRead bool
	retentionDue  time.Time // of the goroutine that watches: when to read it again
	round         int       // of the goroutine that watches
}

type partition struct {
	Progress
	target int64     // captured once, when the load began
	probed int64     // the position at the last probe tick: only one that has not moved since is asked about
	began  time.Time // when reading it did
	caught time.Time // when the leader was asked and had nothing stable beyond Next
	asked  struct {  // the first answer since that is ahead of Next
		end int64
		at  time.Time
	}
}

func (s *session) run(ctx context.Context) error {
	if err := s.open(ctx); err != nil {
		return err
	}
	defer kafka.CloseWith(ctx, s.con)()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.poll(ctx) })
	g.Go(func() error { return s.watch(ctx) })
	g.Go(func() error { return s.probeStuck(ctx) })
	g.Go(func() error { return s.unpark(ctx) })
	return g.Wait()
}

// open finds the topic, its bounds and its leaders, and begins the load. While the topic is missing it waits.
func (s *session) open(ctx context.Context) error {
	topic := s.r.o.Topic
	var said, saidMissing bool // in the log
	var b backoff
	for {
		t, err := s.metadata(ctx)
		if err == nil {
			var at bounds
			if at, err = s.bounds(ctx, t); err == nil {
				s.begin(t, at)
				break
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		missing := errors.Is(err, kerr.UnknownTopicOrPartition)
		if missing {
			err = fmt.Errorf("%w: create topic %q (compacted), or start with --create-topic; waiting for it", ErrNoTopic, topic)
		}
		switch {
		case kafka.Classify(err) == kafka.Fatal:
			return err
		case !said || missing && !saidMissing: // somebody has to make it, so it is said also where Kafka was away before
			said, saidMissing = true, missing
			s.r.log.Warn("cannot read the topic yet, trying again until it works", "topic", topic, "error", err)
		}
		s.r.sink.Trouble(err)
		if missing {
			if !sleep(ctx, watchEvery) {
				return ctx.Err()
			}
		} else if !b.wait(ctx) {
			return ctx.Err()
		}
	}
	iso := kgo.ReadCommitted()
	if s.r.o.ReadUncommitted {
		iso = kgo.ReadUncommitted()
	}
	var err error
	s.con, err = kafka.NewClient(s.r.o.Kafka, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: s.offsets(0)}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), kgo.KeepControlRecords(), kgo.KeepRetryableFetchErrors(),
		kgo.FetchIsolationLevel(iso), kgo.FetchMaxWait(fetchMaxWait), kgo.FetchMaxBytes(s.r.o.fetchBytes()))
	return err
}

// begin starts the load in the sink. An empty partition's position is its log start.
func (s *session) begin(t kafka.Topic, at bounds) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.id = t.ID
	inc := Incarnation{TopicID: t.ID}
	for i := range t.Partitions {
		p := partition{Progress: Progress{Partition: int32(i), Next: at.starts[i], LogStart: at.starts[i], Epoch: -1}, target: at.ends[i], probed: -1, began: time.Now()}
		if p.Next < p.target {
			s.pending++
		}
		s.parts = append(s.parts, p)
		inc.Partitions = append(inc.Partitions, p.Progress)
		inc.Ends = append(inc.Ends, p.target)
	}
	s.r.mu.Lock()
	clear(s.r.wanted) // offsets of another incarnation
	s.r.mu.Unlock()
	s.r.sink.Trouble(nil)
	s.r.sink.Load(inc, s.reason)
	for i := range s.parts {
		s.r.sink.Current(int32(i), at.marks[i], at.ends[i], at.asked)
		s.parts[i].catch(at.ends[i], at.asked)
	}
	s.maybeLoaded()
}

func (s *session) isLoaded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.loaded
}

func (s *session) maybeLoaded() {
	if !s.loaded && s.pending == 0 {
		s.loaded, s.r.again = true, false
		s.r.sink.Loaded()
	}
}

// offsets are where the consumer starts reading partitions from the given one on.
func (s *session) offsets(from int) map[int32]kgo.Offset {
	m := map[int32]kgo.Offset{}
	for _, p := range s.parts[from:] {
		m[p.Partition] = kgo.NewOffset().At(p.Next)
	}
	return m
}

// apply hands b, which it may shorten, to the sink with the positions that it brings. Where the sink has no room the
// partition is parked. The error is a reopen.
func (s *session) apply(b *Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pass(b)
	if s.gone == nil {
		s.gone = s.holed(b)
	}
	if s.gone != nil {
		return s.gone
	}
	s.offer(b)
	return nil
}

// offer is apply under the lock, for records of partitions of which nothing is parked any more.
func (s *session) offer(b *Batch) {
	for i := range b.Progress {
		n, p := &b.Progress[i], &s.parts[b.Progress[i].Partition]
		n.Next = max(n.Next, p.Next)
		n.LogStart = max(n.LogStart, p.LogStart)
		if n.Epoch < 0 {
			n.Epoch = p.Epoch
		}
	}
	held := s.r.sink.Apply(b)
	for i := range b.Progress {
		n, p := b.Progress[i], &s.parts[b.Progress[i].Partition]
		for _, h := range held {
			if h.Partition == n.Partition {
				s.park(h)
				n.Next = h.Record.Offset
			}
		}
		if p.Next < p.target && n.Next >= p.target {
			s.pending--
		}
		p.Progress = n
		p.caughtUp()
	}
	s.maybeLoaded()
}

// trouble tells the sink why reading does not go on, or that it does again.
func (s *session) trouble(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bad = err
	s.tell()
}

// pollTrouble is that Kafka refuses fetches: that it answers otherwise does not take it back, and it is worth a line.
func (s *session) pollTrouble(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if (err != nil) != (s.pollBad != nil) {
		if err != nil {
			s.r.log.Warn("fetching fails, trying again", "topic", s.r.o.Topic, "error", err)
		} else {
			s.r.log.Info("fetching goes on", "topic", s.r.o.Topic)
		}
	}
	s.pollBad = err
	s.tell()
}

// tell names the trouble that there is, if there is any.
func (s *session) tell() {
	err := s.bad
	if err == nil {
		err = s.pollBad
	}
	s.r.sink.Trouble(err)
}
