package cache

import (
	"cmp"
	"slices"
	"time"

	"github.com/kkv-project/kkv/internal/feed"
	"github.com/kkv-project/kkv/internal/store"
)

// replace puts the state that was loaded aside in place of the one served (GUARANTEES rule 12), and tells of the keys
// that vanished with it. It is called under the lock, and lets go of it while it compares the two, key by key: nobody
// else writes to either, for that is the reader's goroutine, which is here.
func (c *Cache) replace() {
	old, st := c.cur, c.next
	ordered := old.ordered
	c.mu.Unlock()
	<-ordered // no longer than a sort takes
	c.mu.Lock()
	was := old.store.Snapshot()
	c.mu.Unlock()
	st.store.FinishOrder(st.store.StartOrder()())
	changes, gone := wentBack(was, old, st)
	c.mu.Lock()
	close(st.ordered)
	if st.topicID == old.topicID {
		st.store.Inherit(old.store, gone)
		st.inherit(old)
	}
	c.serve(st)
	c.feed.Publish(&feed.Batch{Position: st.readMark().Position, Reset: st.reason, Changes: changes})
	c.wake()
}

// wentBack are the keys of old that st shows otherwise, but not by a record that was still to be read: they vanished, as
// their deletes tell, or are back at an older record of another partition. A key's place is the end of its partition,
// for whoever has not read up to there does not know of it; or where its record was, if that has expired.
func wentBack(was store.Snapshot, old, st *state) (changes []feed.Change, gone []store.Gone) {
	ms := time.Now().UnixMilli()
	same := st.topicID == old.topicID
	var now store.Record
	for w := range was.All(nil, nil) {
		is := st.store.Get(w.Key, &now)
		if is && (!same || now.Offset >= old.next(now.Partition) || now.Partition == w.Partition && now.Offset == w.Offset) {
			continue
		}
		g := store.Gone{Record: store.Record{Key: []byte(string(w.Key)), Partition: w.Partition, Offset: max(0, st.next(w.Partition)-1), Epoch: w.Epoch, Timestamp: ms}}
		if same && int(w.Partition) < len(st.parts) && w.Offset < st.parts[w.Partition].LogStart {
			g.Offset, g.Expired = w.Offset, true
		}
		ch := feed.Change{Key: g.Key, Deleted: true, Partition: g.Partition, Offset: g.Offset, Epoch: g.Epoch, Timestamp: ms}
		if is {
			ch = changeOf(&now, false)
		}
		if g.Expired {
			ch.Reason = ReasonExpired
		}
		changes, gone = append(changes, ch), append(gone, g)
	}
	return changes, gone
}

// inherit takes over what old, of the same log, knew of it, as far as it had come: so that a reader who was with old is
// told exactly what changed. Where the log was cut shorter than that, old is not of it.
func (st *state) inherit(old *state) {
	for i := range min(len(st.parts), len(old.parts)) {
		p, was := &st.parts[i], &old.parts[i]
		if p.Next < was.Next || !p.holds(was.Partition) {
			continue
		}
		p.epochs = mergeEpochs(was.epochs, p.epochs)
		eras := slices.Clone(was.eras)
		for e := range eras {
			eras[e].until = min(eras[e].until, was.Next)
		}
		if n := len(eras); n > erasMost {
			eras = eras[n-erasMost:]
		}
		p.eras = append(eras, p.eras...)
	}
}

// erasMost bounds the loads of which something is known.
const erasMost = 8

// mergeEpochs is the lineage that two readings of one log have seen, each of which may have missed an epoch's first
// records.
func mergeEpochs(a, b []epochStart) []epochStart {
	all := append(slices.Clone(a), b...)
	slices.SortFunc(all, func(a, b epochStart) int {
		return cmp.Or(cmp.Compare(a.epoch, b.epoch), cmp.Compare(a.start, b.start))
	})
	return slices.CompactFunc(all, func(a, b epochStart) bool { return a.epoch == b.epoch })
}
