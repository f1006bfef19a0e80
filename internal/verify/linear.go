package verify

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// maxOperations bounds the history of one key that porcupine is given: its time may grow exponentially.
const maxOperations = 300

// linearTimeout is for one key. Beyond it nothing is known, which fails the check.
const linearTimeout = 20 * time.Second

// operation is what porcupine is told of one key: a write of value, or a read that saw it. "" is absent.
type operation struct {
	write bool
	value string
}

// register is one key's value.
var register = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, input, _ any) (bool, any) {
		op := input.(operation)
		if op.write {
			return true, op.value
		}
		return op.value == state.(string), state
	},
}

// Linearizable has porcupine look for an order of the writes and the fresh reads of each key that explains what was
// read and agrees with real time. It takes values to be unique. Left out are keys with records in several partitions,
// and those that a log start has passed, for which nothing is promised. Reads beyond maxOperations are left out evenly.
func Linearizable(h *History) error { return linearizable(h, linearTimeout) }

func linearizable(h *History, timeout time.Duration) error {
	var f faults
	reads, writes := map[string][]porcupine.Operation{}, map[string][]porcupine.Operation{}
	for i := range h.Reads {
		r := &h.Reads[i]
		if !r.answered() || !r.Fresh && r.MaxStale != 0 {
			continue
		}
		for _, item := range r.seen(h) {
			reads[item.Key] = append(reads[item.Key], porcupine.Operation{Input: operation{value: item.Value}, Call: r.Call.Seq, Return: r.Return.Seq})
		}
	}
	for i := range h.Writes {
		if op, ok := h.happened(&h.Writes[i]); ok {
			key := h.Writes[i].Key
			writes[key] = append(writes[key], op)
		}
	}
	deletions := h.deletions()
	for _, key := range slices.Sorted(maps.Keys(reads)) {
		if h.Log.Conflict(key) || h.trimmed(key) {
			continue
		}
		ops := append(writes[key], deletions...)
		if len(ops) >= maxOperations {
			f.add("key %q: %d writes are too many to check; use more keys", key, len(ops))
			continue
		}
		ops = append(ops, thin(reads[key], maxOperations-len(ops))...)
		switch porcupine.CheckOperationsTimeout(register, ops, timeout) {
		case porcupine.Illegal:
			f.add("key %q: no order explains these operations:%s", key, story(ops))
		case porcupine.Unknown:
			f.add("key %q: not decided within %v", key, timeout)
		}
	}
	return f.err()
}

// seen are the keys that r says something about. A list says that a key is absent by leaving it out.
func (r *Read) seen(h *History) []Item {
	if r.Kind != List {
		return r.Items
	}
	items := slices.Clone(r.Items)
	listed := map[string]bool{}
	for _, i := range items {
		listed[i.Key] = true
	}
	for _, t := range h.Log.Topics {
		for key := range t.keys {
			if len(key) >= len(r.Prefix) && key[:len(r.Prefix)] == r.Prefix && !listed[key] {
				listed[key] = true
				items = append(items, Item{Key: key, Absent: true})
			}
		}
	}
	return items
}

// happened is w as an operation; false if it never took place.
func (h *History) happened(w *Write) (porcupine.Operation, bool) {
	op := porcupine.Operation{Input: operation{true, w.Value}, Call: w.Call.Seq, Return: w.Return.Seq}
	switch w.Outcome {
	case Acked:
		return op, true
	case Unknown:
		op.Return = math.MaxInt64 // at some time after the call
		n, _ := h.Log.holds(w.ID)
		return op, n > 0
	}
	return op, false
}

// deletions are of every key, when the topic was made anew.
func (h *History) deletions() (ops []porcupine.Operation) {
	for i, t := range h.Log.Topics[1:] {
		ops = append(ops, porcupine.Operation{Input: operation{write: true}, Call: h.Log.Topics[i].Gone.Seq, Return: t.Made.Seq})
	}
	return ops
}

// trimmed: a record of key that was its partition's newest lies below a log start, so that it may have been shown or
// not.
func (h *History) trimmed(key string) bool {
	for _, trim := range h.Trims {
		t, _ := h.Log.Topic(trim.Topic)
		if t == nil || int(trim.Partition) >= len(t.keys[key]) {
			continue
		}
		records := t.keys[key][trim.Partition]
		if n := below(records, trim.Offset); n > 0 && !records[n-1].Deleted {
			return true
		}
	}
	return false
}

// thin leaves out all but n, evenly.
func thin(ops []porcupine.Operation, n int) []porcupine.Operation {
	if len(ops) <= n {
		return ops
	}
	out := make([]porcupine.Operation, n)
	for i := range out {
		out[i] = ops[i*len(ops)/n]
	}
	return out
}

func story(ops []porcupine.Operation) (text string) {
	slices.SortFunc(ops, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	for _, op := range ops {
		in := op.Input.(operation)
		what := "fresh read"
		if in.write {
			what = "write"
		}
		text += fmt.Sprintf("\n    %s %q, calls %d to %d", what, in.value, op.Call, op.Return)
	}
	return text
}
