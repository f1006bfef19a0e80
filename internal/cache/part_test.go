package cache

import (
	"testing"
	"time"

	"github.com/kkv-project/kkv/internal/ingest"
)

// loaded is a Cache with one empty partition, read whole.
func loaded() *Cache {
	c := New(Options{})
	c.Load(ingest.Incarnation{TopicID: [16]byte{1}, Partitions: []ingest.Progress{{}}, Ends: []int64{0}}, "")
	c.Loaded()
	return c
}

// reads moves the partition on by a record.
func reads(c *Cache, next, gap, settled int64, key, value string) {
	c.Apply(&ingest.Batch{Records: []ingest.Record{{Key: []byte(key), Value: []byte(value), Offset: next - 1}},
		Progress: []ingest.Progress{{Partition: 0, Next: next, Gap: gap, Settled: settled}}})
}

// TestAgeOfALag: a position that is always as far behind is told as that old, and never as younger.
func TestAgeOfALag(t *testing.T) {
	const each, perAsk = 500 * time.Millisecond, 10
	for _, lag := range []int64{0, 1, 6, 120, 5000} { // in questions
		c := loaded()
		began := time.Now()
		for i := range lag + 1000 {
			asked := began.Add(time.Duration(i) * each)
			c.Current(0, (i+1)*perAsk, -1, asked)
			next := max(0, (i-lag+1)*perAsk)
			c.Apply(&ingest.Batch{Progress: []ingest.Progress{{Partition: 0, Next: next}}})
			p := &c.cur.parts[0]
			if len(p.asked) > askedMost {
				t.Fatalf("lag %d: %d answers are kept", lag, len(p.asked))
			}
			if next == 0 || i < 2*lag+10 && i < lag+500 {
				continue
			}
			age, truth := asked.Sub(p.asOf), time.Duration(lag)*each
			if age < truth || age > truth+truth/8 {
				t.Fatalf("lag %v: told as %v", truth, age)
			}
		}
	}
}

// TestAgeInAGap: what compaction took may have been what was new when the leader was asked; what took its place is still
// to be read.
func TestAgeInAGap(t *testing.T) {
	c := loaded()
	reads(c, 1, 0, 0, "k", "old") // k's next value was at 1, and the one after at 8
	before := c.cur.parts[0].asOf
	asked := time.Now().Add(time.Second)
	c.Current(0, 4, -1, asked)
	reads(c, 5, 4, 10, "x", "1")
	if m, _ := c.Mark(); !m.asOf.Equal(before) {
		t.Error("an older value of k is served as current")
	}
	e := ingest.Ends{TopicID: [16]byte{1}, Offsets: []int64{4}, Asked: asked}
	if missing, ok := c.covers(c.cur, &e); ok || missing != 0 {
		t.Error("an older value of k is served as fresh")
	}
	reads(c, 9, 0, 0, "k", "new")
	reads(c, 10, 0, 0, "y", "1")
	if m, _ := c.Mark(); !m.asOf.Equal(asked) {
		t.Errorf("as of %v, want %v", m.asOf, asked)
	}
	if _, ok := c.covers(c.cur, &e); !ok {
		t.Error("all is in, and it is not fresh")
	}
}

// TestFreshWhileReadingAnew: the offsets of a log that is not the one served say nothing of it. And what was asked for a
// fresh read counts for the age.
func TestFreshWhileReadingAnew(t *testing.T) {
	c := loaded()
	id := [16]byte{1}
	reads(c, 9, 0, 0, "k", "lost")
	asked := time.Now().Add(time.Minute)
	e := ingest.Ends{TopicID: id, Offsets: []int64{8}, Asked: asked}
	c.Load(ingest.Incarnation{TopicID: id, Partitions: []ingest.Progress{{}}, Ends: []int64{8}}, ingest.ReasonRebuilt)
	if _, ok := c.covers(c.cur, &e); ok {
		t.Error("the state of a log that was cut is served as fresh")
	}
	rd := c.Reader()
	reads(c, 8, 0, 0, "k", "acknowledged")
	c.Loaded()
	if _, ok := c.covers(c.cur, &e); !ok {
		t.Error("all is in, and it is not fresh")
	}
	if b, _, _ := rd.TryNext(); b == nil || b.Reset != ingest.ReasonRebuilt {
		t.Errorf("told %+v", b)
	}
	if m, _ := c.Mark(); !m.asOf.Equal(asked) {
		t.Errorf("as of %v, want %v", m.asOf, asked)
	}
}
