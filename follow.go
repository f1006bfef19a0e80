package kkv

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kkv-project/kkv/internal/wire"
)

const (
	// clockSkew is how far the clocks of this process and of the servers may be apart.
	clockSkew = 5 * time.Second
	// patience is how long a replica that is older than the mirror has to catch up before another one is tried.
	patience = 30 * time.Second
)

// follower is the one goroutine that writes a Mirror's state.
//
// Changes are taken in until a line names a position, which ends their batch; then they become visible in one step,
// and only then callbacks hear of them (GUARANTEES rule 2). A stream begins in one of two ways: with the whole state,
// at first and after a Reset, or, after a reconnection, with what changed since the mirror's position (rule 15). Either
// is whole at its Synced, and replaces or changes what the mirror shows in one step.
type follower struct {
	m     *Mirror
	batch []Update // since the last position
	// resumed: what comes up to the Synced is the changes since the mirror's position.
	resumed bool
	// next is the state that is being sent anew, by key; nil while the stream is live or resumed.
	next map[string]*Entry
	// whole: next has had its Synced, and lacks only a position that is not older than the mirror's.
	whole bool
	asked bool      // the topic or its records are others now: next replaces whatever the mirror shows
	anew  bool      // the servers refused the mirror's position: ask for the whole state
	since time.Time // when next became whole
	moved time.Time // when the mirror's position last moved
}

// run follows the topic until the mirror's context ends, or the servers refuse to let it.
func (m *Mirror) run() {
	f := &follower{m: m}
	w := watch{c: m.c, query: (&WatchOptions{Prefix: m.prefix}).query(), change: f.change, fatal: f.fatal}
	w.since = func() string {
		if f.anew {
			return ""
		}
		return m.Position().String()
	}
	w.begin = func(since string) error {
		m.counts.connects.Add(1)
		if f.restart(false); since != "" {
			f.next, f.resumed = nil, true
		}
		return nil
	}
	w.lost = func(err error) {
		m.live.Store(false)
		m.counts.failures.Add(1)
		m.mu.Lock()
		m.lastErr = err
		m.mu.Unlock()
	}
	err := w.run(m.ctx)
	m.live.Store(false)
	m.cancel(err) // has no effect if it is the context's own end
}

// fatal: once there is a state to show, nothing but Close ends a mirror: tokens and topics come back.
func (f *follower) fatal(err error) bool {
	var se *StatusError
	if errors.As(err, &se) && refusesSince(se) {
		f.anew = true
	}
	return f.m.state.Load() == nil
}

// restart expects the state to be sent anew.
func (f *follower) restart(asked bool) {
	f.batch, f.resumed, f.next, f.whole, f.asked = nil, false, make(map[string]*Entry), false, asked
	f.m.live.Store(false)
}

// change takes in one line of the watch.
func (f *follower) change(l *wire.Change, p Position) error {
	f.m.counts.heard.Store(time.Now().UnixNano())
	switch l.Type {
	case wire.Put:
		e := entryOf(l)
		if e.Value == nil {
			return fmt.Errorf("the watch put %q without a value", e.Key)
		}
		if f.next != nil {
			f.next[e.Key] = &e
		} else {
			f.batch = append(f.batch, Update{Entry: e})
		}
	case wire.Delete:
		if f.next != nil {
			delete(f.next, string(l.Key))
		} else {
			f.batch = append(f.batch, Update{Entry: entryOf(l), Deleted: true})
		}
	case wire.Reset:
		// A replica that does not know every delete since the mirror's position may be behind it as well.
		f.restart(l.Reason != "beyond-horizon" && l.Reason != "partial-position")
		return nil
	case wire.Synced:
		if f.next != nil && !f.whole {
			f.whole, f.since = true, time.Now()
		}
	}
	switch {
	case p.IsZero():
		if l.Type == wire.Synced {
			return errors.New("the watch sent synced without a position")
		}
	case f.resumed && !p.Covers(f.m.Position()): // rule 15: a replica waits until it dominates what it resumes from
		return fmt.Errorf("the server resumed at %q, %w, %q", p, ErrBehind, f.m.Position())
	case f.next == nil:
		f.commit(p)
		if l.Type == wire.Synced {
			f.resumed = false
			f.m.live.Store(true)
		}
	case f.whole:
		return f.takeOver(p)
	}
	return nil
}

// commit makes the batch visible at p, and tells of what it changed: not of deletes of keys that the mirror does not
// hold, nor, after a resume, of records whose like it shows already.
func (f *follower) commit(p Position) {
	old := f.m.state.Load()
	s := *old
	if p.Covers(s.pos) { // else a server went back on one stream, and the mirror does not
		s.pos = p
	} else {
		s.pos = s.pos.Merge(p)
	}
	told := f.batch[:0]
	for _, u := range f.batch {
		var was *Entry
		var news bool
		if u.Deleted {
			s.root, was = s.root.without(u.Key)
			news = was != nil
		} else {
			e := u.Entry
			s.root, was = s.root.with(&e)
			s.keys++
			s.bytes += e.size()
			news = !f.resumed || was == nil || !same(was, &e)
		}
		if was != nil {
			s.keys--
			s.bytes -= was.size()
		}
		if news {
			told = append(told, u)
		}
	}
	f.publish(&s, told)
	f.batch = nil
}

func (e *Entry) size() int64 { return int64(len(e.Key) + len(e.Value)) }

// takeOver replaces the mirror's state by the one that was sent anew, and stands at p, unless that would be going
// back.
func (f *follower) takeOver(p Position) error {
	old := f.m.state.Load()
	if old != nil && !f.asked && !f.newer(p, old.pos) {
		if time.Since(f.since) > patience {
			return fmt.Errorf("the server is at %q, %w, %q, for %v", p, ErrBehind, old.pos, patience)
		}
		return nil
	}
	s := &state{root: build(f.next), pos: p, keys: len(f.next)}
	for _, e := range f.next {
		s.bytes += e.size()
	}
	f.m.live.Store(true) // before ready, so that whoever waited for it finds a mirror that is live
	if old == nil {
		f.publish(s, nil)
		close(f.m.ready)
	} else {
		f.m.counts.resets.Add(1)
		f.publish(s, differences(old.root, f.next))
	}
	f.next, f.anew = nil, false
	return nil
}

// newer reports whether a replica at p may take over from one at q. p does if it has seen everything that q has; or
// if it was proved current (its as-of time) after q came here and yet lacks something: then the topic was made
// again or lost records, and p is the truth.
func (f *follower) newer(p, q Position) bool {
	if p.Covers(q) {
		return true
	}
	return p.p.AsOf().After(f.moved.Add(clockSkew))
}

// publish makes s visible, and then tells of it.
func (f *follower) publish(s *state, us []Update) {
	m := f.m
	if old := m.state.Load(); old == nil || !old.pos.Covers(s.pos) {
		f.moved = time.Now()
	}
	m.mu.Lock()
	m.state.Store(s)
	if m.moved != nil {
		close(m.moved)
		m.moved = nil
	}
	m.mu.Unlock()
	m.counts.updates.Add(uint64(len(us)))
	m.notify.post(us)
}

// differences are the updates that lead from old to next: keys that vanished, and values that are not the same.
func differences(old *node, next map[string]*Entry) []Update {
	var us []Update
	old.ascend("", func(e *Entry) bool {
		if next[e.Key] == nil {
			us = append(us, Update{Entry: Entry{Key: e.Key, Partition: e.Partition, Offset: -1}, Deleted: true})
		}
		return true
	})
	n := len(us)
	for key, e := range next {
		if was := old.get(key); was == nil || !same(was, e) {
			us = append(us, Update{Entry: *e})
		}
	}
	slices.SortFunc(us[n:], func(a, b Update) int { return strings.Compare(a.Key, b.Key) })
	return us
}

func same(a, b *Entry) bool {
	return bytes.Equal(a.Value, b.Value) && slices.EqualFunc(a.Headers, b.Headers, func(a, b Header) bool {
		return a.Key == b.Key && bytes.Equal(a.Value, b.Value)
	})
}
