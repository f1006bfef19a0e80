package webhook

import (
	"cmp"
	"slices"
	"time"

	"github.com/kkv-project/kkv/internal/feed"
	"github.com/kkv-project/kkv/internal/position"
)

// entry is a key of which a target has to hear. It knows the key's newest change, not its value.
type entry struct {
	key       string
	partition int32
	deleted   bool
	inFlight  bool // in the POST under way
	offset    int64
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

// pending is what one target has to hear, one entry a key. It is not safe for concurrent use.
//
// It is emptied in rounds: of one partition, that of the key that has waited longest, first the puts and then the
// deletes that were there when the round began. The bound keeps a stream of puts from holding deletes back for
// ever, and one partition from holding back the others.
type pending struct {
	keys  map[string]*entry
	lanes map[int32]*lane
	age   list
	seq   uint64

	round struct {
		active    bool
		partition int32
		until     uint64 // seq of the last change that belongs to it
	}
}

func newPending() *pending {
	return &pending{keys: map[string]*entry{}, lanes: map[int32]*lane{}, age: list{which: byAge}}
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
	e.partition, e.offset, e.deleted, e.seq = c.Partition, c.Offset, c.Deleted, p.seq
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

// replace merges a whole state in which these keys live and no others: a pending key that is not among them is
// gone, and is told as deleted. at is the state's position; newTopic says that its offsets are those of another
// incarnation of the topic, so that what was sent for the old one binds no longer.
func (p *pending) replace(live []feed.Change, at position.Position, newTopic bool, now time.Time) {
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
	p.addAll(live, now)
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

// next makes the next POST, of up to maxKeys keys; nil with nothing to tell. The caller must end it, by told or
// failed, before it calls next again.
func (p *pending) next(topic string, maxKeys int) *post {
	for {
		if !p.round.active {
			if p.age.front == nil {
				return nil
			}
			p.round.active, p.round.partition, p.round.until = true, p.age.front.partition, p.seq
		}
		l := p.lanes[p.round.partition]
		for _, first := range []*entry{l.puts.front, l.deletes.front} {
			if first != nil && first.seq <= p.round.until {
				return p.take(topic, l, first, maxKeys)
			}
		}
		p.round.active = false
	}
}

// take makes a POST of first and those behind it in its list, as far as the round and the bounds go.
func (p *pending) take(topic string, l *lane, first *entry, maxKeys int) *post {
	n := &post{partition: first.partition, gen: l.gen, offset: l.sent}
	var updates []byte
	for e := first; e != nil && e.seq <= p.round.until && len(n.items) < maxKeys; e = e.links[byChange].next {
		size := len(updates)
		if size > 0 {
			updates = append(updates, ',')
		}
		updates = append(appendString(updates, e.key), `:{}`...)
		if size > 0 && len(updates) > maxBody {
			updates = updates[:size]
			break
		}
		n.items = append(n.items, item{e, e.seq})
		n.offset = max(n.offset, e.offset)
		e.inFlight = true
	}
	l.sent = n.offset
	n.encode(topic, updates)
	return n
}

// renew makes a failed POST the one under way again. It reports whether it may: not if its partition changed.
func (p *pending) renew(n *post) bool {
	if p.lane(n.partition).gen != n.gen {
		return false
	}
	for _, it := range n.items {
		it.e.inFlight = true
	}
	return true
}

// told ends a POST that succeeded. A key that changed meanwhile stays.
func (p *pending) told(n *post, now time.Time) {
	for _, it := range n.items {
		e := it.e
		e.inFlight = false
		switch {
		case p.keys[e.key] != e: // the state was replaced meanwhile
		case e.need <= it.seq:
			p.unlink(e)
			p.age.remove(e)
			delete(p.keys, e.key)
		default:
			// When it changed was not kept: its age is short by at most the time that the POST took.
			e.since = now
			p.age.remove(e)
			p.age.pushBack(e)
		}
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
