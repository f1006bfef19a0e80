package verify

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kkv-project/kkv/internal/position"
	"github.com/kkv-project/kkv/internal/wire"
)

// Watch checks what GUARANTEES rules 11, 15 and 16 say of a stream: whoever applies its lines has, at every position
// that it names, exactly the log's state there (reliable, with deletes); no line comes twice, and per key and partition
// they ascend (unique, ordered); with since, the lines up to synced lead from the one state to the other, and put only
// keys that a record has touched (resumable). One that stood until the end has heard of everything.
func Watch(h *History) error {
	var f faults
	for i := range h.Streams {
		w := &watcher{h: h, s: &h.Streams[i], f: &f, n: i}
		w.check()
	}
	return f.err()
}

// watcher applies one stream.
type watcher struct {
	h *History
	s *Stream
	f *faults
	n int

	view   map[string]Item
	state  map[string]Item   // what was sent since the start or the last reset; nil once synced
	diff   map[string]*Event // what was sent since the start of a stream that resumes; nil once synced
	at     position.Position
	newest map[place]int64 // the highest offset sent
	closed bool
}

type place struct {
	key       string
	partition int32
}

func (w *watcher) bad(e int, format string, args ...any) {
	w.f.add("watch %d at %s, since %q, line %d: %s", w.n, w.h.run(w.s.Run), w.s.Since, e, fmt.Sprintf(format, args...))
}

func (w *watcher) check() {
	w.view, w.state, w.newest = map[string]Item{}, map[string]Item{}, map[place]int64{}
	resumes := !w.s.Since.IsZero() && len(w.s.Events) > 0 && w.s.Events[0].Type != wire.Reset
	if resumes {
		t, _ := w.h.Log.Topic(w.s.Since.TopicID())
		if t == nil {
			w.bad(0, "resumes from a topic that never was")
			return
		}
		w.state, w.diff, w.at = nil, map[string]*Event{}, w.s.Since
		for _, r := range t.State(w.s.Prefix, w.s.Since) {
			w.view[r.Key] = item(r)
		}
	}
	for i := range w.s.Events {
		w.event(i, &w.s.Events[i])
	}
	if w.s.Final && (w.state != nil || w.diff != nil || !covers(w.h, w.at, w.h.End)) {
		w.bad(len(w.s.Events), "stood until the end, and came only to %s", w.at)
	}
}

func item(r Record) Item {
	return Item{Key: r.Key, Value: r.Value, Partition: r.Partition, Offset: r.Offset}
}

func (w *watcher) event(i int, e *Event) {
	if w.closed {
		w.bad(i, "%s after closing", e.Type)
	}
	switch e.Type {
	case wire.Put, wire.Delete:
		w.change(i, e)
	case wire.Reset:
		if len(w.state) > 0 {
			w.bad(i, "reset before synced")
		}
		w.state, w.diff, w.newest = map[string]Item{}, nil, map[place]int64{}
	case wire.Synced:
		w.synced(i, e)
	case wire.Progress:
		if w.state != nil || w.diff != nil {
			w.bad(i, "progress before synced")
		}
		w.checkpoint(i, e.Position, false)
	case wire.Closing:
		w.closed = true
	default:
		w.bad(i, "unknown type %q", e.Type)
	}
}

func (w *watcher) change(i int, e *Event) {
	if !strings.HasPrefix(e.Key, w.s.Prefix) {
		w.bad(i, "key %q does not begin with %q", e.Key, w.s.Prefix)
	}
	view := w.view
	switch {
	case w.state != nil:
		if _, twice := w.state[e.Key]; twice || e.Type == wire.Delete {
			w.bad(i, "%s of key %q within the state", e.Type, e.Key)
		}
		view = w.state
	case w.diff != nil:
		if w.diff[e.Key] != nil {
			w.bad(i, "key %q twice before synced", e.Key)
		}
		w.diff[e.Key] = e
	case e.Reason == "" && !w.h.Log.Conflict(e.Key): // a record that shows again behind another's tombstone is older
		at := place{e.Key, e.Partition}
		if last, ok := w.newest[at]; ok && e.Offset <= last || e.Offset < w.at.Partition(e.Partition).Next {
			w.bad(i, "%s of key %q at %d:%d, after offset %d and position %s", e.Type, e.Key, e.Partition, e.Offset, last, w.at)
		}
		w.newest[at] = e.Offset
	}
	if (w.state != nil || w.diff != nil) && !e.Position.IsZero() {
		w.bad(i, "a position before synced")
	}
	if e.Type == wire.Put {
		view[e.Key] = Item{Key: e.Key, Value: e.Value, Partition: e.Partition, Offset: e.Offset}
	} else {
		delete(view, e.Key)
	}
	if w.state == nil && w.diff == nil && !e.Position.IsZero() {
		w.checkpoint(i, e.Position, false)
	}
}

func (w *watcher) synced(i int, e *Event) {
	switch {
	case w.state != nil:
		w.view = w.state
	case w.diff != nil:
		t, _ := w.h.Log.Topic(e.Position.TopicID())
		for key, sent := range w.diff {
			// A replica that loaded its log anew knows of a key that it is gone, or back at another partition's record, but not since when.
			if t != nil && !t.Touched(key, w.s.Since, e.Position) && sent.Type != wire.Delete && !t.conflict(key) {
				w.bad(i, "%s %s of key %q at %d:%d, and no record since touched it; synced at %s", sent.Type, sent.Reason, key, sent.Partition, sent.Offset, e.Position)
			}
		}
	default:
		w.bad(i, "synced a second time")
	}
	if !e.Position.Covers(w.s.Since) && e.Position.TopicID() == w.s.Since.TopicID() {
		w.bad(i, "synced at %s, below since", e.Position)
	}
	anew := w.state != nil
	w.state, w.diff = nil, nil
	w.checkpoint(i, e.Position, anew)
}

// checkpoint compares the view with the log's state at p. anew: the view begins there.
func (w *watcher) checkpoint(i int, p position.Position, anew bool) {
	t, _ := w.h.Log.Topic(p.TopicID())
	switch {
	case t == nil:
		w.bad(i, "position %q of a topic that never was", p)
		return
	case !anew && !p.Covers(w.at), anew && !covers(w.h, p, w.at):
		w.bad(i, "position %s goes back from %s", p, w.at)
	}
	w.at = p
	want := t.State(w.s.Prefix, p)
	got := make([]Item, 0, len(w.view))
	for _, key := range slices.Sorted(maps.Keys(w.view)) {
		got = append(got, w.view[key])
	}
	if why := unlike(got, want); why != "" {
		w.bad(i, "%s %s: what was sent differs from the log's state at %s: %s", w.s.Events[i].Type, w.s.Events[i].Reason, p, why)
		w.view = map[string]Item{}
		for _, r := range want {
			w.view[r.Key] = item(r)
		}
	}
}
