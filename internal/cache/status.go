package cache

import (
	"maps"
	"slices"
	"time"

	"github.com/kkv-project/kkv/internal/ingest"
	"github.com/kkv-project/kkv/internal/store"
)

// Status is a Cache at one moment, for health, metrics and people.
type Status struct {
	Topic      string
	TopicID    [16]byte
	Stage      Stage
	Ready      bool
	Trouble    error // why reading does not go on; nil when it does
	Keys       int
	Bytes      int64 // keys, values and headers
	Conflicts  int   // keys that live in several partitions
	NullKeys   int64 // records without a key, which are skipped
	FeedBytes  int
	Resumes    int64 // readers that came with a position and were told exactly what they missed
	Resets     int64 // and those that had to be told everything
	Lagged     int64 // readers that were slower than the feed's ring is long, and went back to the store
	Memory     store.Memory
	MaxBytes   int64   // the limit that Memory.Settled is held to; 0: none
	Held       []int32 // partitions that stand still because the limit is reached
	Replay     *Replay // nil unless a load is under way
	Partitions []PartitionStatus
}

// Full is how much of the memory limit is taken, from 0 up; 0 where there is no limit.
func (s *Status) Full() float64 {
	if s.MaxBytes <= 0 {
		return 0
	}
	return float64(s.Memory.Settled()) / float64(s.MaxBytes)
}

// Replay is how far a load is.
type Replay struct {
	Records int64 // read so far
	Bytes   int64 // of their keys and values
	Took    time.Duration
	Done    float64       // share of the offsets to read, from 0 to 1
	Left    time.Duration // at the rate so far; -1 before there is one
}

// PartitionStatus is how far one partition is.
type PartitionStatus struct {
	Partition int32
	Next      int64         // the fetch position
	End       int64         // the high watermark as last asked, -1 before
	LogStart  int64         // the lowest offset that the log still has
	Behind    string        // why Next is below End, a Behind's Reason; "" where it is not
	Age       time.Duration // how old the data may be at most; -1 while not known
}

// Status of the state that is served, or, before there is one, of the one being loaded.
func (c *Cache) Status() Status {
	c.mu.RLock()
	defer c.mu.RUnlock()
	s := Status{Topic: c.Topic(), Stage: c.stage, Ready: c.cur != nil, Trouble: c.trouble, NullKeys: c.nullKeys.Load(),
		FeedBytes: c.feed.Bytes(), Resumes: c.resumed, Resets: c.resets, Lagged: c.feed.Lagged(), MaxBytes: c.o.MaxBytes}
	st := c.cur
	if st == nil {
		st = c.next
	}
	if st == nil {
		return s
	}
	if c.next != nil {
		s.Replay = c.next.replay()
	}
	s.TopicID, s.Keys, s.Bytes, s.Conflicts, s.Memory = st.topicID, st.store.Len(), st.store.Bytes(), st.store.Conflicts(), st.store.Memory()
	s.Held = slices.Sorted(maps.Keys(st.held))
	for i := range st.parts {
		p := &st.parts[i]
		ps := PartitionStatus{Partition: int32(i), Next: p.Next, End: -1, LogStart: p.LogStart, Age: -1}
		if !p.endAsked.IsZero() {
			ps.End = max(p.end, p.Next)
		}
		if ps.End > p.Next || st.held[int32(i)] {
			ps.Behind = st.behind(int32(i))
		}
		if age, ok := (&Mark{asOf: p.asOf}).Age(); ok {
			ps.Age = age
		}
		s.Partitions = append(s.Partitions, ps)
	}
	return s
}

func (st *state) count(b *ingest.Batch) {
	st.records += int64(len(b.Records))
	for i := range b.Records {
		st.bytes += int64(len(b.Records[i].Key) + len(b.Records[i].Value))
	}
}

func (st *state) replay() *Replay {
	r := &Replay{Records: st.records, Bytes: st.bytes, Took: time.Since(st.began), Done: 1, Left: -1}
	var done, all int64
	for i, end := range st.ends {
		all += end - st.starts[i]
		done += min(st.parts[i].Next, end) - st.starts[i]
	}
	if all > 0 {
		r.Done = float64(done) / float64(all)
	}
	if done > 0 {
		r.Left = time.Duration(float64(r.Took) * float64(all-done) / float64(done))
	}
	return r
}
