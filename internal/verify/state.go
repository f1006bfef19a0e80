package verify

import (
	"fmt"
	"slices"

	"github.com/kkv-project/kkv/internal/position"
)

// Writes checks GUARANTEES rule 8: what was acknowledged stands in the log, where the answer says and once (a delete, once in
// each partition where the key lives); what was refused does not; and in a partition, real-time order is offset order.
func Writes(h *History) error {
	var f faults
	byPartition := map[partitionID][]*Write{}
	for i := range h.Writes {
		w := &h.Writes[i]
		n, partitions := h.Log.holds(w.ID)
		switch {
		case n > 1, partitions > 1 && !w.Deleted:
			f.add("%v: stands in the log %d times, in %d partitions", w, n, partitions)
		case w.Outcome == Refused && n > 0:
			f.add("%v: was refused, and stands in the log", w)
		case w.Outcome == Acked:
			t, _ := h.Log.Topic(w.Topic)
			if t == nil || !t.stands(w) {
				f.add("%v: was acknowledged, and does not stand in the log", w)
			}
			id := partitionID{w.Topic, w.Partition}
			byPartition[id] = append(byPartition[id], w)
		}
	}
	for _, ws := range byPartition {
		// The highest offset of those that had returned before a write was called must lie below it.
		sweep(ws, func(w *Write) (call, ret int64) { return w.Call.Seq, w.Return.Seq }, func(before, w *Write) bool { return before.Offset > w.Offset },
			func(before, w *Write) {
				if before.Offset >= w.Offset {
					f.add("%v: was called after the acknowledgement of %v", w, before)
				}
			})
	}
	return f.err()
}

type partitionID struct {
	topic     [16]byte
	partition int32
}

func (t *Topic) stands(w *Write) bool {
	parts := t.keys[w.Key]
	if int(w.Partition) >= len(parts) {
		return false
	}
	n := below(parts[w.Partition], w.Offset)
	return n < len(parts[w.Partition]) && parts[w.Partition][n].Offset == w.Offset && parts[w.Partition][n].ID == w.ID
}

// sweep goes through things in the order of their calls and tells each the greatest of those that had returned before
// it was called, if there is one.
func sweep[T any](all []T, times func(T) (call, ret int64), greater func(a, b T) bool, tell func(before, t T)) {
	byReturn, byCall := slices.Clone(all), slices.Clone(all)
	slices.SortFunc(byCall, func(a, b T) int { x, _ := times(a); y, _ := times(b); return int(x - y) })
	slices.SortFunc(byReturn, func(a, b T) int { _, x := times(a); _, y := times(b); return int(x - y) })
	next := 0
	var most T
	have := false
	for _, t := range byCall {
		call, _ := times(t)
		for next < len(byReturn) {
			if _, ret := times(byReturn[next]); ret >= call {
				break
			}
			if !have || greater(byReturn[next], most) {
				most, have = byReturn[next], true
			}
			next++
		}
		if have {
			tell(most, t)
		}
	}
}

// Explain checks GUARANTEES rule 2: every answer about a key, absence included, is the fold of the log up to the
// position that it names.
func Explain(h *History) error {
	var f faults
	for i := range h.Reads {
		r := &h.Reads[i]
		if r.Kind == List || !r.answered() {
			continue
		}
		t, _ := h.Log.Topic(r.Position.TopicID())
		if t == nil {
			f.add("%s: no topic had that ID", h.who(r))
			continue
		}
		for _, item := range r.Items {
			want, ok := t.At(item.Key, r.Position)
			if why := differs(item, want, ok); why != "" {
				f.add("%s: key %q: %s", h.who(r), item.Key, why)
			}
		}
	}
	return f.err()
}

// differs says in what an answer differs from the log's record, "" for nothing.
func differs(got Item, want Record, ok bool) string {
	switch {
	case !ok && !got.Absent:
		return fmt.Sprintf("answered %q of %d:%d, but in the log there is none", got.Value, got.Partition, got.Offset)
	case ok && got.Absent:
		return fmt.Sprintf("answered absent, but in the log there is %q at %d:%d", want.Value, want.Partition, want.Offset)
	case ok && (got.Value != want.Value || got.Partition != want.Partition || got.Offset != want.Offset):
		return fmt.Sprintf("answered %q of %d:%d, but in the log there is %q at %d:%d", got.Value, got.Partition, got.Offset, want.Value, want.Partition, want.Offset)
	}
	return ""
}

// Snapshot checks that a list holds exactly the keys that the log has at its one position. Of a batch get Explain
// says the same.
func Snapshot(h *History) error {
	var f faults
	for i := range h.Reads {
		r := &h.Reads[i]
		if r.Kind != List || !r.answered() {
			continue
		}
		t, _ := h.Log.Topic(r.Position.TopicID())
		if t == nil {
			f.add("%s: no topic had that ID", h.who(r))
			continue
		}
		if why := unlike(r.Items, t.State(r.Prefix, r.Position)); why != "" {
			f.add("%s: %s", h.who(r), why)
		}
	}
	return f.err()
}

// unlike says in what a whole answer, in key order, differs from the log's state.
func unlike(got []Item, want []Record) string {
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got) || i < len(want) && want[i].Key < got[i].Key:
			return fmt.Sprintf("key %q: lacks %q of %d:%d", want[i].Key, want[i].Value, want[i].Partition, want[i].Offset)
		case i >= len(want) || got[i].Key < want[i].Key:
			return fmt.Sprintf("key %q: has %q of %d:%d, but in the log there is none", got[i].Key, got[i].Value, got[i].Partition, got[i].Offset)
		}
		if why := differs(got[i], want[i], true); why != "" {
			return fmt.Sprintf("key %q: %s", got[i].Key, why)
		}
	}
	return ""
}

// Convergence checks that replicas at one position and log start are equal, and that all that run at the end have
// come to the end of the log.
func Convergence(h *History) error {
	var f faults
	type place struct{ position, prefix string }
	seen := map[place]*Read{}
	final := map[int]bool{}
	for i := range h.Reads {
		r := &h.Reads[i]
		if r.Final && r.answered() && covers(h, r.Position, h.End) {
			final[r.Run] = true
		}
		if r.Kind != List || !r.answered() {
			continue
		}
		at := place{vector(r.Position), r.Prefix}
		if first := seen[at]; first == nil {
			seen[at] = r
		} else if !slices.Equal(first.Items, r.Items) {
			f.add("%s: differs from %s", h.who(r), h.who(first))
		}
	}
	for i, run := range h.Runs {
		if run.Ended.Seq == 0 && !h.End.IsZero() && !final[i] {
			f.add("%s: did not come to the end of the log, %s", h.run(i), h.End)
		}
	}
	return f.err()
}

// vector is all of a position that its state depends on.
func vector(p position.Position) string {
	b := fmt.Appendf(nil, "%x", p.TopicID())
	for i := range p.Len() {
		c := p.Partition(int32(i))
		b = fmt.Appendf(b, ".%d_%d", c.Next, c.LogStart)
	}
	return string(b)
}

// covers reports whether p is at or beyond q, or of a later incarnation.
func covers(h *History, p, q position.Position) bool {
	if q.IsZero() || p.Covers(q) {
		return true
	}
	_, a := h.Log.Topic(p.TopicID())
	_, b := h.Log.Topic(q.TopicID())
	return a > b
}
