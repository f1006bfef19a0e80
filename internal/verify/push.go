package verify

import (
	"maps"
	"slices"

	"github.com/kkv-project/kkv/internal/position"
)

// PushEventually checks body v1: for each run that ran until the end, every key that has changed since it became ready
// was taken by each of its receivers, in a POST whose offset is not below the change's; and no receiver was sent a
// lower offset of a partition after a higher one (GUARANTEES rule 17), unless the topic was made anew.
func PushEventually(h *History) error {
	var f faults
	type line struct {
		run      int
		receiver string
	}
	posts := map[line][]*Post{}
	for i := range h.Posts {
		p := &h.Posts[i]
		posts[line{p.Run, p.Receiver}] = append(posts[line{p.Run, p.Receiver}], p)
	}
	for l, all := range posts {
		slices.SortFunc(all, func(a, b *Post) int { return int(a.At.Seq - b.At.Seq) })
		if _, i := h.Log.Topic(h.Runs[l.run].Topic); i == len(h.Log.Topics)-1 { // later incarnations begin at 0 again
			ascending(h, &f, l.run, l.receiver, all)
		}
	}
	for i := range h.Runs {
		run := &h.Runs[i]
		if run.Ended.Seq != 0 || run.Ready.IsZero() || h.End.IsZero() {
			continue
		}
		for _, receiver := range run.Targets {
			delivered(h, &f, i, receiver, posts[line{i, receiver}])
		}
	}
	return f.err()
}

func ascending(h *History, f *faults, run int, receiver string, posts []*Post) {
	sent := map[int32]int64{}
	for _, p := range posts {
		for partition, offset := range p.Offsets {
			if offset < sent[partition] {
				f.add("%s sent %s offset %d of partition %d after %d, at call %d", h.run(run), receiver, offset, partition, sent[partition], p.At.Seq)
			}
			sent[partition] = max(sent[partition], offset)
		}
	}
}

func delivered(h *History, f *faults, run int, receiver string, posts []*Post) {
	took := map[place]int64{} // by key and partition the highest offset taken
	heard := map[string]bool{}
	end, _ := h.Log.Topic(h.End.TopicID())
	for _, p := range posts {
		if !p.OK || p.At.Before(end.Born) {
			continue
		}
		for _, key := range p.Keys {
			heard[key] = true
			for partition, offset := range p.Offsets {
				at := place{key, partition}
				took[at] = max(took[at], offset)
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(end.keys)) {
		if !changed(h, end, key, h.Runs[run].Ready) {
			continue
		}
		last, one := end.Last(key, h.End)
		offset, ok := took[place{key, last.Partition}]
		switch {
		case !one && !heard[key]:
			f.add("%s never told %s of key %q", h.run(run), receiver, key)
		case one && (!ok || offset < last.Offset) && !end.goneBy(last, offset, h.End.Partition(last.Partition).LogStart):
			f.add("%s did not tell %s of key %q at %d:%d (told of offset %d: %v)", h.run(run), receiver, key, last.Partition, last.Offset, offset, ok)
		}
	}
}

// goneBy: at the end the key is gone, and so it was at the offset, or its record has expired since, which is told under an
// offset of that time. What came in between may never have been served, where the state was replaced as a whole.
func (t *Topic) goneBy(last Record, offset, logStart int64) bool {
	records := t.keys[last.Key][last.Partition]
	n := below(records, offset+1)
	return last.Deleted && n > 0 && (records[n-1].Deleted || records[n-1].Offset < logStart && logStart <= offset)
}

// changed: key has another record at the end than it had when the run was ready, or, of another incarnation, has one.
func changed(h *History, end *Topic, key string, ready position.Position) bool {
	now, is := end.At(key, h.End)
	if ready.TopicID() != end.ID {
		return is
	}
	then, was := end.At(key, ready)
	return is != was || is && now.Offset != then.Offset
}
