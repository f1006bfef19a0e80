package verify

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kkv-project/kkv/internal/position"
	"github.com/kkv-project/kkv/internal/wire"
)

var topicA, topicB = [16]byte{0xa}, [16]byte{0xb}

// at is a position of topic A, with as many partitions as offsets.
func at(next ...int64) position.Position { return of(topicA, next...) }

func of(topic [16]byte, next ...int64) position.Position {
	parts := make([]position.Partition, len(next))
	for i, n := range next {
		parts[i] = position.Partition{Next: n}
	}
	return position.New(topic, time.UnixMilli(1), parts)
}

// trimmed is p with a log start in partition 0.
func trimmed(p position.Position, start int64) position.Position {
	parts := make([]position.Partition, p.Len())
	for i := range parts {
		parts[i] = p.Partition(int32(i))
	}
	parts[0].LogStart = start
	return position.New(p.TopicID(), time.UnixMilli(1), parts)
}

// stamp is a moment one second after that of the number before it.
func stamp(seq int64) Stamp { return Stamp{seq, time.Unix(seq, 0)} }

// sample is a history without fault: x is put, put again and deleted in partition 0, y put in partition 1, and z in both.
//
//	partition 0: x=1 x=2 (x deleted) z=1     partition 1: y=1 z=2
func sample() *History {
	h := &History{Runs: []Run{{Replica: "r", Started: stamp(5), Topic: topicA, Ends: []int64{1, 0}, Ready: at(1, 0), Targets: []string{"hook"}}}, End: at(4, 2)}
	t := h.Log.Add(topicA, stamp(1), stamp(2))
	write := func(call int64, key, value string, partition int32, offset int64) {
		id := fmt.Sprintf("%d:%d", partition, offset)
		t.Append(Record{Key: key, Value: value, Deleted: value == "", Partition: partition, Offset: offset, Timestamp: call, ID: id})
		h.Writes = append(h.Writes, Write{ID: id, Key: key, Value: value, Deleted: value == "", Call: stamp(call), Return: stamp(call + 2),
			Outcome: Acked, Topic: topicA, Partition: partition, Offset: offset, Served: -1})
	}
	write(3, "x", "1", 0, 0)
	write(10, "x", "2", 0, 1)
	write(20, "y", "1", 1, 0)
	write(30, "x", "", 0, 2)
	write(40, "z", "1", 0, 3)
	write(43, "z", "2", 1, 1)
	h.Reads = []Read{
		read(7, at(1, 0), x("1", 0)),
		read(13, at(2, 0), x("2", 1)),
		read(23, at(2, 1), Item{Key: "y", Value: "1", Partition: 1}),
		read(33, at(3, 1), Item{Key: "x", Absent: true}),
		list(50, at(4, 2), Item{Key: "y", Value: "1", Partition: 1}, Item{Key: "z", Value: "2", Partition: 1, Offset: 1}),
	}
	h.Reads[4].Final = true
	h.Streams = []Stream{
		{Call: stamp(8), Final: true, Events: []Event{
			put("x", "1", 0, 0), named(wire.Synced, at(1, 0)),
			live(put("x", "2", 0, 1), at(2, 0)),
			put("y", "1", 1, 0), live(Event{Type: wire.Delete, Key: "x", Offset: 2}, at(3, 1)),
			named(wire.Progress, at(3, 1)),
			put("z", "1", 0, 3), live(put("z", "2", 1, 1), at(4, 2)),
		}},
		{Call: stamp(45), Since: at(2, 0), Events: []Event{
			put("y", "1", 1, 0), {Type: wire.Delete, Key: "x", Offset: 2}, put("z", "2", 1, 1), named(wire.Synced, at(4, 2)),
		}},
		{Call: stamp(46), Since: at(2, 0), Prefix: "y", Events: []Event{
			{Type: wire.Reset, Reason: "beyond-horizon"}, put("y", "1", 1, 0), named(wire.Synced, at(4, 2)), {Type: wire.Closing},
		}},
	}
	h.Posts = []Post{
		{Receiver: "hook", At: stamp(14), OK: true, Offsets: map[int32]int64{0: 1}, Keys: []string{"x"}},
		{Receiver: "hook", At: stamp(24), OK: true, Offsets: map[int32]int64{1: 0}, Keys: []string{"y"}},
		{Receiver: "hook", At: stamp(34), OK: false, Offsets: map[int32]int64{0: 2}, Keys: []string{"x"}},
		{Receiver: "hook", At: stamp(35), OK: true, Offsets: map[int32]int64{0: 2}, Keys: []string{"x"}},
		{Receiver: "hook", At: stamp(48), OK: true, Offsets: map[int32]int64{1: 1}, Keys: []string{"z"}},
	}
	return h
}

// read is a fresh get, from call to call+1.
func read(call int64, p position.Position, item Item) Read {
	return Read{Kind: Get, Call: stamp(call), Return: stamp(call + 1), Status: 200, Position: p, Fresh: true, MaxStale: -1, Age: -1, Items: []Item{item}}
}

// list is a list with nothing demanded.
func list(call int64, p position.Position, items ...Item) Read {
	return Read{Kind: List, Call: stamp(call), Return: stamp(call + 1), Status: 200, Position: p, MaxStale: -1, Age: -1, Items: items}
}

func local(r Read) Read { r.Fresh = false; return r }

func x(value string, offset int64) Item { return Item{Key: "x", Value: value, Offset: offset} }

func put(key, value string, partition int32, offset int64) Event {
	return Event{Type: wire.Put, Key: key, Value: value, Partition: partition, Offset: offset}
}

func live(e Event, p position.Position) Event { e.Position = p; return e }

func named(kind string, p position.Position) Event { return Event{Type: kind, Position: p} }

// remade adds incarnation B, with y=9 in its partition 0.
func remade(h *History) {
	h.Log.Topics[0].Gone = stamp(60)
	h.Log.Add(topicB, stamp(61), stamp(62)).Append(Record{Key: "y", Value: "9", Timestamp: 70, ID: "b"})
	h.Writes = append(h.Writes, Write{ID: "b", Key: "y", Value: "9", Call: stamp(70), Return: stamp(72), Outcome: Acked, Topic: topicB, Served: -1})
	h.End = of(topicB, 1, 0)
}

// b is what reads show of incarnation B.
func b() Item { return Item{Key: "y", Value: "9"} }

// cases are histories that differ from the sample. want is a part of the checker's complaint, "" if it must accept.
var cases = []struct {
	checker, name string
	change        func(*History)
	want          string
}{
	{"Writes", "a write of unknown outcome that happened", func(h *History) { h.Writes[1].Outcome = Unknown }, ""},
	{"Writes", "a write of unknown outcome that did not", func(h *History) { h.Writes = append(h.Writes, Write{ID: "n", Key: "x"}) }, ""},
	{"Writes", "concurrent writes in either order", func(h *History) { h.Writes[0].Call, h.Writes[0].Return = stamp(11), stamp(13) }, ""},
	{"Writes", "an acknowledged write that is lost", func(h *History) {
		h.Writes = append(h.Writes, Write{ID: "n", Key: "x", Offset: 1, Topic: topicA, Outcome: Acked, Call: stamp(90), Return: stamp(91)})
	}, "does not stand in the log"},
	{"Writes", "a refused write that happened", func(h *History) { h.Writes[1].Outcome = Refused }, "was refused, and stands"},
	{"Writes", "a write that stands twice", func(h *History) { h.Log.Topics[0].Append(Record{Key: "q", Offset: 9, ID: "0:1"}) }, "2 times"},
	{"Writes", "a delete in each partition", func(h *History) {
		h.Log.Topics[0].Append(Record{Key: "x", Deleted: true, Partition: 1, Offset: 9, ID: "0:2"})
	}, ""},
	{"Writes", "a put in two partitions", func(h *History) {
		h.Log.Topics[0].Append(Record{Key: "x", Value: "2", Partition: 1, Offset: 9, ID: "0:1"})
	}, "in 2 partitions"},
	{"Writes", "offset order against real time", func(h *History) { h.Writes[1].Call, h.Writes[1].Return = stamp(33), stamp(34) }, "called after the acknowledgement"},

	{"Ready-complete", "a later incarnation", func(h *History) { remade(h); h.Reads = append(h.Reads, read(80, of(topicB, 0, 0), b())) }, ""},
	{"Ready-complete", "an answer before the end that stood at the start", func(h *History) { h.Runs[0].Ends[1] = 1 }, "ended at 1"},
	{"Ready-complete", "an answer from what was gone", func(h *History) { remade(h); h.Runs[0].Topic = topicB }, "incarnation that was gone"},

	{"Explain", "a 304", func(h *History) { h.Reads[0].Status = 304 }, ""},
	{"Explain", "refusals say nothing", func(h *History) {
		h.Reads[0] = Read{Status: 504, Items: []Item{{Key: "x", Absent: true}}}
	}, ""},
	{"Explain", "a record behind the log start", func(h *History) {
		h.Reads[0].Position = trimmed(at(1, 0), 1)
		h.Reads[0].Items[0] = Item{Key: "x", Absent: true}
	}, ""},
	{"Explain", "a record behind the log start that is shown", func(h *History) { h.Reads[0].Position = trimmed(at(1, 0), 1) }, "there is none"},
	{"Explain", "a value older than the position", func(h *History) { h.Reads[1].Items[0] = x("1", 0) }, `there is "2" at 0:1`},
	{"Explain", "a value newer than the position", func(h *History) { h.Reads[0].Items[0] = x("2", 1) }, `there is "1" at 0:0`},
	{"Explain", "another's value", func(h *History) { h.Reads[0].Items[0].Value = "7" }, `there is "1" at 0:0`},
	{"Explain", "a key that lacks", func(h *History) { h.Reads[0].Items[0] = Item{Key: "x", Absent: true} }, "answered absent"},
	{"Explain", "a deleted key", func(h *History) { h.Reads[3].Items[0] = x("2", 1) }, "there is none"},
	{"Explain", "the loser of two partitions", func(h *History) {
		h.Reads = append(h.Reads, read(52, at(4, 2), Item{Key: "z", Value: "1", Offset: 3}))
	}, `there is "2" at 1:1`},
	{"Explain", "one key of a batch", func(h *History) {
		r := read(52, at(3, 1), x("2", 1))
		r.Kind, r.Items = Batch, append(r.Items, Item{Key: "y", Value: "1", Partition: 1})
		h.Reads = append(h.Reads, r)
	}, `key "x"`},
	{"Explain", "no such topic", func(h *History) { h.Reads[0].Position = of(topicB, 1, 0) }, "no topic"},

	{"Snapshot", "only what has the prefix", func(h *History) {
		r := list(52, at(4, 2), Item{Key: "y", Value: "1", Partition: 1})
		r.Prefix = "y"
		h.Reads = append(h.Reads, r)
	}, ""},
	{"Snapshot", "a key left out", func(h *History) { h.Reads[4].Items = h.Reads[4].Items[1:] }, `key "y": lacks`},
	{"Snapshot", "a key that is not there", func(h *History) { h.Reads[4].Items = append([]Item{x("2", 1)}, h.Reads[4].Items...) }, `key "x": has`},
	{"Snapshot", "a key from a later position", func(h *History) { h.Reads[4].Position = at(4, 1) }, `key "z"`},

	{"Log-order", "concurrent answers in either order", func(h *History) { h.Reads[0].Call, h.Reads[0].Return = stamp(13), stamp(15) }, ""},
	{"Log-order", "another run may be behind", func(h *History) {
		h.Runs = append(h.Runs, h.Runs[0])
		r := read(16, at(1, 0), x("1", 0))
		r.Run = 1
		h.Reads = append(h.Reads, r)
	}, ""},
	{"Log-order", "a position that goes back", func(h *History) { h.Reads[3].Position = at(3, 0) }, "after get"},
	{"Log-order", "a value that goes back", func(h *History) {
		h.Reads[2].Kind, h.Reads[2].Items = Batch, []Item{x("1", 0)}
	}, "offset 0, after offset 1"},
	{"Log-order", "an incarnation that goes back", func(h *History) {
		remade(h)
		h.Reads = append(h.Reads, read(80, of(topicB, 1, 0), b()), read(82, at(4, 2), Item{Key: "x", Absent: true}))
	}, "after get"},

	{"Read-your-writes", "a position that is met", func(h *History) { h.Reads[1].AtLeast = []position.Position{at(2, 0), at(1)} }, ""},
	{"Read-your-writes", "an offset of whatever topic", func(h *History) {
		h.Reads[1].AtLeast = []position.Position{position.FromWrite([16]byte{}, 0, 1)}
	}, ""},
	{"Read-your-writes", "a position of a topic that is gone", func(h *History) {
		remade(h)
		h.Reads = append(h.Reads, Read{Call: stamp(80), Return: stamp(81), Status: 409, Problem: "position-from-another-topic", AtLeast: []position.Position{at(1, 1)}})
	}, ""},
	{"Read-your-writes", "a position that is not met", func(h *History) { h.Reads[1].AtLeast = []position.Position{at(2, 1)} }, "does not cover"},
	{"Read-your-writes", "an offset that is not met", func(h *History) {
		h.Reads[1].AtLeast = []position.Position{position.FromWrite([16]byte{}, 0, 2)}
	}, "does not cover"},
	{"Read-your-writes", "another topic", func(h *History) { h.Reads[1].AtLeast = []position.Position{of(topicB, 0)} }, "does not cover"},
	{"Read-your-writes", "refused without reason", func(h *History) {
		h.Reads = append(h.Reads, Read{Call: stamp(80), Return: stamp(81), Status: 409, Problem: "position-from-another-topic", AtLeast: []position.Position{at(1, 1)}})
	}, "but it is not"},
	{"Read-your-writes", "truncated without reason", func(h *History) {
		h.Reads = append(h.Reads, Read{Call: stamp(80), Return: stamp(81), Status: 409, Problem: "position-truncated"})
	}, "but nothing was"},
	{"Read-your-writes", "a PUT that was served", func(h *History) { h.Writes[1].Served = 0 }, ""},
	{"Read-your-writes", "a PUT that was not served", func(h *History) {
		h.Writes[1].Served, h.Reads[1].Position = 0, at(1, 0)
	}, "served by this run"},

	{"Fresh", "a write that is under way may be seen or not", func(h *History) {
		h.Reads = append(h.Reads, read(11, at(1, 0), x("1", 0)), read(11, at(2, 0), x("2", 1)))
	}, ""},
	{"Fresh", "a read that is not fresh", func(h *History) { h.Reads[1] = local(read(13, at(1, 0), x("1", 0))) }, ""},
	{"Fresh", "another incarnation has none of it", func(h *History) { remade(h); h.Reads = append(h.Reads, read(80, of(topicB, 1, 0), b())) }, ""},
	{"Fresh", "an acknowledged write is not seen", func(h *History) { h.Reads[1] = read(13, at(1, 0), x("1", 0)) }, "offset 1 of partition 0"},
	{"Fresh", "nor with max-stale 0", func(h *History) {
		h.Reads[1] = local(read(13, at(1, 0), x("1", 0)))
		h.Reads[1].MaxStale = 0
	}, "offset 1 of partition 0"},
	{"Fresh", "of another partition", func(h *History) { h.Reads[3].Position = at(3, 0) }, "offset 0 of partition 1"},
	{"Fresh", "an incarnation that is gone", func(h *History) {
		remade(h)
		h.Reads = append(h.Reads, read(80, at(4, 2), Item{Key: "x", Absent: true}))
	}, "earlier incarnation"},

	{"Linearizable", "a write of unknown outcome is seen late", func(h *History) { h.Writes[1].Outcome, h.Writes[1].Return = Unknown, stamp(11) }, ""},
	{"Linearizable", "a write that did not happen", func(h *History) {
		h.Writes = append(h.Writes, Write{ID: "n", Key: "x", Value: "3", Call: stamp(14), Return: stamp(15)})
	}, ""},
	{"Linearizable", "the topic made anew is empty", func(h *History) {
		remade(h)
		h.Reads = append(h.Reads, read(66, of(topicB, 0, 0), Item{Key: "y", Absent: true}), read(80, of(topicB, 1, 0), b()))
	}, ""},
	{"Linearizable", "a key of two partitions", func(h *History) {
		h.Reads = append(h.Reads, read(52, at(4, 2), Item{Key: "z", Value: "2", Partition: 1, Offset: 1}), read(54, at(4, 2), Item{Key: "z", Value: "1", Offset: 3}))
	}, ""},
	{"Linearizable", "a key behind the log start", func(h *History) {
		h.Trims = []Trim{{topicA, 1, 1}}
		h.Reads = append(h.Reads, read(90, at(4, 2), Item{Key: "y", Absent: true}))
	}, ""},
	{"Linearizable", "a stale read", func(h *History) { h.Reads[1] = read(13, at(1, 0), x("1", 0)) }, `key "x"`},
	{"Linearizable", "back and forth while a write is under way", func(h *History) {
		h.Writes[1].Return = stamp(19)
		h.Reads = append(h.Reads, read(15, at(1, 0), x("1", 0)))
	}, `key "x"`},
	{"Linearizable", "a value out of nowhere", func(h *History) { h.Reads[1].Items[0].Value = "7" }, `key "x"`},
	{"Linearizable", "a list that lacks a key", func(h *History) { h.Reads[4].Fresh, h.Reads[4].Items = true, h.Reads[4].Items[1:] }, `key "y"`},
	{"Linearizable", "too many writes", func(h *History) {
		for range maxOperations {
			h.Writes = append(h.Writes, h.Writes[2])
		}
	}, "use more keys"},

	{"Bounded-stale", "not older than demanded", func(h *History) {
		h.Reads[1] = local(read(13, at(1, 0), x("1", 0)))
		h.Reads[1].MaxStale, h.Reads[1].Age = time.Second, time.Second
	}, ""},
	{"Bounded-stale", "older than demanded", func(h *History) {
		h.Reads[1] = local(read(15, at(1, 0), x("1", 0)))
		h.Reads[1].MaxStale = time.Second
	}, "more than 1s before"},
	{"Bounded-stale", "older than the age that is answered", func(h *History) {
		h.Reads[1] = local(read(15, at(1, 0), x("1", 0)))
		h.Reads[1].Age = 2 * time.Second
	}, "more than the age, 2s, before"},

	{"Watch", "of a topic made anew", func(h *History) {
		remade(h)
		h.Streams[0].Events = append(h.Streams[0].Events, Event{Type: wire.Reset}, put("y", "9", 0, 0), named(wire.Synced, of(topicB, 1, 0)))
	}, ""},
	{"Watch", "an intermediate value merged", func(h *History) {
		e := h.Streams[0].Events
		h.Streams[0].Events = append(e[:2:2], e[3:]...)
	}, ""},
	{"Watch", "a key that expired", func(h *History) {
		h.Streams[0].Events = append(h.Streams[0].Events, live(Event{Type: wire.Delete, Key: "y", Partition: 1, Reason: "expired"}, position.New(topicA, time.UnixMilli(1),
			[]position.Partition{{Next: 4}, {Next: 2, LogStart: 1}})))
	}, ""},
	{"Watch", "cut off within a batch", func(h *History) {
		h.Streams[0].Events, h.Streams[0].Final = h.Streams[0].Events[:4], false
	}, ""},
	{"Watch", "the state lacks a key", func(h *History) { h.Streams[0].Events = h.Streams[0].Events[1:] }, `key "x": lacks`},
	{"Watch", "a change is lost", func(h *History) {
		e := h.Streams[0].Events
		h.Streams[0].Events = append(e[:3:3], e[4:]...)
	}, `key "y": lacks`},
	{"Watch", "a delete is lost", func(h *History) {
		e := &h.Streams[0].Events[4]
		*e = named(wire.Progress, e.Position)
	}, `key "x": has`},
	{"Watch", "twice", func(h *History) {
		e := h.Streams[0].Events
		h.Streams[0].Events = append(e[:3:3], e[2:]...)
	}, "after offset 1"},
	{"Watch", "again what the state had", func(h *History) {
		e := h.Streams[0].Events
		h.Streams[0].Events = append(append(e[:2:2], put("x", "1", 0, 0)), e[2:]...)
	}, "and position"},
	{"Watch", "out of order", func(h *History) {
		e := h.Streams[0].Events
		e[2].Offset, e[4].Offset = 2, 1
	}, "after offset 2"},
	{"Watch", "a position within the state", func(h *History) { h.Streams[0].Events[0].Position = at(1, 0) }, "before synced"},
	{"Watch", "a position that goes back", func(h *History) { h.Streams[0].Events[5].Position = at(2, 1) }, "goes back"},
	{"Watch", "a resume that leaves a key out", func(h *History) { h.Streams[1].Events = h.Streams[1].Events[1:] }, `key "y": lacks`},
	{"Watch", "a resume that leaves a delete out", func(h *History) {
		e := h.Streams[1].Events
		h.Streams[1].Events = append(e[:1:1], e[2:]...)
	}, `key "x": has`},
	{"Watch", "a resume that names what nothing touched", func(h *History) {
		h.Streams[1].Since = at(2, 1)
	}, "no record since touched it"},
	{"Watch", "a resume that names a key twice", func(h *History) {
		e := h.Streams[1].Events
		h.Streams[1].Events = append(e[:1:1], e...)
	}, "twice before synced"},
	{"Watch", "synced below since", func(h *History) {
		h.Streams[1].Since, h.Streams[1].Events = at(4, 2), []Event{named(wire.Synced, at(4, 1))}
	}, "below since"},
	{"Watch", "a reset that keeps a key", func(h *History) {
		h.Streams[2].Events[1] = put("x", "2", 0, 1)
	}, "does not begin with"},
	{"Watch", "after closing", func(h *History) { h.Streams[2].Events = append(h.Streams[2].Events, named(wire.Progress, at(4, 2))) }, "after closing"},
	{"Watch", "not to the end", func(h *History) { h.Streams[0].Events = h.Streams[0].Events[:6] }, "came only to"},

	{"Push-eventually", "a run that ended promises nothing", func(h *History) { h.Runs[0].Ended = stamp(55); h.Posts = nil }, ""},
	{"Push-eventually", "merged", func(h *History) { h.Posts = h.Posts[1:] }, ""},
	{"Push-eventually", "a topic made anew", func(h *History) {
		remade(h)
		h.Posts = append(h.Posts, Post{Receiver: "hook", At: stamp(75), OK: true, Offsets: map[int32]int64{0: 0}, Keys: []string{"y"}})
	}, ""},
	{"Push-eventually", "a topic made anew, and not told of", remade, `did not tell hook of key "y" at 0:0`},
	{"Push-eventually", "gone, put and gone again", func(h *History) {
		h.Log.Topics[0].Append(Record{Key: "x", Value: "3", Offset: 4}, Record{Key: "x", Deleted: true, Offset: 5})
		h.End = at(6, 2)
	}, ""},
	{"Push-eventually", "expired before it was deleted", func(h *History) {
		h.Log.Topics[0].Append(Record{Key: "w", Value: "1", Partition: 1, Offset: 2}, Record{Key: "w", Deleted: true, Partition: 1, Offset: 5})
		h.End = position.New(topicA, time.UnixMilli(1), []position.Partition{{Next: 4}, {Next: 6, LogStart: 3}})
		h.Runs[0].Ready = at(1, 3)
		h.Posts = append(h.Posts, Post{Receiver: "hook", At: stamp(49), OK: true, Offsets: map[int32]int64{1: 4}, Keys: []string{"w", "y"}})
	}, ""},
	{"Push-eventually", "never taken", func(h *History) { h.Posts[3].OK = false }, `did not tell hook of key "x" at 0:2`},
	{"Push-eventually", "a key left out", func(h *History) { h.Posts[1].Keys = nil }, `did not tell hook of key "y"`},
	{"Push-eventually", "a key of two partitions left out", func(h *History) { h.Posts[4].Keys = nil }, `never told hook of key "z"`},
	{"Push-eventually", "older after newer", func(h *History) { h.Posts[0].At = stamp(36) }, "offset 1 of partition 0 after 2"},

	{"Convergence", "two prefixes at one position", func(h *History) {
		r := list(52, at(4, 2), Item{Key: "y", Value: "1", Partition: 1})
		r.Prefix = "y"
		h.Reads = append(h.Reads, r)
	}, ""},
	{"Convergence", "two log starts", func(h *History) { h.Reads = append(h.Reads, list(52, trimmed(at(4, 2), 4))) }, ""},
	{"Convergence", "two states at one position", func(h *History) { h.Reads = append(h.Reads, list(52, at(4, 2))) }, "differs from"},
	{"Convergence", "a replica that stands still", func(h *History) { h.Reads[4].Position = at(4, 1) }, "did not come to the end"},
}

func TestCheckers(t *testing.T) {
	for _, c := range Checkers {
		t.Run(c.Promise, func(t *testing.T) {
			if err := c.Check(sample()); err != nil {
				t.Errorf("the sample is refused:\n%v", err)
			}
			refused := 0
			for _, tc := range cases {
				if tc.checker != c.Promise {
					continue
				}
				h := sample()
				tc.change(h)
				err := c.Check(h)
				switch {
				case tc.want == "" && err != nil:
					t.Errorf("%s: refused:\n%v", tc.name, err)
				case tc.want != "" && err == nil:
					t.Errorf("%s: accepted", tc.name)
				case tc.want != "" && !strings.Contains(err.Error(), tc.want):
					t.Errorf("%s: refused, but not for %q:\n%v", tc.name, tc.want, err)
				}
				if tc.want != "" {
					refused++
				}
			}
			if refused == 0 {
				t.Error("no history that this checker must refuse")
			}
		})
	}
}

// TestUndecidedFails: what porcupine cannot decide in time is no pass.
func TestUndecidedFails(t *testing.T) {
	h := sample()
	for i := range 40 { // all at once, and none of them is what is read
		id := fmt.Sprint("w", i)
		h.Log.Topics[0].Append(Record{Key: "x", Value: id, Offset: int64(10 + i), ID: id})
		h.Writes = append(h.Writes, Write{ID: id, Key: "x", Value: id, Call: stamp(100), Return: stamp(200), Outcome: Acked, Topic: topicA, Served: -1})
	}
	h.Reads = append(h.Reads, read(150, at(4, 2), x("nothing", 0)))
	if err := linearizable(h, time.Millisecond); err == nil || !strings.Contains(err.Error(), "not decided") {
		t.Errorf("undecided: %v", err)
	}
}

func TestCheckNamesEachPromise(t *testing.T) {
	h := sample()
	h.Reads[1] = read(13, at(1, 0), x("1", 0))
	h.Streams[0].Events = h.Streams[0].Events[1:]
	err := Check(h)
	for _, want := range []string{"Fresh is broken", "Linearizable is broken", "Watch is broken"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Check does not say that %s: %v", want, err)
		}
	}
	if err := Check(sample()); err != nil {
		t.Errorf("Check(sample): %v", err)
	}
}
