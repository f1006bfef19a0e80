package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
// below it (GUARANTEES rule 4). Kafka's metadata is asked, too, for the topic's ID, its partitions and their
// leaders, and each leader is asked under its epoch, so that a deposed one refuses. Not the last stable offset: the
// commit of a transaction is answered before that has moved past it. Errors that pass are tried again until ctx ends.
func (r *Reader) Ends(ctx context.Context) (Ends, error) {
	aux := r.aux.Load()
	if aux == nil {
		return Ends{}, ErrNotRunning
	}
	for pause := endsLeast; ; pause = min(2*pause, endsMost) {
		e, err := r.ends(ctx, aux)
		if err == nil || ctx.Err() != nil || kafka.Classify(err) == kafka.Fatal {
			return e, err
		}
		if !sleep(ctx, pause) {
			return e, err
		}
	}
}

// ends asks for the topic and, at the same time, the leaders that it had when last asked; their answer counts if it has the
// same ones, in the same epochs. Else they are asked in turn.
func (r *Reader) ends(ctx context.Context, cl *kgo.Client) (Ends, error) {
	known := r.known.Load()
	if known == nil {
		return r.endsInTurn(ctx, cl, readUncommitted)
	}
	e := Ends{TopicID: known.ID, Asked: time.Now()}
	g, both := errgroup.WithContext(ctx) // a leader that was cut off answers nobody: that there is another one ends the question to it
	g.Go(func() error {
		now, err := kafka.Metadata(both, cl, r.o.Topic)
		if err == nil && !sameLeaders(known, &now) {
			err = errMoved
		}
		return err
	})
	g.Go(func() (err error) {
		e.Offsets, err = listOffsets(both, cl, *known, readUncommitted, latest)
		return err
	})
	if g.Wait() != nil {
		return r.endsInTurn(ctx, cl, readUncommitted)
	}
	return e, nil
}

// endsInTurn asks for the topic, and then the leaders that it has.
func (r *Reader) endsInTurn(ctx context.Context, cl *kgo.Client, isolation int8) (Ends, error) {
	t, err := kafka.Metadata(ctx, cl, r.o.Topic)
	if err != nil {
		return Ends{}, err
	}
	e := Ends{TopicID: t.ID, Asked: time.Now()}
	if !r.learn(&t) {
		return e, errLags
	}
	e.Offsets, err = listOffsets(ctx, cl, t, isolation, latest)
	return e, err
}

var (
	errMoved = errors.New("the topic has other leaders than before")
	errLags  = errors.New("the broker asked does not know of all the topic's partitions yet")
)

// learn takes t for what is known of the topic, unless the broker that told of it lags behind what is: of one
// incarnation there are never fewer partitions than there were, and an end that leaves one out proves nothing.
func (r *Reader) learn(t *kafka.Topic) bool {
	known := r.known.Load()
	if len(t.Partitions) == 0 || known != nil && known.ID == t.ID && t.ID != [16]byte{} && len(t.Partitions) < len(known.Partitions) {
		return false
	}
	r.known.Store(t)
	return true
}

// sameLeaders: the same incarnation, partitions, leaders and epochs.
func sameLeaders(a, b *kafka.Topic) bool {
	return a.ID == b.ID && slices.EqualFunc(a.Partitions, b.Partitions, func(p, q kafka.Partition) bool {
		return p.ID == q.ID && p.Leader == q.Leader && p.Epoch == q.Epoch
	})
}

// Isolation levels of ListOffsets (KIP-98), and the timestamps that stand for a log's ends.
const (
	readUncommitted int8 = 0 // the high watermark
	readCommitted   int8 = 1 // the last stable offset

	latest   int64 = -1
	earliest int64 = -2
)

// listOffsets asks the leader of every partition of t, each under its epoch. It is all or nothing.
func listOffsets(ctx context.Context, cl *kgo.Client, t kafka.Topic, isolation int8, timestamp int64) ([]int64, error) {
	offsets := make([]int64, len(t.Partitions))
	byLeader := map[int32][]kafka.Partition{}
	for _, p := range t.Partitions {
		if p.Leader < 0 {
			return nil, fmt.Errorf("%s/%d: %w", t.Name, p.ID, kerr.LeaderNotAvailable)
		}
		byLeader[p.Leader] = append(byLeader[p.Leader], p)
	}
	g, ctx := errgroup.WithContext(ctx)
	for leader, ps := range byLeader {
		req := kmsg.NewPtrListOffsetsRequest()
		req.ReplicaID, req.IsolationLevel = -1, isolation
		rt := kmsg.NewListOffsetsRequestTopic()
		rt.Topic = t.Name
		for _, p := range ps {
			rp := kmsg.NewListOffsetsRequestTopicPartition()
			rp.Partition, rp.CurrentLeaderEpoch, rp.Timestamp = p.ID, p.Epoch, timestamp
			rt.Partitions = append(rt.Partitions, rp)
		}
		req.Topics = append(req.Topics, rt)
		ask := func() error {
			err := askOffsets(ctx, cl, leader, req, offsets)
			if err != nil {
				return fmt.Errorf("list offsets of %s at broker %d: %w", t.Name, leader, err)
			}
			return nil
		}
		if len(byLeader) == 1 {
			return offsets, ask()
		}
		g.Go(ask)
	}
	return offsets, g.Wait()
}

// askOffsets fills in what one leader says.
func askOffsets(ctx context.Context, cl *kgo.Client, leader int32, req *kmsg.ListOffsetsRequest, offsets []int64) error {
	kr, err := cl.Broker(int(leader)).Request(ctx, req)
	if err != nil {
		return err
	}
	answered := 0
	for _, t := range kr.(*kmsg.ListOffsetsResponse).Topics {
		for _, p := range t.Partitions {
			// OFFSET_NOT_AVAILABLE (KIP-207) is one of these: a new leader does not know its high watermark yet.
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fmt.Errorf("partition %d: %w", p.Partition, err)
			}
			if p.Offset < 0 || int(p.Partition) >= len(offsets) {
				return fmt.Errorf("partition %d: %w", p.Partition, errShort)
			}
			offsets[p.Partition] = p.Offset
			answered++
		}
	}
	if answered != len(req.Topics[0].Partitions) {
		return errShort
	}
	return nil
}
