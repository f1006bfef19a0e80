package ingest

import "context"

// parked are records of one partition that the sink had no room for, and how far it is once they are in.
type parked struct {
	records []Record
	end     Progress
}

// behindParked lines b's records of parked partitions up behind what is parked there.
func (s *session) behindParked(b *Batch) *Batch {
	out := &Batch{}
	for _, r := range b.Records {
		if p := s.parked[r.Partition]; p != nil {
			p.records = append(p.records, r)
		} else {
			out.Records = append(out.Records, r)
		}
	}
	for _, n := range b.Progress {
		if p := s.parked[n.Partition]; p != nil {
			n.Gap, n.Next, n.Settled = max(n.Gap, p.end.Gap), max(n.Next, p.end.Next), max(n.Settled, p.end.Settled)
			p.end = n
		} else {
			out.Progress = append(out.Progress, n)
		}
	}
	return out
}

// park keeps what the sink has no room for, and end, where its partition is once it has.
func (s *session) park(h Held, end Progress) {
	if s.parked == nil {
		s.parked = map[int32]*parked{}
	}
	s.parked[h.Partition] = &parked{h.Records, end}
	s.con.PauseFetchPartitions(map[string][]int32{s.r.o.Topic: {h.Partition}})
}

// unpark offers what is parked again, from time to time: room comes from tombstones and smaller values elsewhere.
func (s *session) unpark(ctx context.Context) error {
	for sleep(ctx, unparkEvery) {
		s.mu.Lock()
		for partition, p := range s.parked {
			delete(s.parked, partition)
			s.offerParked(partition, p)
			if s.parked[partition] == nil {
				s.con.ResumeFetchPartitions(map[string][]int32{s.r.o.Topic: {partition}})
			}
		}
		s.mu.Unlock()
	}
	return ctx.Err()
}

// offerParked offers p in stretches of batchLen until one is not taken whole.
func (s *session) offerParked(partition int32, p *parked) {
	for rest := p.records; ; {
		n, end := len(rest), p.end
		if n > batchLen {
			n = batchLen
			end.Next, end.Epoch = rest[n].Offset, rest[n-1].Epoch
		}
		b := &Batch{Records: rest[:n], Progress: []Progress{end}}
		rest = rest[n:]
		s.offer(b)
		if again := s.parked[partition]; again != nil {
			again.records, again.end = append(again.records, rest...), p.end
			return
		}
		if len(rest) == 0 {
			return
		}
	}
}
