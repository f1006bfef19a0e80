package ingest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kkv-project/kkv/internal/kafka"
)

// poll hands what the consumer fetches to the sink until the log turns out to be another one.
func (s *session) poll(ctx context.Context) error {
	var b backoff
	for {
		fs := s.con.PollFetches(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		some, err := s.applyFetches(fs)
		if some {
			b.reset()
			if s.refused {
				s.refused = false
				s.pollTrouble(nil)
			}
		}
		if err == nil {
			continue
		}
		var re *reopen
		switch {
		case errors.As(err, &re):
			return re
		case lost(err):
			return &reopen{ReasonRebuilt, err}
		case kafka.Classify(err) == kafka.Fatal:
			if !s.isLoaded() {
				return err
			}
			s.refused = true
			s.pollTrouble(err)
			if !b.wait(ctx) {
				return ctx.Err()
			}
			continue
		}
		if !some { // kgo's errors come in a hot loop (KAFKA-NOTES section 4)
			s.trouble(err)
			if !b.wait(ctx) {
				return ctx.Err()
			}
		}
	}
}

// lost: the log below our position is not what we read, or its start moved past us. An unknown topic ID is left
// to watch, for a broker that starts up may answer it about a topic that is well.
func lost(err error) bool {
	return kafka.Classify(err) == kafka.Reopen && !errors.Is(err, kerr.UnknownTopicID) && !errors.Is(err, kerr.InconsistentTopicID)
}

// batchLen bounds the records of a Batch, and so for how long applying it keeps readers waiting: well below a
// millisecond.
const batchLen = 1000

// applyFetches applies one poll and reports whether it moved anything. Of the errors in it, it returns the most serious.
func (s *session) applyFetches(fs kgo.Fetches) (some bool, worst error) {
	fs.EachTopic(func(t kgo.FetchTopic) {
		if t.TopicID != [16]byte{} && t.TopicID != s.id {
			worst = &reopen{ReasonRecreated, fmt.Errorf("fetched from topic ID %x", t.TopicID)}
		}
	})
	if worst != nil {
		return false, worst
	}
	s.polled.Lock()
	defer s.polled.Unlock()
	b := Batch{Records: make([]Record, 0, min(fs.NumRecords(), batchLen))} // used again and again: the sink keeps nothing of it
	flush := func() {
		if len(b.Progress) > 0 {
			if err := s.apply(&b); err != nil {
				worst = err
			}
			some = true
			b.Records, b.Progress = b.Records[:0], nil
		}
	}
	fs.EachPartition(func(tp kgo.FetchTopicPartition) {
		if tp.Err != nil {
			err := fmt.Errorf("fetch %s/%d: %w", tp.Topic, tp.Partition, tp.Err)
			if worst == nil || lost(err) {
				worst = err
			}
		}
		if len(tp.Records) == 0 { // perhaps of no partition at all: so kgo tells errors of its own
			return
		}
		next, gap, settled := s.fetched(tp.Partition), int64(0), int64(0)
		for i, r := range tp.Records {
			if r.Offset > next {
				gap, settled = r.Offset, tp.HighWatermark
				if !s.r.o.ReadUncommitted && tp.LastStableOffset >= 0 { // compaction goes no further
					settled = min(settled, tp.LastStableOffset)
				}
			}
			next = r.Offset + 1
			if !r.Attrs.IsControl() { // a transaction's marker is no record, but it moves the position
				b.Records = append(b.Records, Record{Key: r.Key, Value: r.Value, Headers: r.Headers, Partition: r.Partition,
					Offset: r.Offset, Epoch: r.LeaderEpoch, Timestamp: r.Timestamp.UnixMilli()})
			}
			if full := len(b.Records) == batchLen; full || i == len(tp.Records)-1 {
				b.Progress = append(b.Progress, Progress{Partition: tp.Partition, Next: next, Epoch: r.LeaderEpoch, LogStart: tp.LogStartOffset, Gap: gap, Settled: settled})
				if full {
					flush()
				}
			}
		}
	})
	flush()
	return some, worst
}

// fetched is where the next record of a partition would be if compaction had left nothing out.
func (s *session) fetched(partition int32) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.parts[partition].Next
}

func (s *session) metadata(ctx context.Context) (kafka.Topic, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	t, err := kafka.Metadata(ctx, s.aux, s.r.o.Topic)
	if err == nil && len(t.Partitions) == 0 {
		err = fmt.Errorf("topic %s: %w", s.r.o.Topic, kerr.UnknownTopicOrPartition)
	}
	return t, err
}

// bounds are what the leaders say of every partition, by its number, at one time.
type bounds struct {
	starts []int64 // log starts
	ends   []int64 // where a load ends: the last stable offset, or the high watermark where uncommitted records are shown
	marks  []int64 // high watermarks
	asked  time.Time
}

// bounds asks for them. ListOffsets goes by name, so that it answers for whatever incarnation there is: the topic's
// ID is compared before and after (KAFKA-NOTES section 2).
func (s *session) bounds(ctx context.Context, t kafka.Topic) (b bounds, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if b.starts, err = listOffsets(ctx, s.aux, t, readUncommitted, earliest); err != nil {
		return b, err
	}
	b.asked = time.Now()
	if b.marks, err = listOffsets(ctx, s.aux, t, readUncommitted, latest); err != nil {
		return b, err
	}
	if b.ends = b.marks; !s.r.o.ReadUncommitted {
		if b.ends, err = listOffsets(ctx, s.aux, t, readCommitted, latest); err != nil {
			return b, err
		}
	}
	again, err := s.metadata(ctx)
	if err == nil && again.ID != t.ID {
		err = fmt.Errorf("topic %s was created anew while its offsets were listed: %w", t.Name, kerr.UnknownTopicID)
	}
	return b, err
}

// watch asks, every watchEvery, how far the leaders' logs reach, so that the sink can tell its age (rule 7), and
// whether the topic is still the same. It also finds added partitions.
func (s *session) watch(ctx context.Context) error {
	away := false
	for first := true; first || sleep(ctx, watchEvery); first = false {
		err := s.lookSoon(ctx)
		if err == nil && !time.Now().Before(s.retentionDue) {
			s.readRetention(ctx)
		}
		var re *reopen
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &re):
			return re
		case errors.Is(err, kerr.UnknownTopicOrPartition):
			err = fmt.Errorf("%w any more: topic %q was deleted; serving what was read, waiting for it to be created again", ErrNoTopic, s.r.o.Topic)
		}
		s.trouble(err)
		if (err != nil) != away {
			away = err != nil
			if away {
				s.r.log.Warn("Kafka does not answer for the topic, serving what was read and trying again", "topic", s.r.o.Topic, "error", err)
			} else {
				s.r.log.Info("Kafka answers again", "topic", s.r.o.Topic)
			}
		}
	}
	return ctx.Err()
}

// readRetention tells the sink for how long tombstones are kept. Only a refusal counts as unreadable: while Kafka does
// not answer, what was read holds.
func (s *session) readRetention(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	configs, err := kafka.TopicConfigs(ctx, s.aux, []string{s.r.o.Topic}, retentionConfig)
	var ms int64
	if err == nil {
		ms, err = strconv.ParseInt(configs[s.r.o.Topic][retentionConfig].Value, 10, 64)
	}
	s.retentionDue = time.Now().Add(retentionEvery)
	switch {
	case err == nil:
	case kafka.Classify(err) == kafka.Fatal:
		ms = 0
		s.r.log.Debug("cannot read how long tombstones are kept, so readers resume only where nothing can have been missed", "topic", s.r.o.Topic, "error", err)
	default:
		s.retentionDue = time.Now().Add(retentionRetry)
		return
	}
	d := time.Duration(min(max(0, ms), math.MaxInt64/int64(time.Millisecond))) * time.Millisecond
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.retention = min(s.retention, d); !s.retentionRead {
		s.retention, s.retentionRead = d, true
	}
	s.r.sink.Retention(s.id, d)
}

// lookSoon is look, but says after slowAfter that there is no answer yet.
func (s *session) lookSoon(ctx context.Context) error {
	answered := false // guarded by s.mu
	late := time.AfterFunc(slowAfter, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !answered {
			s.bad = errSlow
			s.tell()
		}
	})
	defer late.Stop()
	err := s.look(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	answered = true
	return err
}

var errSlow = fmt.Errorf("Kafka has not answered for %v", slowAfter)

// look is one round of watch.
func (s *session) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	now, err := s.r.endsInTurn(ctx, s.aux, readUncommitted)
	if now.TopicID != [16]byte{} && now.TopicID != s.id {
		return &reopen{ReasonRecreated, fmt.Errorf("topic ID was %x and is now %x", s.id, now.TopicID)}
	}
	if err != nil {
		return err
	}
	var stable Ends
	if s.behind(now) { // perhaps an open transaction holds the last stable offset back
		if stable, err = s.r.endsInTurn(ctx, s.aux, readCommitted); err != nil || stable.TopicID != s.id {
			stable = Ends{}
		}
	}
	// ListOffsets goes by name: its answer counts once metadata asked after it still names our incarnation.
	t, err := s.metadata(ctx)
	switch {
	case err != nil:
		return err
	case t.ID != s.id:
		return &reopen{ReasonRecreated, fmt.Errorf("topic ID was %x and is now %x", s.id, t.ID)}
	}
	s.mu.Lock()
	for i := range min(len(now.Offsets), len(s.parts)) {
		if len(t.Partitions) > len(s.parts) {
			break // what a partition that is not read yet holds is not in, so that nothing is proved current
		}
		lso := int64(-1)
		if i < len(stable.Offsets) {
			lso = stable.Offsets[i]
		}
		s.r.sink.Current(int32(i), now.Offsets[i], lso, now.Asked)
		if lso < 0 {
			lso = now.Offsets[i]
		}
		s.parts[i].catch(min(lso, now.Offsets[i]), now.Asked) // compaction does not go beyond the last stable offset
	}
	s.mu.Unlock()
	if s.round++; s.round%startsEvery == 0 || s.r.wantStarts.Swap(false) {
		if err := s.readStarts(ctx, t); err != nil {
			return err
		}
	}
	if len(t.Partitions) > len(s.parts) { // only this goroutine adds to parts
		return s.addPartitions(ctx, t)
	}
	return nil
}

// readStarts tells the sink of log starts that have moved (GUARANTEES rule 13). A fetch tells them, too, where there is
// something to fetch; one that has moved past our position is for the fetch to find out of range.
func (s *session) readStarts(ctx context.Context, t kafka.Topic) error {
	starts, err := listOffsets(ctx, s.aux, t, readUncommitted, earliest)
	if err != nil {
		return err
	}
	again, err := s.metadata(ctx)
	if err != nil || again.ID != s.id {
		return err // of another incarnation: the next look says so
	}
	b := &Batch{}
	s.mu.Lock()
	for i := range min(len(starts), len(s.parts)) {
		if p := s.parts[i].Progress; p.LogStart < starts[i] && starts[i] <= p.Next {
			b.Progress = append(b.Progress, Progress{Partition: p.Partition, Next: p.Next, Epoch: -1, LogStart: starts[i]})
		}
	}
	s.mu.Unlock()
	if len(b.Progress) == 0 {
		return nil
	}
	return s.apply(b)
}

func (s *session) behind(now Ends) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range min(len(now.Offsets), len(s.parts)) {
		if s.parts[i].Next < now.Offsets[i] {
			return true
		}
	}
	return false
}

func (s *session) addPartitions(ctx context.Context, t kafka.Topic) error {
	at, err := s.bounds(ctx, t)
	if err != nil {
		return err
	}
	b := &Batch{}
	s.mu.Lock()
	old := len(s.parts)
	for i := old; i < len(t.Partitions); i++ {
		p := Progress{Partition: int32(i), Next: at.starts[i], LogStart: at.starts[i], Epoch: -1}
		s.parts = append(s.parts, partition{Progress: p, probed: -1, began: time.Now()})
		b.Progress = append(b.Progress, p)
	}
	s.mu.Unlock()
	if err := s.apply(b); err != nil {
		return err
	}
	s.mu.Lock()
	from := s.offsets(old)
	s.mu.Unlock()
	s.con.AddConsumePartitions(map[string]map[int32]kgo.Offset{t.Name: from})
	return nil
}

// probeStuck looks behind the polls wherever a position stands short of one that somebody waits for.
func (s *session) probeStuck(ctx context.Context) error {
	pause := probeEvery
	for {
		stuck, waiting := s.stuck()
		if pause = min(2*pause, probeMost); len(stuck) == 0 { // something has moved
			pause = probeEvery
		}
		for _, p := range stuck {
			n, err := s.probe(ctx, p)
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case err != nil && lost(err):
				return &reopen{ReasonRebuilt, fmt.Errorf("probe %s/%d at %d: %w", s.r.o.Topic, p.Partition, p.Next, err)}
			case err != nil:
				if !sleep(ctx, backoffMin) {
					return ctx.Err()
				}
			case n.Next > p.Next:
				if err := s.apply(&Batch{Progress: []Progress{n}}); err != nil {
					return err
				}
			}
		}
		var due <-chan time.Time
		if waiting {
			due = time.After(pause)
		}
		select {
		case <-due:
		case <-s.r.kick:
			pause = probeEvery
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// stuck lists the partitions that are waited for and have not moved since the last look.
func (s *session) stuck() (stuck []Progress, waiting bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.parts {
		p := &s.parts[i]
		if _, ok := s.parked[p.Partition]; ok || p.Next >= max(p.target, s.r.want(p.Partition)) {
			continue
		}
		waiting = true
		if p.probed == p.Next {
			stuck = append(stuck, p.Progress)
		}
		p.probed = p.Next
	}
	return stuck, waiting
}

var errShort = errors.New("the broker left the partition out of its answer")

// probe returns a progress such that nothing visible lies between p.Next and its Next: it fetches one partition
// without waiting and looks at the batches that kgo's polls hide (markers, aborted records, emptied batches), or
// at the last stable offset where the log holds none. Only an answer about this one partition proves that: with
// several in a fetch, a broker leaves out what exceeds its budget (KAFKA-NOTES section 1).
func (s *session) probe(ctx context.Context, p Progress) (Progress, error) {
	t, err := s.metadata(ctx)
	if err != nil {
		return p, err
	}
	if t.ID != s.id {
		return p, kerr.UnknownTopicID
	}
	if int(p.Partition) >= len(t.Partitions) || t.Partitions[p.Partition].Leader < 0 {
		return p, kerr.LeaderNotAvailable
	}
	iso, level := kgo.ReadCommitted(), readCommitted
	if s.r.o.ReadUncommitted {
		iso, level = kgo.ReadUncommitted(), readUncommitted
	}
	part := kmsg.NewFetchRequestTopicPartition()
	part.Partition, part.FetchOffset, part.PartitionMaxBytes = p.Partition, p.Next, 64<<10
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic, topic.TopicID, topic.Partitions = s.r.o.Topic, s.id, []kmsg.FetchRequestTopicPartition{part}
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.IsolationLevel = 0, 0, 64<<10, level
	req.SessionEpoch, req.Topics = -1, []kmsg.FetchRequestTopic{topic} // no fetch session (KIP-227)
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	kr, err := s.aux.Broker(int(t.Partitions[p.Partition].Leader)).RetriableRequest(ctx, req)
	if err != nil {
		return p, err
	}
	resp := kr.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return p, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return p, errShort // throttled, say: not the same as empty
	}
	rp := &resp.Topics[0].Partitions[0]
	got, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Offset: p.Next, IsolationLevel: iso, Topic: s.r.o.Topic,
		Partition: p.Partition}, rp, kgo.DefaultDecompressor(), nil)
	end := rp.LastStableOffset
	if level == readUncommitted {
		end = rp.HighWatermark
	}
	switch {
	case got.Err != nil:
		return p, got.Err
	case len(got.Records) > 0:
		next = got.Records[0].Offset // the poll will bring it
	case len(rp.RecordBatches) == 0:
		next = end
	}
	return Progress{Partition: p.Partition, Next: max(p.Next, next), Epoch: -1, LogStart: p.LogStart, Gap: next, Settled: end}, nil
}
