package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"github.com/kkv-project/kkv/internal/kafka"
)

// Ends is how far the log of every partition reached when its leader was asked.
type Ends struct {
	TopicID [16]byte
	Offsets []int64   // indexed by partition
	Asked   time.Time // before the first leader was asked
}

// ErrNotRunning: the Reader has not been started, or has ended.
var ErrNotRunning = errors.New("the topic is not being read")

// Ends asks, now, every leader for its high watermark: whatever was acknowledged (acks=all) before the call lies
// below it (GUARANTEES rule 4). Kafka's metadata is asked first, for the topic's ID, its partitions and their
// leaders, and each leader is asked under its epoch, so that a deposed one refuses. Not the last stable offset: the
// commit of a transaction is answered before that has moved past it. Errors that pass are tried again until ctx ends.
func (r *Reader) Ends(ctx context.Context) (Ends, error) {
	aux := r.aux.Load()
	if aux == nil {
		return Ends{}, ErrNotRunning
	}
	var wait backoff
	for {
		e, err := ends(ctx, aux, r.o.Topic, readUncommitted)
		if err == nil || ctx.Err() != nil || kafka.Classify(err) == kafka.Fatal {
			return e, err
		}
		wait.next = min(max(2*wait.next, 5*time.Millisecond), 200*time.Millisecond) / 2
		if !wait.wait(ctx) {
			return e, err
		}
	}
}

// Isolation levels of ListOffsets (KIP-98).
const (
	readUncommitted int8 = 0 // the high watermark
	readCommitted   int8 = 1 // the last stable offset
)

func ends(ctx context.Context, cl *kgo.Client, topic string, isolation int8) (Ends, error) {
	t, err := kafka.Metadata(ctx, cl, topic)
	if err != nil {
		return Ends{}, err
	}
	e := Ends{TopicID: t.ID, Offsets: make([]int64, len(t.Partitions)), Asked: time.Now()}
	byLeader := map[int32][]kafka.Partition{}
	for _, p := range t.Partitions {
		if p.Leader < 0 {
			return e, fmt.Errorf("%s/%d: %w", topic, p.ID, kerr.LeaderNotAvailable)
		}
		byLeader[p.Leader] = append(byLeader[p.Leader], p)
	}
	g, ctx := errgroup.WithContext(ctx)
	for leader, ps := range byLeader {
		ask := func() error { return e.ask(ctx, cl, topic, leader, ps, isolation) }
		if len(byLeader) == 1 {
			return e, ask()
		}
		g.Go(ask)
	}
	return e, g.Wait()
}

// ask fills in what one leader says.
func (e *Ends) ask(ctx context.Context, cl *kgo.Client, topic string, leader int32, ps []kafka.Partition, isolation int8) error {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID, req.IsolationLevel = -1, isolation
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic = topic
	for _, p := range ps {
		rp := kmsg.NewListOffsetsRequestTopicPartition()
		rp.Partition, rp.CurrentLeaderEpoch, rp.Timestamp = p.ID, p.Epoch, -1 // the latest
		rt.Partitions = append(rt.Partitions, rp)
	}
	req.Topics = append(req.Topics, rt)
	kr, err := cl.Broker(int(leader)).Request(ctx, req)
	if err != nil {
		return fmt.Errorf("list offsets of %s at broker %d: %w", topic, leader, err)
	}
	answered := 0
	for _, t := range kr.(*kmsg.ListOffsetsResponse).Topics {
		for _, p := range t.Partitions {
			// OFFSET_NOT_AVAILABLE (KIP-207) is one of these: a new leader does not know its high watermark yet.
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fmt.Errorf("list offsets of %s/%d: %w", topic, p.Partition, err)
			}
			if p.Offset < 0 || int(p.Partition) >= len(e.Offsets) {
				return fmt.Errorf("list offsets of %s/%d: %w", topic, p.Partition, errShort)
			}
			e.Offsets[p.Partition] = p.Offset
			answered++
		}
	}
	if answered != len(ps) {
		return fmt.Errorf("list offsets of %s at broker %d: %w", topic, leader, errShort)
	}
	return nil
}
