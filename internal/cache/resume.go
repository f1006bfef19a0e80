package cache

import (
	"iter"
	"math"
	"time"

	"github.com/kkv-project/kkv/internal/feed"
	"github.com/kkv-project/kkv/internal/ingest"
	"github.com/kkv-project/kkv/internal/position"
	"github.com/kkv-project/kkv/internal/store"
)

// Why a reader cannot go on from a position, in the words of the watch's reset (CLIENT.md). A state that is replaced
// has ingest's reasons.
const (
	ResetRecreated = ingest.ReasonRecreated
	ResetHorizon   = "beyond-horizon"     // it is not known what was deleted since
	ResetPartial   = "partial-position"   // it does not say how far it is in every partition that there was
	ResetTruncated = "position-truncated" // it covers records that the log does not have
)

// ReasonExpired is a delete's, where the log's start moved past the record (GUARANTEES rule 13).
const ReasonExpired = "expired"

// era is one load of a partition and what followed it without a break: what is known to have been missed of its
// deletes.
type era struct {
	start  int64     // log start when it began
	gap    int64     // end of the last gap in the offsets that it met before loaded; 0: none
	loaded int64     // where it was first known to be current: no delete after it was missed
	at     time.Time // when that was
	until  int64     // where it ended, for another load took its place
}

// open is an era that has not been current yet.
func openEra(start int64) era { return era{start: start, loaded: math.MaxInt64, until: math.MaxInt64} }

// hole notes that the offsets up to end jump.
func (e *era) hole(end int64) {
	if e.loaded == math.MaxInt64 {
		e.gap = max(e.gap, end)
	}
}

// current notes that all that the leader had is in.
func (e *era) current(next int64) {
	if e.loaded == math.MaxInt64 {
		e.loaded, e.at = next, time.Now()
	}
}

// knows reports whether every delete since then was seen: it ran since, or jumped over no offsets from there on, or was
// done before a tombstone of that time could have been compacted away (GUARANTEES rule 9).
func (e *era) knows(since position.Partition, asOf time.Time, retention time.Duration) bool {
	if since.Next > e.until || since.Next < e.start || since.LogStart < e.start {
		return false
	}
	at := e.at
	if e.loaded == math.MaxInt64 {
		at = time.Now()
	}
	return since.Next >= e.loaded || since.Next >= e.gap || at.Sub(asOf) < retention-ingest.CompactionSlack
}

// Resume is what a reader at some position has missed, and how it goes on.
type Resume struct {
	// Reset is why it cannot be told what it missed, one of CLIENT.md's words: then it is told the whole state, and
	// forgets what it is not told. Else "".
	Reset string
	// Mark is where it is with what All tells.
	Mark *Mark
	// Reader goes on from there.
	Reader *feed.Reader

	diff *store.Diff
	snap store.Snapshot
}

// Resume compares the state with what a reader at since has seen (GUARANTEES rules 1, 9 and 11). For the zero Position
// that is nothing: it is told all, which is no reset. A partition that since lacks did not exist then. The error is
// ErrNotReady, with what stands in the way.
//
// The position must be one that AtLeast has waited for: what is ahead of the cache counts as truncated.
func (c *Cache) Resume(since position.Position) (*Resume, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.awaitOrder(); err != nil {
		return nil, err
	}
	st := c.cur
	r := &Resume{Mark: st.readMark(), Reader: c.feed.Reader()}
	if since.IsZero() {
		r.snap = st.store.Snapshot()
		return r, nil
	}
	if r.Reset = st.refuses(since, c.retentionNow(st)); r.Reset != "" {
		c.resets++
		r.snap = st.store.Snapshot()
		return r, nil
	}
	c.resumed++
	cuts := make([]store.Cut, since.Len())
	for i := range cuts {
		p := since.Partition(int32(i))
		cuts[i] = store.Cut{Next: max(0, p.Next), LogStart: p.LogStart}
	}
	r.diff = st.store.Since(cuts)
	return r, nil
}

// retentionNow is for how long compaction keeps tombstones of st's topic; 0 while it is not known.
func (c *Cache) retentionNow(st *state) time.Duration {
	if c.retentionOf != st.topicID {
		return 0
	}
	return c.retention
}

// refuses says why a reader at since cannot be told what it missed, or "".
func (st *state) refuses(since position.Position, retention time.Duration) string {
	if since.TopicID() != st.topicID {
		return ResetRecreated
	}
	for i := range since.Len() {
		s := since.Partition(int32(i))
		switch {
		case s.Next < 0:
			return ResetPartial // later ones are there, and partitions come in the order of their numbers
		case st.next(int32(i)) < s.Next || !st.parts[i].holds(s):
			return ResetTruncated
		}
		h := st.store.Horizon(int32(i))
		if s.Next < h.Next || s.LogStart < h.LogStart || !st.parts[i].knows(s, since.AsOf(), retention) {
			return ResetHorizon
		}
	}
	return ""
}

func (p *part) knows(since position.Partition, asOf time.Time, retention time.Duration) bool {
	for i := range p.eras {
		if p.eras[i].knows(since, asOf, retention) {
			return true
		}
	}
	return false
}

// All yields what the reader missed of the keys that begin with prefix: each key that changed, once, with its value now
// or as deleted; after a Reset, every key. Puts of new records come in no order, or in that of keys. A Change is reused
// from one to the next; its bytes are views that stay good.
func (r *Resume) All(prefix []byte) iter.Seq[*feed.Change] {
	return func(yield func(*feed.Change) bool) {
		var ch feed.Change
		if r.diff == nil {
			for rec := range r.snap.All(prefix, nil) {
				if ch = changeOf(rec, false); !yield(&ch) {
					return
				}
			}
			return
		}
		for rec, kind := range r.diff.All(prefix) {
			ch = changeOf(rec, false)
			if kind != store.Put {
				ch.Value, ch.Headers, ch.Deleted = nil, nil, true
			}
			if kind == store.Expired {
				ch.Reason = ReasonExpired
			}
			if !yield(&ch) {
				return
			}
		}
	}
}

// ChangedSince calls f for every key that a record at or after since has touched, with what it is now: a put, or a
// delete. The position is that of the state told, and the reader goes on from there. Where that cannot be known, reset
// says why, and f gets every live key instead (see Resume); so too for the zero Position, which is no reset. Before the
// cache is ready f is not called, and the position is the zero one. A Change and its bytes are good only during f.
func (c *Cache) ChangedSince(since position.Position, f func(feed.Change)) (at position.Position, reset string, r *feed.Reader) {
	res, err := c.Resume(since)
	if err != nil {
		return position.Position{}, "", c.feed.Reader()
	}
	for ch := range res.All(nil) {
		f(*ch)
	}
	return res.Mark.Position, res.Reset, res.Reader
}
