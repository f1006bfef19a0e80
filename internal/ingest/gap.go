package ingest

import (
	"fmt"
	"time"
)

// catch notes that the leader, asked then, had nothing stable beyond end.
func (p *partition) catch(end int64, at time.Time) {
	if p.asked.at.IsZero() {
		p.asked.end, p.asked.at = end, at
	}
	p.caughtUp()
}

func (p *partition) caughtUp() {
	if !p.asked.at.IsZero() && p.Next >= p.asked.end {
		p.caught, p.asked.at = p.asked.at, time.Time{}
	}
}

// stale reports whether a tombstone that lay ahead of the partition when it was last current may have been compacted away
// since (GUARANTEES rule 10). Whether one was, only a gap in the offsets can tell.
func (s *session) stale(p *partition) bool {
	limit := s.retention - min(CompactionSlack, s.retention/2)
	since := p.caught
	if since.IsZero() { // loading: what is read first may have been deleted by the time that the rest is
		if s.r.again || limit < loadLeast {
			return false // to begin anew would be no faster
		}
		since = p.began
	}
	// Monotonic and wall: a suspended machine stops one of them.
	return max(time.Since(since), time.Now().Round(0).Sub(since.Round(0))) >= max(limit, staleLeast)
}

// holed returns why the topic is to be read anew, if one of b's positions leaves offsets out that may have held a
// tombstone which compaction took before it was read.
func (s *session) holed(b *Batch) *reopen {
	for i := range b.Progress {
		n, p := &b.Progress[i], &s.parts[b.Progress[i].Partition]
		if n.Gap <= p.Next || !s.stale(p) {
			continue
		}
		s.r.again = p.caught.IsZero()
		return &reopen{ReasonRebuilt, fmt.Errorf("partition %d was last current at %v, delete.retention.ms is %v, and offsets below %d are gone: deletes may be among them",
			n.Partition, p.caught.Format(time.RFC3339), s.retention, n.Gap)}
	}
	return nil
}
