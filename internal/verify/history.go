// Package verify says whether what clients of kkv saw is what kkv promises. A test records a History while it runs:
// writes, reads, watches, webhook POSTs, and, from Kafka itself, the log. Afterwards one checker per promise of
// docs/guarantees.md looks for a contradiction (GUARANTEES rule 20).
//
// Since offsets are known, nearly all of it is linear in the history's length: every answer must equal the fold of the
// log up to the position that the answer names (Explain), and everything else is about which positions may be answered
// when. That fresh reads are linearizable is checked a second time by porcupine, which knows nothing of positions.
package verify

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/kkv-project/kkv/internal/position"
)

// Stamp is a moment of a test. Seq orders moments: what has the lower one happened first. At says how long something
// took, and may be the same for many moments where the test owns the time.
type Stamp struct {
	Seq int64 // from 1 up; 0: never
	At  time.Time
}

// Before reports whether s was taken before o, for certain.
func (s Stamp) Before(o Stamp) bool { return s.Seq < o.Seq }

// Run is one process's life of a replica.
type Run struct {
	Replica string
	Started Stamp
	// Topic and Ends are the incarnation and its last stable offsets by partition, taken before the run was started: no
	// answer may lack any of it.
	Topic [16]byte
	Ends  []int64
	// Ready is a position that the run served when it became ready, or soon after; the zero Position if it never did.
	Ready position.Position
	// Targets are the webhook receivers of the run, by the names in Post.Receiver.
	Targets []string
	Ended   Stamp // zero: it ran until the end
}

// Outcome is what a writer knows of its write.
type Outcome int

// The outcomes. The log says which of the unknown ones happened.
const (
	Unknown Outcome = iota
	Acked           // acknowledged; of a transaction: its commit was
	Refused         // for certain not written, and it never will be; or its transaction was aborted
)

// Write is one put or delete, by whatever way.
type Write struct {
	ID           string // unique; in the log's record, too
	Key, Value   string
	Deleted      bool
	Call, Return Stamp
	Outcome      Outcome
	Topic        [16]byte // where it was acknowledged; zero if it was not
	Partition    int32
	Offset       int64
	// Served is the index of the Run that had answered 200: it serves the write. -1 where none did.
	Served   int
	Position position.Position // what the answer to a PUT or DELETE named; else zero
}

// Item is one key of an answer.
type Item struct {
	Key, Value string
	Partition  int32
	Offset     int64
	Absent     bool // has no value
}

// Kind is what a Read asked for.
type Kind int

// The kinds: one key, all keys with a prefix, several keys.
const (
	Get Kind = iota
	List
	Batch
)

// Read is one request with its answer.
type Read struct {
	Run    int // index of the one asked
	Kind   Kind
	Prefix string
	// AtLeast, Fresh and MaxStale are what was demanded. A position of the zero topic ID, as of `<partition>:<offset>`,
	// is one of whatever incarnation is there; MaxStale is negative where it was not demanded.
	AtLeast      []position.Position
	Fresh        bool
	MaxStale     time.Duration
	Call, Return Stamp
	Status       int
	Problem      string // of an answer that is none: its type, without "/problems/"
	Position     position.Position
	Age          time.Duration // as answered; negative: the answer names none
	Items        []Item        // of a Get one, absent or not
	Final        bool          // asked at the very end: everything must be there
}

// answered: the Read says something about keys.
func (r *Read) answered() bool { return r.Status == 200 || r.Status == 304 || r.Status == 404 }

// Event is one line of a watch.
type Event struct {
	Type       string // as package wire names them
	Key, Value string
	Partition  int32
	Offset     int64
	Position   position.Position // zero where the line has none
	Reason     string
}

// Stream is one connection of a watcher.
type Stream struct {
	Run    int
	Prefix string
	Since  position.Position // zero: the state was asked for
	Call   Stamp
	Events []Event
	Final  bool // it stood until the end: everything must have arrived
}

// Post is one webhook request of body v1, as its receiver saw it.
type Post struct {
	Receiver string
	Run      int
	At       Stamp
	OK       bool // the receiver took it
	Offsets  map[int32]int64
	Keys     []string
}

// Trim is a log start that moved: DeleteRecords, or retention.
type Trim struct {
	Topic     [16]byte
	Partition int32
	Offset    int64 // the new log start
}

// History is what happened in a test. It is not safe for concurrent use; a Recorder is.
type History struct {
	Log     Log
	Runs    []Run
	Writes  []Write
	Reads   []Read
	Streams []Stream
	Posts   []Post
	Trims   []Trim
	// Truncated: Kafka lost records that it had acknowledged, by an unclean election, say.
	Truncated bool
	// End is the end of the log once writing had ceased; the zero Position if the test has no such moment.
	End position.Position
}

// Recorder collects a History. It is safe for concurrent use.
type Recorder struct {
	seq atomic.Int64
	mu  sync.Mutex
	h   History
}

// Now is the present moment.
func (r *Recorder) Now() Stamp { return Stamp{r.seq.Add(1), time.Now()} }

// Do calls f with the history, alone.
func (r *Recorder) Do(f func(*History)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.h)
}

// Start adds a Run and returns its index.
func (r *Recorder) Start(n Run) (run int) {
	r.Do(func(h *History) { run, h.Runs = len(h.Runs), append(h.Runs, n) })
	return run
}

// Write adds a write that has returned.
func (r *Recorder) Write(w Write) { r.Do(func(h *History) { h.Writes = append(h.Writes, w) }) }

// Read adds a read that has returned.
func (r *Recorder) Read(x Read) { r.Do(func(h *History) { h.Reads = append(h.Reads, x) }) }

// Stream adds a watch that has ended.
func (r *Recorder) Stream(s Stream) { r.Do(func(h *History) { h.Streams = append(h.Streams, s) }) }

// Post adds a webhook request.
func (r *Recorder) Post(p Post) { r.Do(func(h *History) { h.Posts = append(h.Posts, p) }) }

// History is what was recorded. Call it when nothing records any more.
func (r *Recorder) History() *History { return &r.h }
