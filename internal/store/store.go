// Package store keeps the newest record of every key of a topic in memory, in key order.
//
// It knows neither Kafka nor HTTP. A Store is written by one goroutine; the caller guards it with a
// read-write lock under which Get runs. A Snapshot is taken in O(1) under the write lock and is from then on
// independent of the Store: it may be read by any goroutine, for as long as it is held, while writes go on.
package store

import (
	"bytes"
	"iter"
	"slices"
	"strings"

	"github.com/tidwall/btree"

	"github.com/kkv-project/kkv/internal/wire"
)

// Record is one record of the log. The bytes of a Record that a Store returns are the Store's: never change them.
type Record struct {
	Key       []byte
	Value     []byte // nil: a tombstone
	Partition int32
	Offset    int64
	Epoch     int32 // leader epoch of the record's batch (KIP-101), -1 where Kafka named none
	Timestamp int64 // milliseconds since the Unix epoch
	Headers   []wire.Header
}

func (r *Record) bytes() int64 {
	n := len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return int64(n)
}

// wins tells which of two live records of one key in two partitions is its value: the later timestamp, then the
// higher partition, so that the value is a function of the compacted partitions alone (GUARANTEES rule 14).
func (r *Record) wins(o *Record) bool {
	if r.Timestamp != o.Timestamp {
		return r.Timestamp > o.Timestamp
	}
	return r.Partition > o.Partition
}

// Effect is what applying one record did to what a reader sees of its key.
type Effect struct {
	// Changed: a reader now sees another record, Now, or none.
	Changed bool
	// Deleted: the key has no live record any more.
	Deleted bool
	// Now is the key's record from here on, if Changed and not Deleted.
	Now *Record
	// Equal: Now's value is byte for byte what the key had before.
	Equal bool
}

// entry is immutable once it is in the tree, for snapshots share it.
type entry struct {
	key string
	// recs are the key's live records, at most one a partition, the winner first. Nearly always one.
	recs []*Record
}

// Store is not safe for concurrent use by itself; see the package comment.
type Store struct {
	tree      *btree.BTreeG[*entry]
	bytes     int64
	conflicts int
}

// New makes an empty Store.
func New() *Store {
	less := func(a, b *entry) bool { return a.key < b.key }
	return &Store{tree: btree.NewBTreeGOptions(less, btree.Options{NoLocks: true})}
}

// Len is the number of live keys.
func (s *Store) Len() int { return s.tree.Len() }

// Bytes is the payload held: keys, values and headers of live records.
func (s *Store) Bytes() int64 { return s.bytes }

// Conflicts is the number of keys that live in more than one partition (GUARANTEES rule 14).
func (s *Store) Conflicts() int { return s.conflicts }

// Get returns the record that is key's value now.
func (s *Store) Get(key []byte) (*Record, bool) {
	e, ok := s.tree.Get(&entry{key: string(key)})
	if !ok {
		return nil, false
	}
	return e.recs[0], true
}

// Partitions lists the partitions in which key has a live record, the winner's first.
func (s *Store) Partitions(key []byte) []int32 {
	e, ok := s.tree.Get(&entry{key: string(key)})
	if !ok {
		return nil
	}
	ps := make([]int32, len(e.recs))
	for i, r := range e.recs {
		ps[i] = r.Partition
	}
	return ps
}

// Apply takes one record in, in log order per partition. The Store copies what it keeps.
func (s *Store) Apply(r *Record) Effect {
	old, held := s.tree.Get(&entry{key: string(r.Key)})
	var rest []*Record // what other partitions hold of this key
	var before *Record
	if held {
		before = old.recs[0]
		for _, o := range old.recs {
			if o.Partition == r.Partition {
				s.bytes -= o.bytes()
			} else {
				rest = append(rest, o)
			}
		}
		if len(old.recs) > 1 {
			s.conflicts--
		}
	}
	if r.Value == nil {
		if len(rest) == 0 {
			if held {
				s.tree.Delete(old)
			}
			return Effect{Changed: held, Deleted: held}
		}
	} else {
		r = clone(r)
		s.bytes += r.bytes()
		rest = append(rest, r)
		slices.SortFunc(rest, func(a, b *Record) int {
			if a.wins(b) {
				return -1
			}
			return 1
		})
	}
	e := &entry{recs: rest}
	if held {
		e.key = old.key
	} else {
		e.key = string(r.Key)
	}
	s.tree.Set(e)
	if len(rest) > 1 {
		s.conflicts++
	}
	now := rest[0]
	return Effect{Changed: now != before, Now: now, Equal: held && bytes.Equal(now.Value, before.Value)}
}

// clone copies r and its bytes, key and value side by side: a fetched record's bytes lie in the buffer of its
// whole batch, which must not be kept alive by one record of it.
func clone(r *Record) *Record {
	c := *r
	b := make([]byte, len(r.Key)+len(r.Value))
	copy(b, r.Key)
	copy(b[len(r.Key):], r.Value)
	c.Key = b[:len(r.Key):len(r.Key)]
	c.Value = b[len(r.Key):]
	if len(r.Headers) > 0 {
		c.Headers = make([]wire.Header, len(r.Headers))
		for i, h := range r.Headers {
			c.Headers[i] = wire.Header{Key: strings.Clone(h.Key), Value: bytes.Clone(h.Value)}
		}
	} else {
		c.Headers = nil
	}
	return &c
}

// Snapshot is one state of a Store.
type Snapshot struct {
	tree *btree.BTreeG[*entry]
}

// Snapshot takes the present state, in O(1).
func (s *Store) Snapshot() Snapshot { return Snapshot{tree: s.tree.Copy()} }

// Len is the number of keys.
func (s Snapshot) Len() int { return s.tree.Len() }

// All yields the records of keys that begin with prefix and are greater than after, in key order. A nil after
// means from the first.
func (s Snapshot) All(prefix, after []byte) iter.Seq[*Record] {
	return func(yield func(*Record) bool) {
		from := string(prefix)
		if after != nil {
			from = max(from, string(after)+"\x00")
		}
		s.tree.Ascend(&entry{key: from}, func(e *entry) bool {
			return strings.HasPrefix(e.key, string(prefix)) && yield(e.recs[0])
		})
	}
}
