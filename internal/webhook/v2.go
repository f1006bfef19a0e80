package webhook

import (
	"strconv"

	"github.com/kkv-project/kkv/internal/feed"
	"github.com/kkv-project/kkv/internal/wire"
)

const maxBodyV2 = 1 << 20 // bytes of changes; a single larger one goes alone

// v2 is a body with values. It takes what has waited longest, of any partition, and reads the value from the cache as it
// is then: so nothing but names is kept for a slow target, and what it is told is never older than what it was told before.
type v2 struct {
	topic  string
	source Source
}

func (v2) name() string            { return "v2" }
func (v2) carries([]byte) bool     { return true }
func (v2) quiet(*feed.Change) bool { return false }

func (v v2) next(p *pending, maxKeys int) *post {
	n := newPost(p)
	n.reset = p.reset
	var keys [][]byte
	for e := p.age.front; e != nil && len(keys) < maxKeys; e = e.links[byAge].next {
		keys = append(keys, []byte(e.key))
	}
	newest, at := v.source.Newest(keys)
	if read := p.trail.last(); !at.Covers(read) {
		return nil // the cache's state was replaced, of which the feed tells next
	}
	changes, state := v.changes(p, n, newest)
	n.synced = !p.whole && state == p.untold
	if len(n.items) == 0 && n.reset == "" && !n.synced {
		return nil
	}
	b := make([]byte, 0, len(changes)+512)
	b = append(b, `{"v":2,"id":`...)
	b = wire.AppendString(b, n.id)
	b = append(b, `,"topic":`...)
	b = wire.AppendString(b, v.topic)
	if n.reset != "" {
		b = append(b, `,"reset":`...)
		b = wire.AppendString(b, n.reset)
	}
	b = append(b, `,"changes":[`...)
	b = append(b, changes...)
	b = append(b, ']')
	if n.synced {
		b = append(b, `,"synced":true`...)
	}
	if pos, _ := p.cursor(true); !pos.IsZero() {
		b = append(b, `,"position":`...)
		b = wire.AppendString(b, pos.String())
	}
	n.body = append(b, '}')
	return n
}

// changes adds what newest says of the keys that have waited longest to n, up to the bound of a body. state counts those
// that belong to a whole state.
func (v2) changes(p *pending, n *post, newest []feed.Change) (changes []byte, state int) {
	e := p.age.front
	for i := range newest {
		if it, ok := tells(e, &newest[i]); ok {
			size := len(changes)
			if size > 0 {
				changes = append(changes, ',')
			}
			changes = appendChange(changes, &newest[i])
			if size > 0 && len(changes) > maxBodyV2 {
				return changes[:size], state
			}
			n.add(it)
			if e.state {
				state++
			}
		}
		e = e.links[byAge].next
	}
	return changes, state
}

// tells makes c, which is what the cache has of e's key now, what the target is told. It reports whether there is
// anything to tell yet: not if the key was deleted since, which is still to be read in the feed.
func tells(e *entry, c *feed.Change) (item, bool) {
	switch {
	case c.Deleted && e.deleted:
		c.Partition, c.Epoch, c.Offset, c.Timestamp, c.Reason = e.partition, e.epoch, e.offset, e.timestamp, e.reason
	case c.Deleted, c.Partition == e.partition && c.Offset < e.offset:
		return item{}, false
	}
	return item{e: e, seq: e.seq, partition: c.Partition, offset: c.Offset}, true
}

// appendChange appends c as a watch has it, and the leader epoch of its record.
func appendChange(dst []byte, c *feed.Change) []byte {
	w := wire.Change{Type: wire.Put, Key: c.Key, Value: c.Value, Partition: c.Partition, Offset: c.Offset,
		Timestamp: c.Timestamp, Headers: c.Headers.List(), Reason: c.Reason}
	if c.Deleted {
		w.Type = wire.Delete
	}
	dst = wire.AppendNDJSON(dst, &w)
	dst = append(dst[:len(dst)-len("}\n")], `,"epoch":`...)
	dst = strconv.AppendInt(dst, int64(c.Epoch), 10)
	return append(dst, '}')
}

// current: nothing newer is known of the keys in it.
func (v2) current(p *pending, n *post) bool {
	for _, it := range n.items {
		if p.keys[it.e.key] != it.e || it.e.seq != it.seq {
			return false
		}
	}
	return n.states == p.states
}
