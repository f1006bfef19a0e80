package robustness

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kkv-project/kkv/internal/position"
	"github.com/kkv-project/kkv/internal/verify"
)

// nemesis does harm until traffic ends, and undoes it. Two faults at a time come and go; in between, when all is well,
// the log loses something at times.
type nemesis struct {
	w *world
	r *rand.Rand
}

func (n *nemesis) run() {
	for n.w.pause(n.r, 2*time.Second) {
		faults := []func() (undo func()){n.refuse, n.refuse, n.delay, n.late, n.cut, n.cut, n.moveLeaders, n.restart}
		a, b := faults[n.r.IntN(len(faults))](), faults[n.r.IntN(len(faults))]()
		n.w.pause(n.r, 4*time.Second)
		a()
		b()
		switch n.r.IntN(16) {
		case 0:
			n.losing(n.recreate)
		case 1, 2:
			n.addPartition()
		case 3, 4:
			n.losing(n.compact)
		case 5, 6:
			n.losing(n.deleteRecords)
		}
	}
}

// What Kafka answers in place of what it was asked for, by request.
var refusals = []struct {
	key  kmsg.Key
	errs []*kerr.Error
}{
	{kmsg.Fetch, []*kerr.Error{kerr.NotLeaderForPartition, kerr.UnknownTopicOrPartition, kerr.UnknownTopicID, kerr.KafkaStorageError, kerr.FencedLeaderEpoch,
		kerr.UnknownLeaderEpoch, kerr.OffsetNotAvailable, kerr.OffsetOutOfRange, kerr.CorruptMessage, kerr.UnknownServerError}},
	{kmsg.ListOffsets, []*kerr.Error{kerr.OffsetNotAvailable, kerr.NotLeaderForPartition, kerr.FencedLeaderEpoch, kerr.UnknownLeaderEpoch,
		kerr.LeaderNotAvailable, kerr.KafkaStorageError, kerr.UnknownTopicOrPartition, kerr.RequestTimedOut}},
	{kmsg.Metadata, []*kerr.Error{kerr.UnknownTopicOrPartition, kerr.LeaderNotAvailable, kerr.UnknownServerError}},
	{kmsg.Produce, []*kerr.Error{kerr.RequestTimedOut, kerr.NotEnoughReplicasAfterAppend, kerr.NotEnoughReplicas, kerr.NotLeaderForPartition, kerr.KafkaStorageError}},
	{kmsg.AddPartitionsToTxn, []*kerr.Error{kerr.CoordinatorNotAvailable, kerr.NotCoordinator, kerr.ConcurrentTransactions}},
	{kmsg.EndTxn, []*kerr.Error{kerr.CoordinatorNotAvailable, kerr.NotCoordinator, kerr.CoordinatorLoadInProgress}},
	{kmsg.InitProducerID, []*kerr.Error{kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress}},
	{kmsg.OffsetForLeaderEpoch, []*kerr.Error{kerr.NotLeaderForPartition, kerr.UnknownLeaderEpoch, kerr.KafkaStorageError}},
}

// refuse has some requests, or all, of one kind answered by an error.
func (n *nemesis) refuse() func() {
	kind := refusals[n.r.IntN(len(refusals))]
	if n.r.IntN(2) == 0 {
		kind = refusals[n.r.IntN(2)]
	}
	share, r := n.r.Float64()*1.3, rand.New(rand.NewPCG(n.r.Uint64(), 0))
	f := kfake.Fault{Keys: []kmsg.Key{kind.key}, Err: kind.errs[n.r.IntN(len(kind.errs))], Count: -1, When: func(kmsg.Request) bool { return r.Float64() < share }}
	if n.r.IntN(3) == 0 {
		f.Nodes = []int32{n.r.Int32N(3)}
	}
	n.w.log.Info("fault", "request", kind.key.Name(), "error", f.Err.Message, "share", share)
	return n.w.kafka.Fake.Fault(f).Remove
}

// delay has requests of one kind take longer.
func (n *nemesis) delay() func() {
	keys := []kmsg.Key{kmsg.Fetch, kmsg.Fetch, kmsg.ListOffsets, kmsg.Metadata, kmsg.Produce, kmsg.EndTxn}
	key, d := keys[n.r.IntN(len(keys))], time.Duration(n.r.Int64N(int64(time.Second)))
	n.w.log.Info("fault", "delay", key.Name(), "by", d)
	n.w.slow.Store(key, d)
	return func() { n.w.slow.Delete(key) }
}

// late has a replica receive all that Kafka answers some time after it was true.
func (n *nemesis) late() func() {
	r, d := n.w.replicas[n.r.IntN(len(n.w.replicas))], time.Duration(n.r.Int64N(int64(300*time.Millisecond)))
	n.w.log.Info("fault", "late", r.name, "by", d)
	r.way.delay(d)
	return r.way.mend
}

// cut closes a replica's connections to Kafka, and perhaps keeps them closed.
func (n *nemesis) cut() func() {
	r := n.w.replicas[n.r.IntN(len(n.w.replicas))]
	block := n.r.IntN(2) == 0
	n.w.log.Info("fault", "cut", r.name, "for good", block)
	r.way.cut(block)
	return r.way.mend
}

func (n *nemesis) moveLeaders() func() {
	n.w.log.Info("fault: leaders move")
	switch n.r.IntN(3) {
	case 0:
		n.w.kafka.Fake.ShufflePartitionLeaders()
	case 1:
		_ = n.w.kafka.Fake.MoveTopicPartition(topic, 0, n.r.Int32N(3)) // the topic may be away
	default:
		n.w.kafka.Fake.RehashCoordinators()
	}
	return func() {}
}

// restart ends a replica's run and begins another.
func (n *nemesis) restart() func() {
	r := n.w.replicas[n.r.IntN(len(n.w.replicas))]
	if _, _, up := r.at(); !up {
		return func() {}
	}
	n.w.log.Info("fault", "restart", r.name)
	r.stop(true)
	graces := []time.Duration{time.Millisecond, time.Second}
	return func() { r.start(graces[n.r.IntN(2)]) }
}

func (n *nemesis) addPartition() {
	if parts := len(n.w.kafka.Fake.PartitionInfos(topic)); parts > 0 && parts < 6 {
		n.w.log.Info("fault: a partition is added")
		n.w.kafka.AddPartitions(int32(parts + 1))
	}
}

// losing does what takes records out of the log. First the writers pause, and what is visible is written down.
func (n *nemesis) losing(do func()) {
	for range cap(n.w.turns) {
		n.w.turns <- struct{}{}
	}
	defer func() {
		for range cap(n.w.turns) {
			<-n.w.turns
		}
	}()
	<-time.After(3 * time.Second) // for what replicas are still sending
	if n.w.collect() {
		do()
	}
}

// compact has kfake compact the log once all replicas have read it: what the cleaner takes before a replica has come to
// it is missing from that replica's states until it has passed where the cleaner stopped (docs/guarantees.md).
// Transactions go on under new producer IDs: where nothing of a producer survives,
// kfake drops its abort markers but not its list of aborted transactions, and every client then takes that producer's
// next committed transaction for the aborted one.
func (n *nemesis) compact() {
	for range 50 {
		if n.w.caughtUp() {
			break
		}
		<-time.After(100 * time.Millisecond)
	}
	if !n.w.caughtUp() {
		return
	}
	n.w.log.Info("fault: the log is compacted")
	n.w.kafka.Fake.Compact()
	n.w.made.Add(1)
}

func (n *nemesis) deleteRecords() {
	p := n.r.Int32N(int32(len(n.w.read)))
	start := n.w.kafka.Fake.PartitionInfo(topic, p).LogStartOffset
	if n.w.read[p] <= start {
		return
	}
	to := start + 1 + n.r.Int64N(n.w.read[p]-start)
	n.w.log.Info("fault: records are deleted", "partition", p, "to", to)
	n.w.rec.Do(func(h *verify.History) {
		h.Trims = append(h.Trims, verify.Trim{Topic: n.w.topic.ID, Partition: p, Offset: to})
	})
	n.w.kafka.DeleteRecords(p, to)
}

// recreate deletes the topic, which may stay away for a while, and makes it anew with fewer or more partitions.
func (n *nemesis) recreate() {
	n.w.log.Info("fault: the topic is deleted")
	gone := n.w.rec.Now()
	n.w.rec.Do(func(*verify.History) { n.w.topic.Gone = gone })
	n.w.kafka.DeleteTopic()
	if n.r.IntN(2) == 0 {
		<-time.After(time.Duration(n.r.Int64N(int64(3 * time.Second))))
	}
	born := n.w.rec.Now()
	n.w.createTopic(1+n.r.Int32N(4), born)
	n.w.log.Info("fault: the topic is made anew")
}

func (w *world) createTopic(partitions int32, born verify.Stamp) {
	w.kafka.CreateTopic(partitions, map[string]string{"cleanup.policy": "compact"})
	id := w.kafka.Fake.TopicInfo(topic).TopicID
	made := w.rec.Now()
	w.rec.Do(func(h *verify.History) { w.topic = h.Log.Add(id, born, made) })
	w.read = nil
	w.made.Add(1)
}

// caughtUp: every replica serves all that was collected.
func (w *world) caughtUp() bool {
	end := w.end()
	for _, r := range w.replicas {
		if r.cache == nil {
			return false
		}
		if m, err := r.cache.Mark(); err != nil || !m.Position.Covers(end) {
			return false
		}
	}
	return true
}

// collect writes down all that has become visible in Kafka since the last time. While nothing is written and no fault is
// under way, that is all there is; it reports whether there was nothing that an open transaction hides.
func (w *world) collect() (whole bool) {
	offsets, ends := map[int32]kgo.Offset{}, map[int32]int64{}
	whole = true
	for i, p := range w.kafka.Fake.PartitionInfos(topic) {
		if len(w.read) == i {
			w.read = append(w.read, p.LogStartOffset)
		}
		whole = whole && p.LastStableOffset == p.HighWatermark
		if w.read[i] < p.LastStableOffset {
			offsets[p.Partition], ends[p.Partition] = kgo.NewOffset().At(w.read[i]), p.LastStableOffset
		}
	}
	if len(ends) == 0 {
		return whole
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(w.kafka.Fake.ListenAddrs()...), kgo.Dialer(w.direct.Dial), kgo.KeepControlRecords(),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: offsets}))
	if err != nil {
		w.t.Error(err)
		return false
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for len(ends) > 0 {
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			w.t.Errorf("read the log: %v; left %v", err, ends)
			return false
		}
		fs.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				w.topic.Append(recordOf(r))
			}
			if w.read[r.Partition] = r.Offset + 1; w.read[r.Partition] >= ends[r.Partition] {
				delete(ends, r.Partition)
			}
		})
	}
	return whole
}

func recordOf(r *kgo.Record) verify.Record {
	v := verify.Record{Key: string(r.Key), Value: string(r.Value), Deleted: r.Value == nil, Partition: r.Partition, Offset: r.Offset, Timestamp: r.Timestamp.UnixMilli()}
	for _, h := range r.Headers {
		if h.Key == writeID {
			v.ID = string(h.Value)
		}
	}
	return v
}

// end is where the log ends.
func (w *world) end() position.Position {
	parts := make([]position.Partition, len(w.read))
	for i, p := range w.kafka.Fake.PartitionInfos(topic) {
		parts[i] = position.Partition{Next: w.read[i], LogStart: p.LogStartOffset}
	}
	return position.New(w.topic.ID, time.Now(), parts)
}
