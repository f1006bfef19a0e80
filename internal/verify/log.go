package verify

import (
	"maps"
	"slices"
	"strings"

	"github.com/kkv-project/kkv/internal/position"
)

// Record is one visible record of the log: plain, or of a committed transaction.
type Record struct {
	Key, Value string
	Deleted    bool // a tombstone
	Partition  int32
	Offset     int64
	Timestamp  int64 // milliseconds since the Unix epoch
	ID         string
}

// Log is the truth: what Kafka held, also of what it no longer holds.
type Log struct {
	Topics []*Topic // the incarnations in the order of their creation
}

// Topic is one incarnation.
type Topic struct {
	ID   [16]byte
	Born Stamp // before it was created
	Made Stamp // after that
	Gone Stamp // before it was deleted; zero: never
	keys map[string][][]Record
	ids  map[string]map[int32]int // by Record.ID and partition, how often
}

// Add opens an incarnation, the newest.
func (l *Log) Add(id [16]byte, born, made Stamp) *Topic {
	t := &Topic{ID: id, Born: born, Made: made, keys: map[string][][]Record{}, ids: map[string]map[int32]int{}}
	l.Topics = append(l.Topics, t)
	return t
}

// Topic is the incarnation with that ID, nil if there is none, and its place in the order of creation.
func (l *Log) Topic(id [16]byte) (*Topic, int) {
	for i, t := range l.Topics {
		if t.ID == id {
			return t, i
		}
	}
	return nil, -1
}

// Append adds records, which come in ascending offsets per partition.
func (t *Topic) Append(records ...Record) {
	for _, r := range records {
		parts := t.keys[r.Key]
		for int(r.Partition) >= len(parts) {
			parts = append(parts, nil)
		}
		parts[r.Partition] = append(parts[r.Partition], r)
		t.keys[r.Key] = parts
		if r.ID != "" {
			if t.ids[r.ID] == nil {
				t.ids[r.ID] = map[int32]int{}
			}
			t.ids[r.ID][r.Partition]++
		}
	}
}

// below is how many of the records, of one key and partition, lie below the offset.
func below(records []Record, offset int64) int {
	n, _ := slices.BinarySearchFunc(records, offset, func(r Record, o int64) int { return int(min(1, max(-1, r.Offset-o))) })
	return n
}

// At is key's record in the state at p: of the newest record of each partition, those that are no tombstones and not
// below the log start, the one with the later timestamp, then the higher partition (GUARANTEES rules 13 and 14).
func (t *Topic) At(key string, p position.Position) (won Record, ok bool) {
	for i, records := range t.keys[key] {
		c := p.Partition(int32(i))
		n := below(records, c.Next)
		if n == 0 {
			continue
		}
		r := records[n-1]
		if !r.Deleted && r.Offset >= c.LogStart && (!ok || r.Timestamp >= won.Timestamp) {
			won, ok = r, true
		}
	}
	return won, ok
}

// Last is the record that made key what it is at p, a tombstone perhaps (the first of several), in the one partition
// where it lives; ok is false if there is none or if there are some in several partitions.
func (t *Topic) Last(key string, p position.Position) (last Record, ok bool) {
	for i, records := range t.keys[key] {
		n := below(records, p.Partition(int32(i)).Next)
		if n == 0 {
			continue
		}
		if ok {
			return Record{}, false
		}
		for n > 1 && records[n-1].Deleted && records[n-2].Deleted {
			n--
		}
		last, ok = records[n-1], true
	}
	return last, ok
}

// State is all keys with the prefix at p, in key order.
func (t *Topic) State(prefix string, p position.Position) []Record {
	var out []Record
	for _, key := range slices.Sorted(maps.Keys(t.keys)) {
		if strings.HasPrefix(key, prefix) {
			if r, ok := t.At(key, p); ok {
				out = append(out, r)
			}
		}
	}
	return out
}

// Touched reports whether a record of key lies between the positions, or the log start passed one.
func (t *Topic) Touched(key string, from, to position.Position) bool {
	for i, records := range t.keys[key] {
		a, b := from.Partition(int32(i)), to.Partition(int32(i))
		if below(records, a.Next) < below(records, b.Next) || below(records, a.LogStart) < below(records, b.LogStart) {
			return true
		}
	}
	return false
}

// conflict: key has records in several partitions, so that its promises hold per partition only.
func (t *Topic) conflict(key string) bool {
	n := 0
	for _, records := range t.keys[key] {
		if len(records) > 0 {
			n++
		}
	}
	return n > 1
}

// Conflict reports whether key has records in several partitions of any incarnation.
func (l *Log) Conflict(key string) bool {
	return slices.ContainsFunc(l.Topics, func(t *Topic) bool { return t.conflict(key) })
}

// holds is how often the write with that ID stands in one partition at most, and in how many partitions.
func (l *Log) holds(id string) (times, partitions int) {
	for _, t := range l.Topics {
		partitions += len(t.ids[id])
		for _, n := range t.ids[id] {
			times = max(times, n)
		}
	}
	return times, partitions
}
