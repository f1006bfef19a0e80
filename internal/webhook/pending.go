package webhook

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/kkv-project/kkv/internal/feed"
	"github.com/kkv-project/kkv/internal/position"
)

// entry is a key of which a target has to hear. It knows the key's newest change, not its value: what a slow target
// costs is bounded by the number and length of keys.
type entry struct {
	key       string
	partition int32
	epoch     int32
	deleted   bool
	inFlight  bool // in the POST under way
	state     bool // of a whole state, and not told since that was merged
	offset    int64
	timestamp int64
	reason    string    // of the deletion, where no tombstone is
	seq       uint64    // number of its newest change
	need      uint64    // number of its newest change of which the target has to hear; below seq if equal ones followed
	since     time.Time // when it became pending
	links     [2]struct{ prev, next *entry }
}

// Which links a list uses.
const (
	byChange = iota // within a lane, by seq
	byAge           // all entries, by since
)

// list is a doubly linked list through entries, so that a pending key costs one allocation beside its name.
type list struct {
	which       int
	front, back *entry
}

func (l *list) pushBack(e *entry) {
	e.links[l.which].prev, e.links[l.which].next = l.back, nil
	if l.back == nil {
		l.front = e
	} else {
		l.back.links[l.which].next = e
	}
	l.back = e
}

func (l *list) remove(e *entry) {
	k := &e.links[l.which]
	if k.prev == nil {
		l.front = k.next
	} else {
		k.prev.links[l.which].next = k.next
	}
	if k.next == nil {
		l.back = k.prev
	} else {
		k.next.links[l.which].prev = k.prev
	}
	k.prev, k.next = nil, nil
}

// lane holds what is pending of one partition, in order of change.
type lane struct {
	puts, deletes list
	gen           uint64 // grows with every change: a POST made at an older gen is out of date
	sent          int64  // highest offset that the target was sent for this partition; -1: none
}

func (l *lane) of(e *entry) *list {
	if e.deleted {
		return &l.deletes
	}
	return &l.puts
}

// pending is what one target has to hear, one entry a key. It is not safe for concurrent use. What of it goes into
// the next POST is a form's to say (v1, v2).
type pending struct {
	keys  map[string]*entry
	lanes map[int32]*lane
	age   list
	seq   uint64
	trail trail
	// A state that replaced what the target knew is told in any number of POSTs.
	states uint64 // how many there were
	reset  string // why this one came, while the target has not heard that it did; else ""
	untold int    // keys of it that were not told yet
	whole  bool   // the target knows that it has all of it; true where there was none
	round  round  // v1's
}

func newPending() *pending {
	return &pending{keys: map[string]*entry{}, lanes: map[int32]*lane{}, age: list{which: byAge}, whole: true}
}

func (p *pending) lane(partition int32) *lane {
	l := p.lanes[partition]
	if l == nil {
		l = &lane{sent: -1}
		p.lanes[partition] = l
	}
	return l
}

// add merges c. If quiet, c alone is no reason to tell the key, but a key that is pending stays so, at c's
// offset. It reports whether c took the place of a change that the target will now not hear by itself.
func (p *pending) add(c *feed.Change, quiet bool, now time.Time) (merged bool) {
	e := p.keys[string(c.Key)]
	switch {
	case e == nil && quiet:
		return false
	case e == nil:
		e = &entry{key: string(c.Key), since: now}
		p.keys[e.key] = e
		p.age.pushBack(e)
	default:
		merged = !quiet && !e.inFlight
		p.unlink(e)
	}
	p.seq++
	e.partition, e.epoch, e.offset, e.timestamp = c.Partition, c.Epoch, c.Offset, c.Timestamp
	e.deleted, e.reason, e.seq = c.Deleted, c.Reason, p.seq
	if !quiet {
		e.need = p.seq
	}
	l := p.lane(e.partition)
	l.of(e).pushBack(e)
	l.gen++
	return merged
}

// unlink takes e out of its lane.
func (p *pending) unlink(e *entry) {
	l := p.lane(e.partition)
	l.of(e).remove(e)
	l.gen++
}

// replace merges a whole state, for the reason given, in which these keys live and no others: a pending key that is
// not among them is gone, and is told as deleted. at is the state's position; newTopic says that its offsets are
// those of another incarnation of the topic, so that what was sent for the old one binds no longer.
func (p *pending) replace(live []feed.Change, at position.Position, reason string, newTopic bool, now time.Time) {
	old := p.keys
	p.keys = make(map[string]*entry, len(live))
	p.age = list{which: byAge}
	p.round.active = false
	for _, l := range p.lanes {
		l.puts, l.deletes = list{}, list{}
		l.gen++
		if newTopic {
			l.sent = -1
		}
	}
	p.trail.clear()
	p.addAll(live, now)
	p.states++
	p.reset, p.untold, p.whole = reason, len(p.keys), false
	for _, e := range p.keys {
		e.state = true
	}
	var gone []*entry
	for key, e := range old {
		if p.keys[key] == nil {
			gone = append(gone, e)
		}
	}
	slices.SortFunc(gone, func(a, b *entry) int { return cmp.Compare(a.seq, b.seq) })
	for _, e := range gone {
		// Its record is not in this state, but its absence is: it is true up to what this state has read.
		c := feed.Change{Key: []byte(e.key), Deleted: true, Partition: e.partition,
			Offset: max(0, at.Partition(e.partition).Next-1)}
		p.add(&c, false, now)
	}
	p.read(at)
}

// read says that everything up to at is pending, told, or was never to be told.
func (p *pending) read(at position.Position) { p.trail.add(p.seq, at, p.oldest(false)) }

// cursor is a position from which a target that heard all POSTs so far can resume: whatever it was not told lies
// after it. Zero: it needs the whole state. ok is false while that is not known. With told, the POST under way
// counts as heard.
func (p *pending) cursor(told bool) (at position.Position, ok bool) {
	return p.trail.before(p.oldest(told))
}

// oldest is the lowest seq that is pending, but for the POST under way if that counts as told.
func (p *pending) oldest(told bool) uint64 {
	low := uint64(math.MaxUint64)
	for _, l := range p.lanes {
		for _, e := range []*entry{l.puts.front, l.deletes.front} {
			for told && e != nil && e.inFlight {
				e = e.links[byChange].next
			}
			if e != nil {
				low = min(low, e.seq)
			}
		}
	}
	return low
}

// addAll merges changes that come in no order.
func (p *pending) addAll(cs []feed.Change, now time.Time) (merged uint64) {
	slices.SortFunc(cs, func(a, b feed.Change) int {
		return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	})
	for i := range cs {
		if p.add(&cs[i], false, now) {
			merged++
		}
	}
	return merged
}

// told ends a POST that succeeded. A key that changed meanwhile stays.
func (p *pending) told(n *post, now time.Time) {
	if n.states == p.states {
		if n.reset != "" {
			p.reset = ""
		}
		p.whole = p.whole || n.synced
	}
	for _, it := range n.items {
		e := it.e
		e.inFlight = false
		if p.keys[e.key] != e { // the state was replaced meanwhile
			continue
		}
		if e.state {
			e.state = false
			p.untold--
		}
		if it.told() {
			p.unlink(e)
			p.age.remove(e)
			delete(p.keys, e.key)
			continue
		}
		// When it changed was not kept: its age is short by at most the time that the POST took.
		e.since = now
		p.age.remove(e)
		p.age.pushBack(e)
	}
}

// renew makes a failed POST the one under way again.
func (p *pending) renew(n *post) {
	for _, it := range n.items {
		it.e.inFlight = true
	}
}

// failed ends a POST that did not succeed; the next one starts a round that merges what came since.
func (p *pending) failed(n *post) (merged uint64) {
	p.round.active = false
	for _, it := range n.items {
		it.e.inFlight = false
		if it.e.need > it.seq {
			merged++
		}
	}
	return merged
}
