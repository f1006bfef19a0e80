package cache

import "time"

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
	Partitions []PartitionStatus
}

// PartitionStatus is how far one partition is.
type PartitionStatus struct {
	Partition  int32
	Next       int64         // the fetch position
	End        int64         // the high watermark as last asked, -1 before
	LogStart   int64         //
	Age        time.Duration // how old the data may be at most; -1 while not known
	SeenRecord bool          // a record has been applied: the original then names its offset
}

// Status of the state that is served, or, before there is one, of the one being loaded.
func (c *Cache) Status() Status {
	c.mu.RLock()
	defer c.mu.RUnlock()
	s := Status{Topic: c.Topic(), Stage: c.stage, Ready: c.cur != nil, Trouble: c.trouble, NullKeys: c.nullKeys.Load(), FeedBytes: c.feed.Bytes()}
	st := c.cur
	if st == nil {
		st = c.next
	}
	if st == nil {
		return s
	}
	s.TopicID, s.Keys, s.Bytes, s.Conflicts = st.topicID, st.store.Len(), st.store.Bytes(), st.store.Conflicts()
	for i := range st.parts {
		p := &st.parts[i]
		ps := PartitionStatus{Partition: int32(i), Next: p.Next, End: -1, LogStart: p.LogStart, Age: -1, SeenRecord: p.seenRecord}
		if !p.endAsked.IsZero() {
			ps.End = max(p.end, p.Next)
		}
		if age, ok := (&Mark{asOf: p.asOf}).Age(); ok {
			ps.Age = age
		}
		s.Partitions = append(s.Partitions, ps)
	}
	return s
}
