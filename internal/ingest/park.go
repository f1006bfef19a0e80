package ingest

import (
	"bytes"
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"
)

// park stands h's partition still: it is not fetched, and of what was fetched of it only a copy of the first record is
// kept, for a view would keep its whole fetch in memory when that is short.
func (s *session) park(h Held) {
	r := h.Record
	r.Key, r.Value, r.Headers = bytes.Clone(r.Key), bytes.Clone(r.Value), slices.Clone(r.Headers)
	for i := range r.Headers {
		r.Headers[i].Value = bytes.Clone(r.Headers[i].Value)
	}
	if s.parked == nil {
		s.parked = map[int32]Record{}
	}
	s.parked[h.Partition] = r
	s.con.PauseFetchPartitions(map[string][]int32{s.r.o.Topic: {h.Partition}})
}

// pass leaves out of b what lies behind a parked record, and what had been fetched before its partition was set back.
func (s *session) pass(b *Batch) {
	past := func(partition int32, offset int64) bool {
		if len(s.parked) > 0 {
			if _, ok := s.parked[partition]; ok {
				return true
			}
		}
		return offset < s.parts[partition].Next
	}
	b.Records = slices.DeleteFunc(b.Records, func(r Record) bool { return past(r.Partition, r.Offset) })
	b.Progress = slices.DeleteFunc(b.Progress, func(n Progress) bool { return past(n.Partition, n.Next) })
}

// unpark offers what is parked again, from time to time: room comes from tombstones and smaller values elsewhere. Once a
// record is taken, its partition is fetched again from there.
func (s *session) unpark(ctx context.Context) error {
	for sleep(ctx, unparkEvery) {
		s.offerParked()
	}
	return ctx.Err()
}

// offerParked waits for the end of a poll that is being applied: were a partition to go on in the middle of it, records of
// that poll which come after those that were left out would be taken for the next.
func (s *session) offerParked() {
	s.polled.Lock()
	defer s.polled.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	for partition, r := range s.parked {
		delete(s.parked, partition)
		s.offer(&Batch{Records: []Record{r}, Progress: []Progress{{Partition: partition, Next: r.Offset + 1, Epoch: r.Epoch}}})
		if _, still := s.parked[partition]; still {
			continue
		}
		s.con.SetOffsets(map[string]map[int32]kgo.EpochOffset{s.r.o.Topic: {partition: {Epoch: r.Epoch, Offset: r.Offset + 1}}})
		s.con.ResumeFetchPartitions(map[string][]int32{s.r.o.Topic: {partition}})
	}
}
