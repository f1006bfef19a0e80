package verify

import (
	"cmp"
	"slices"
	"time"

	"github.com/kkv-project/kkv/internal/position"
)

// ReadyComplete checks that no answer of a run lacks anything that was stable in Kafka before the run was started.
func ReadyComplete(h *History) error {
	var f faults
	for i := range h.Reads {
		r := &h.Reads[i]
		if !r.answered() {
			continue
		}
		run := &h.Runs[r.Run]
		_, was := h.Log.Topic(run.Topic)
		switch _, is := h.Log.Topic(r.Position.TopicID()); {
		case is < was:
			f.add("%s: from an incarnation that was gone when the run was started", h.who(r))
		case is == was:
			for p, end := range run.Ends {
				if next := r.Position.Partition(int32(p)).Next; next < end {
					f.add("%s: partition %d ended at %d when the run was started", h.who(r), p, end)
				}
			}
		}
	}
	return f.err()
}

// LogOrder checks that no run goes back: of two answers, one after the other, the later covers the earlier, and per
// key and partition shows no older record.
func LogOrder(h *History) error {
	var f faults
	byRun := make([][]*Read, len(h.Runs))
	for i := range h.Reads {
		if r := &h.Reads[i]; r.answered() {
			byRun[r.Run] = append(byRun[r.Run], r)
		}
	}
	for _, reads := range byRun {
		checkPositions(h, &f, reads)
		checkRecords(h, &f, reads)
	}
	return f.err()
}

func readTimes(r *Read) (call, ret int64) { return r.Call.Seq, r.Return.Seq }

func checkPositions(h *History, f *faults, reads []*Read) {
	parts := 0
	for _, r := range reads {
		parts = max(parts, r.Position.Len())
	}
	for p := range int32(parts) {
		place := func(r *Read) (topic int, next int64) {
			_, topic = h.Log.Topic(r.Position.TopicID())
			return topic, r.Position.Partition(p).Next
		}
		greater := func(a, b *Read) bool {
			ta, na := place(a)
			tb, nb := place(b)
			return ta > tb || ta == tb && na > nb
		}
		sweep(reads, readTimes, greater, func(before, r *Read) {
			if greater(before, r) {
				f.add("%s: after %s", h.who(r), h.who(before))
			}
		})
	}
}

// shownRecord is one record in one answer.
type shownRecord struct {
	read *Read
	item Item
}

func checkRecords(h *History, f *faults, reads []*Read) {
	type place struct {
		key       string
		partition partitionID
	}
	byPlace := map[place][]shownRecord{}
	for _, r := range reads {
		for _, item := range r.Items {
			if !item.Absent {
				at := place{item.Key, partitionID{r.Position.TopicID(), item.Partition}}
				byPlace[at] = append(byPlace[at], shownRecord{r, item})
			}
		}
	}
	for at, all := range byPlace {
		sweep(all, func(s shownRecord) (call, ret int64) { return readTimes(s.read) }, func(a, b shownRecord) bool { return a.item.Offset > b.item.Offset },
			func(before, s shownRecord) {
				if before.item.Offset > s.item.Offset {
					f.add("%s: key %q at offset %d, after offset %d in %s", h.who(s.read), at.key, s.item.Offset, before.item.Offset, h.who(before.read))
				}
			})
	}
}

// ReadYourWrites checks that a read at least at a position covers it, that a write which was answered 200 is served by
// that run from then on, and that a position is refused only where its topic is gone.
func ReadYourWrites(h *History) error {
	var f faults
	served := make([]acks, len(h.Runs))
	for i := range h.Writes {
		if w := &h.Writes[i]; w.Outcome == Acked && w.Served >= 0 {
			served[w.Served].add(h, w)
		}
	}
	for i := range served {
		served[i].sort()
	}
	for i := range h.Reads {
		r := &h.Reads[i]
		switch {
		case r.Problem == "position-truncated" && !h.Truncated:
			f.add("%s: refused as truncated, but nothing was", h.who(r))
		case r.Problem == "position-from-another-topic" && !hasOldTopic(h, r):
			f.add("%s: refused as another topic's, but it is not", h.who(r))
		}
		if !r.answered() {
			continue
		}
		for _, p := range r.AtLeast {
			if !atLeast(r.Position, p) {
				f.add("%s: does not cover %s", h.who(r), p)
			}
		}
		served[r.Run].check(h, &f, r, r.Call, "served by this run")
	}
	return f.err()
}

// atLeast is Covers, but a zero topic ID is every topic's.
func atLeast(have, want position.Position) bool {
	if want.TopicID() != [16]byte{} {
		return have.Covers(want)
	}
	for i := range want.Len() {
		if have.Partition(int32(i)).Next < want.Partition(int32(i)).Next {
			return false
		}
	}
	return true
}

// hasOldTopic: one of the positions that r demanded is of an incarnation that may have been gone when it was answered.
func hasOldTopic(h *History, r *Read) bool {
	newest := -1
	for i, t := range h.Log.Topics {
		if t.Born.Before(r.Return) {
			newest = i
		}
	}
	return slices.ContainsFunc(r.AtLeast, func(p position.Position) bool {
		_, i := h.Log.Topic(p.TopicID())
		return p.TopicID() != [16]byte{} && i < newest
	})
}

// acks are writes that were acknowledged, by when, with how far each incarnation and partition has come by then.
type acks struct {
	all []*ack
}

type ack struct {
	w     *Write
	topic int
	ends  map[partitionID]int64 // of the newest incarnation so far: one beyond the highest offset
}

func (a *acks) add(h *History, w *Write) {
	_, i := h.Log.Topic(w.Topic)
	a.all = append(a.all, &ack{w: w, topic: i})
}

func (a *acks) sort() {
	slices.SortFunc(a.all, func(x, y *ack) int { return cmp.Compare(x.w.Return.Seq, y.w.Return.Seq) })
	topic, ends := -1, map[partitionID]int64{}
	for _, x := range a.all {
		if x.topic > topic {
			topic, ends = x.topic, map[partitionID]int64{}
		}
		if id := (partitionID{x.w.Topic, x.w.Partition}); x.topic == topic && x.w.Offset >= ends[id] {
			next := make(map[partitionID]int64, len(ends)+1)
			for k, v := range ends {
				next[k] = v
			}
			next[id] = x.w.Offset + 1
			ends = next
		}
		x.topic, x.ends = topic, ends
	}
}

// before is the last of those acknowledged before the stamp; nil if there is none.
func (a *acks) before(s Stamp) *ack {
	n, _ := slices.BinarySearchFunc(a.all, s.Seq, func(x *ack, seq int64) int { return cmp.Compare(x.w.Return.Seq, seq) })
	if n == 0 {
		return nil
	}
	return a.all[n-1]
}

// until is the last of those acknowledged before the time.
func (a *acks) until(t time.Time) *ack {
	n, _ := slices.BinarySearchFunc(a.all, t, func(x *ack, t time.Time) int { return x.w.Return.At.Compare(t) })
	if n == 0 {
		return nil
	}
	return a.all[n-1]
}

func (a *acks) check(h *History, f *faults, r *Read, s Stamp, how string) {
	r.lacks(h, f, a.before(s), how)
}

// lacks adds a fault if r's position does not cover all that was acknowledged by then.
func (r *Read) lacks(h *History, f *faults, by *ack, how string) {
	if by == nil {
		return
	}
	_, topic := h.Log.Topic(r.Position.TopicID())
	if topic < by.topic {
		f.add("%s: from an earlier incarnation than %v, %s", h.who(r), by.w, how)
		return
	}
	if topic > by.topic {
		return
	}
	for id, end := range by.ends {
		if next := r.Position.Partition(id.partition).Next; next < end {
			f.add("%s: offset %d of partition %d was %s", h.who(r), end-1, id.partition, how)
		}
	}
}

func allAcks(h *History) *acks {
	a := &acks{}
	for i := range h.Writes {
		if w := &h.Writes[i]; w.Outcome == Acked {
			a.add(h, w)
		}
	}
	a.sort()
	return a
}

// Fresh checks that a fresh read covers every write that was acknowledged before it was called.
func Fresh(h *History) error {
	var f faults
	a := allAcks(h)
	for i := range h.Reads {
		if r := &h.Reads[i]; r.answered() && (r.Fresh || r.MaxStale == 0) {
			a.check(h, &f, r, r.Call, "acknowledged before")
		}
	}
	return f.err()
}

// BoundedStale checks that an answer lacks no write that was acknowledged longer ago than the age that was demanded,
// or than the one that it names.
func BoundedStale(h *History) error {
	var f faults
	a := allAcks(h)
	for i := range h.Reads {
		r := &h.Reads[i]
		if !r.answered() {
			continue
		}
		if r.MaxStale > 0 {
			r.lacks(h, &f, a.until(r.Call.At.Add(-r.MaxStale)), "acknowledged more than "+r.MaxStale.String()+" before")
		}
		if r.Age >= 0 { // a whole number of milliseconds, rounded down
			r.lacks(h, &f, a.until(r.Call.At.Add(-r.Age-time.Millisecond)), "acknowledged more than the age, "+r.Age.String()+", before")
		}
	}
	return f.err()
}
