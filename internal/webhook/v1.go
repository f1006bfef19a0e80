package webhook

import (
	"strconv"
	"unicode/utf8"

	"github.com/kkv-project/kkv/internal/feed"
	"github.com/kkv-project/kkv/internal/wire"
)

const maxBodyV1 = 64 << 10 // bytes; see the package comment

// v1 is the original's body. It is emptied in rounds: of one partition, that of the key that has waited longest, first
// the puts and then the deletes that were there when the round began. The bound keeps a stream of puts from holding
// deletes back for ever, and one partition from holding back the others.
type v1 struct{ topic string }

// round is what v1 is telling.
type round struct {
	active    bool
	partition int32
	until     uint64 // seq of the last change that belongs to it
}

func (v1) name() string { return "v1" }

func (v1) carries(key []byte) bool { return utf8.Valid(key) }

// quiet: an equal value is no reason for a push (rule 17: but never where expiry touched the key).
func (v1) quiet(c *feed.Change) bool { return c.Equal && c.Reason == "" }

func (v v1) next(p *pending, maxKeys int) *post {
	for {
		if !p.round.active {
			if p.age.front == nil {
				return nil
			}
			p.round = round{true, p.age.front.partition, p.seq}
		}
		l := p.lanes[p.round.partition]
		for _, first := range []*entry{l.puts.front, l.deletes.front} {
			if first != nil && first.seq <= p.round.until {
				return v.take(p, l, first, maxKeys)
			}
		}
		p.round.active = false
	}
}

// take makes a POST of first and those behind it in its list, as far as the round and the bounds go.
func (v v1) take(p *pending, l *lane, first *entry, maxKeys int) *post {
	n := newPost(p)
	n.partition, n.gen, n.offset = first.partition, l.gen, l.sent
	var updates []byte
	for e := first; e != nil && e.seq <= p.round.until && len(n.items) < maxKeys; e = e.links[byChange].next {
		size := len(updates)
		if size > 0 {
			updates = append(updates, ',')
		}
		updates = append(wire.AppendString(updates, e.key), `:{}`...)
		if size > 0 && len(updates) > maxBodyV1 {
			updates = updates[:size]
			break
		}
		n.add(item{e: e, seq: e.seq, offset: -1})
		n.offset = max(n.offset, e.offset)
	}
	l.sent = n.offset
	n.offsets = `{"` + strconv.Itoa(int(n.partition)) + `":` + strconv.FormatInt(n.offset, 10) + `}`
	b := make([]byte, 0, len(updates)+len(v.topic)+len(n.offsets)+64)
	b = append(b, `{"v":1,"topic":`...)
	b = wire.AppendString(b, v.topic)
	b = append(b, `,"offsets":`...)
	b = append(b, n.offsets...)
	b = append(b, `,"updates":{`...)
	b = append(b, updates...)
	n.body = append(b, `}}`...)
	return n
}

// current: nothing may change the offset of a body that is sent again, so it is good while its partition stands still.
func (v1) current(p *pending, n *post) bool { return p.lane(n.partition).gen == n.gen }
