package demo

import (
	"strconv"
	"sync"
	"time"

	"github.com/kkv-project/kkv"
)

// record is where a write lies in the topic.
type record struct {
	partition int32
	offset    int64
}

// acks brings together when a write was acknowledged and when each replica showed it, whichever comes first. It is safe
// for concurrent use.
type acks struct {
	changed func(replica int, key string) // a delay became known after the key was shown

	mu    sync.Mutex
	lives map[record]*life
	order []record // a ring of the keys of lives, the oldest at next once it is full
	next  int
}

// life is what is known of one write.
type life struct {
	acked time.Time
	key   string
	shown map[*replica]time.Time
}

// livesMost bounds the writes that are remembered: 16 s of the load.
const livesMost = 16 << 10

func newAcks(changed func(replica int, key string)) *acks {
	return &acks{changed: changed, lives: map[record]*life{}}
}

func (a *acks) life(r record) *life {
	l := a.lives[r]
	if l != nil {
		return l
	}
	l = &life{shown: map[*replica]time.Time{}}
	a.lives[r] = l
	if len(a.order) < livesMost {
		a.order = append(a.order, r)
		return l
	}
	delete(a.lives, a.order[a.next])
	a.order[a.next] = r
	a.next = (a.next + 1) % livesMost
	return l
}

// acked: Kafka has acknowledged the write at that time.
func (a *acks) acked(r record, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.life(r)
	l.acked = at
	for by, shown := range l.shown {
		by.delayed.set(l.key, r, shown.Sub(at))
		a.changed(by.n, l.key)
	}
}

// shown: the replica's mirror shows the write now.
func (a *acks) shown(by *replica, u kkv.Update) {
	now := time.Now()
	if u.Deleted {
		by.delayed.forget(u.Key)
		return
	}
	r := record{u.Partition, u.Offset}
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.life(r)
	l.key = u.Key
	l.shown[by] = now
	if !l.acked.IsZero() {
		by.delayed.set(u.Key, r, now.Sub(l.acked))
	}
}

// delays are how long the newest write of each key took from its acknowledgement until one replica showed it. The zero
// value is empty; it is safe for concurrent use.
type delays struct {
	mu   sync.Mutex
	keys map[string]delay
}

type delay struct {
	record
	took time.Duration
}

func (d *delays) set(key string, r record, took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.keys == nil {
		d.keys = map[string]delay{}
	}
	d.keys[key] = delay{r, max(took, 0)} // a replica may show it before the producer hears that it is written
}

func (d *delays) forget(key string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.keys, key)
}

// of is the delay of an entry as people read it, "" where it is not known.
func (d *delays) of(e kkv.Entry) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	known, ok := d.keys[e.Key]
	if !ok || known.record != (record{e.Partition, e.Offset}) {
		return ""
	}
	return milliseconds(known.took)
}

// milliseconds is a duration to the millisecond, below 10 ms to a tenth.
func milliseconds(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	if ms < 10 {
		return strconv.FormatFloat(ms, 'f', 1, 64) + " ms"
	}
	n := strconv.FormatInt(int64(ms+.5), 10)
	if len(n) > 3 {
		n = n[:len(n)-3] + "," + n[len(n)-3:]
	}
	return n + " ms"
}
