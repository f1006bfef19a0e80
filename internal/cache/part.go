package cache

import (
	"slices"
	"time"

	"github.com/kkv-project/kkv/internal/ingest"
	"github.com/kkv-project/kkv/internal/position"
)

type part struct {
	position.Partition
	asOf     time.Time // when the leader was asked and had nothing beyond Next
	end      int64     // the leader's high watermark as last asked
	endAsked time.Time
	asked    []asking     // answers that are ahead of Next, the oldest first, at most askedMost
	stable   int64        // the last stable offset as last asked, -1 if it was not
	epochs   []epochStart // the log's lineage (KIP-101)
	eras     []era        // the loads of this partition, the present one last
	// Compaction may have taken records from unsettled on for the sake of later ones, which are all in from settled on.
	unsettled, settled int64
}

// reached reports whether what lay below next is in, or what has taken its place.
func (p *part) reached(next int64) bool {
	return p.Next >= next && (p.Next >= p.settled || next <= p.unsettled)
}

// askedMost bounds the answers that a partition keeps, and so how closely the age of one that always lags is known.
const askedMost = 32

// asking is what the leader answered when it was asked how far its log reaches.
type asking struct {
	end   int64
	asked time.Time
}

// epochStart: the first record seen under a leader epoch.
type epochStart struct {
	epoch int32
	start int64
}

// Mark is a position as a reader meets it: the vector, its text, and the time since which it is known to be
// current. It is immutable.
type Mark struct {
	Position position.Position
	Text     string
	asOf     time.Time
}

// Age is how old the data may be at most; ok is false while that is not known.
func (m *Mark) Age() (age time.Duration, ok bool) {
	if m.asOf.IsZero() {
		return 0, false
	}
	return max(0, time.Since(m.asOf), time.Now().Round(0).Sub(m.asOf.Round(0))), true // monotonic and wall: a suspended machine stops one of them
}

// answered takes in that the leader, asked then, had a high watermark of end.
func (p *part) answered(end, stable int64, asked time.Time) {
	p.end, p.stable, p.endAsked = end, stable, asked
	if len(p.asked) == askedMost { // the one that its neighbours stand closest around is missed least
		around := func(i int) time.Duration { return p.asked[i+1].asked.Sub(p.asked[i-1].asked) }
		least := 1
		for i := 2; i < askedMost-1; i++ {
			if around(i) < around(least) {
				least = i
			}
		}
		p.asked = slices.Delete(p.asked, least, least+1)
	}
	p.asked = append(p.asked, asking{end, asked})
	p.prove()
}

// prove looks for the newest answer of which all is in. Those before it say no more.
func (p *part) prove() {
	for i := len(p.asked) - 1; i >= 0; i-- {
		if q := p.asked[i]; p.reached(q.end) {
			p.asked = append(p.asked[:0], p.asked[i+1:]...)
			p.current(q.asked)
			return
		}
	}
}

// current notes that all that the leader had when it was asked is in, and reports whether that is news.
func (p *part) current(asked time.Time) bool {
	if !asked.After(p.asOf) {
		return false
	}
	p.asOf = asked
	p.eras[len(p.eras)-1].current(p.Next)
	return true
}

// progress moves a partition on. It reports whether its log start has moved, past which expire has to do its work.
func (st *state) progress(n ingest.Progress) (expires bool) {
	for int(n.Partition) >= len(st.parts) {
		p := part{eras: []era{openEra(n.LogStart)}}
		p.LogStart = n.LogStart
		st.parts = append(st.parts, p)
	}
	p := &st.parts[n.Partition]
	p.eras[len(p.eras)-1].hole(n.Gap)
	if n.Settled > 0 {
		if p.Next >= p.settled {
			p.unsettled = p.Next
		}
		p.settled = max(p.settled, n.Settled)
	}
	p.Next = n.Next
	p.Epoch = n.Epoch // EpochUnknown where no record was seen: then it proves and disproves nothing
	p.prove()
	return n.LogStart > p.LogStart
}

// readMark is the state's position, computed once per state that anybody reads.
func (st *state) readMark() *Mark {
	if m := st.mark.Load(); m != nil {
		return m
	}
	parts := make([]position.Partition, len(st.parts))
	m := &Mark{}
	for i := range st.parts {
		parts[i] = st.parts[i].Partition
		if asOf := st.parts[i].asOf; i == 0 || asOf.Before(m.asOf) {
			m.asOf = asOf
		}
	}
	asOf := m.asOf
	if asOf.IsZero() {
		asOf = time.UnixMilli(1) // not proved current yet: older than anything, but no position of a mere write
	}
	m.Position = position.New(st.topicID, asOf, parts)
	m.Text = m.Position.String()
	st.mark.Store(m)
	return m
}

// Mark is the position of the state served. The error is ErrNotReady, with what stands in the way.
func (c *Cache) Mark() (*Mark, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.cur == nil {
		return nil, c.notReady()
	}
	return c.cur.readMark(), nil
}
