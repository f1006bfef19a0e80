package kafka

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/semaphore"
)

// Message is one record to produce. It must not be modified until its produce
// has ended.
type Message struct {
	Topic     string
	Partition int32  // -1: chosen by the key; anything else is taken as it is
	Key       []byte // nil: no key, which a compacted topic refuses; empty is a key
	Value     []byte // nil: a tombstone, which deletes the key; empty is a value
	Headers   []Header
}

// Header is one header of a record. Keys may repeat.
type Header struct {
	Key   string
	Value []byte
}

// Ack is Kafka's word that a record stands in the log of every in-sync replica.
type Ack struct {
	Partition int32
	Offset    int64
	// Timestamp is the record's, to the millisecond, as it was sent: the
	// broker replaces it if the topic has message.timestamp.type=LogAppendTime.
	Timestamp time.Time
	// TopicID is the topic's when the producer last asked for it: at the first
	// record and again after each lost connection. Zero before Kafka 2.8.
	TopicID [16]byte
}

// ErrClosed is the cause when a producer is asked for something after Close.
var ErrClosed = errors.New("the producer is closed")

// bufferBytes bounds the records that wait for Kafka in one producer.
const bufferBytes = 128 << 20

// Producer writes records: idempotent, acks=all, without lingering, in the
// order in which calls returned, per partition. It is safe for concurrent use.
//
// Records are handed to the Kafka client only while Kafka is in reach, and
// without the caller's context. The first is because the client gives up a
// record only together with everything behind it in its partition, and only
// before its first try; a caller that waits outside can give up at any time
// and know that its record is not written. The second is because one caller
// that goes away must not take others' records with it.
type Producer struct {
	cl       *kgo.Client // for all but records of topics that were reset
	opts     []kgo.Opt
	delivery time.Duration
	buffer   *semaphore.Weighted
	limits   sync.Map      // topic -> int32, the largest batch, for kgo
	breaks   atomic.Uint64 // connections lost or refused so far
	closed   atomic.Bool
	again    sync.WaitGroup // records being sent anew

	mu     sync.Mutex
	topics map[string]*producerTopic
	after  map[int]*successor // clients of topics that were reset so many times
}

// NewProducer makes a producer; it connects with the first record. The extra
// options come last and so win.
func NewProducer(c Config, extra ...kgo.Opt) (*Producer, error) {
	opts, err := c.Options()
	if err != nil {
		return nil, err
	}
	p := &Producer{buffer: semaphore.NewWeighted(bufferBytes), topics: map[string]*producerTopic{}, after: map[int]*successor{}}
	props := properties(c.Properties)
	if p.delivery, err = props.duration("delivery.timeout.ms", defaultDeliveryTimeout, time.Second); err != nil {
		return nil, err
	}
	codec, err := compression(props)
	if err != nil {
		return nil, err
	}
	hash, err := partitionerNamed(c.Partitioner)
	if err != nil {
		return nil, err
	}
	opts = append(opts,
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(0),
		kgo.ProducerBatchCompression(codec, kgo.NoCompression()),
		kgo.RecordPartitioner(hash),
		kgo.ProducerBatchMaxBytesFn(p.limit),
		kgo.MaxBufferedRecords(1<<20), // bounded by p.buffer
		kgo.RecordDeliveryTimeout(p.delivery),
		kgo.UnknownTopicRetries(3),
		kgo.MetadataMinAge(250*time.Millisecond), // a new leader is found soon
		kgo.WithHooks(connectionHooks{&p.breaks}),
	)
	p.opts = append(opts, extra...)
	if p.cl, err = kgo.NewClient(p.opts...); err != nil {
		return nil, fmt.Errorf("kafka producer: %w", err)
	}
	return p, nil
}

// Client is the producer's connection, for metadata and admin requests; it
// ends with the producer.
func (p *Producer) Client() *kgo.Client { return p.cl }

// Produce writes one record and waits until it is acknowledged or ctx ends.
// Its error is a *ProduceError; OutcomeUnknown tells whether the record may
// have been written all the same. A topic that does not exist (errors.Is
// kerr.UnknownTopicOrPartition) and a record that is too large (errors.Is
// kerr.MessageTooLarge) are refused at once.
func (p *Producer) Produce(ctx context.Context, m Message) (Ack, error) {
	type result struct {
		ack Ack
		err error
	}
	answered := make(chan result, 1)
	p.ProduceAsync(ctx, m, func(a Ack, err error) { answered <- result{a, err} })
	select {
	case r := <-answered:
		return r.ack, r.err
	default:
	}
	select {
	case r := <-answered:
		return r.ack, r.err
	case <-ctx.Done():
		return Ack{}, &ProduceError{Topic: m.Topic, Unknown: true, Err: fmt.Errorf("no acknowledgement in time: %w", ctx.Err())}
	}
}

// ProduceAsync accepts one record and later calls done, exactly once, from
// another goroutine or, if the record is refused, before it returns. done
// must not block. ctx bounds only the acceptance, which waits while Kafka is
// out of reach or too much is under way; an accepted record is tried until
// delivery.timeout.ms (30 s) has passed, and longer while its outcome is open.
func (p *Producer) ProduceAsync(ctx context.Context, m Message, done func(Ack, error)) {
	if p.closed.Load() {
		done(Ack{}, &ProduceError{Topic: m.Topic, Err: ErrClosed})
		return
	}
	p.accept(ctx, m, false, done)
}

func (p *Producer) accept(ctx context.Context, m Message, resent bool, done func(Ack, error)) {
	t, known, err := p.topic(ctx, m)
	if err != nil {
		done(Ack{}, &ProduceError{Topic: m.Topic, Err: err})
		return
	}
	weight := min(recordSize(m)+512, bufferBytes)
	if err := p.buffer.Acquire(ctx, weight); err != nil {
		done(Ack{}, &ProduceError{Topic: m.Topic, Err: fmt.Errorf("too many records wait for Kafka already: %w", err)})
		return
	}
	finish := func(r *kgo.Record, err error) {
		p.buffer.Release(weight)
		p.finish(t, known, m, resent, r, err, done)
	}
	t.enqueue.RLock()
	defer t.enqueue.RUnlock()
	if err := ctx.Err(); err != nil { // a wait for the lock ends too late
		p.buffer.Release(weight)
		done(Ack{}, &ProduceError{Topic: m.Topic, Err: err})
		return
	}
	t.inflight.add()
	t.cl.TryProduce(context.Background(), record(m), finish)
}

// finish is the Kafka client's answer about one record. It runs on the
// client's own goroutine and so must not wait for the client.
func (p *Producer) finish(t *producerTopic, known *topicFacts, m Message, resent bool, r *kgo.Record, err error, done func(Ack, error)) {
	t.inflight.done()
	if err == nil {
		ack := Ack{Partition: r.Partition, Offset: r.Offset, Timestamp: r.Timestamp, TopicID: known.id}
		if sure := t.sure.Load(); sure != nil && *sure == known.id {
			done(ack, nil)
		} else {
			p.again.Go(func() { p.confirm(t, sure, ack, done) })
		}
		return
	}
	switch {
	case errors.Is(err, kerr.UnknownTopicID), errors.Is(err, kerr.UnknownTopicOrPartition):
		// The topic was deleted, and perhaps made anew, which kgo never
		// adopts by itself. The old topic's log is gone in any case.
		t.stale.Store(true)
		t.known.Store(nil)
		if !resent {
			p.again.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), p.delivery)
				defer cancel()
				p.accept(ctx, m, true, done)
			})
			return
		}
	case errors.Is(err, kerr.MessageTooLarge):
		err = tooLarge(m, known)
		t.known.Store(nil) // the limit was lowered: ask for it again
	}
	done(Ack{}, &ProduceError{Topic: m.Topic, Unknown: produceUnknown(err), Err: err})
}

// confirm calls done once it is known in which incarnation the record stands. kgo asks for a topic's ID itself, some time
// after learn did, and keeps to it; an ID never comes back, so if Kafka still says what learn heard, kgo heard it, too.
// Else the topic was made anew in between, and the record may stand in either log.
func (p *Producer) confirm(t *producerTopic, was *[16]byte, ack Ack, done func(Ack, error)) {
	ctx, cancel := context.WithTimeout(context.Background(), p.delivery)
	defer cancel()
	found, err := Metadata(ctx, p.cl, t.name)
	switch {
	case err == nil && found.ID == ack.TopicID:
		t.sure.CompareAndSwap(was, &found.ID) // unless kgo was made to forget the topic meanwhile
	case err == nil, errors.Is(err, kerr.UnknownTopicOrPartition):
		t.stale.Store(true)
		t.known.Store(nil)
		done(Ack{}, &ProduceError{Topic: t.name, Unknown: true, Err: fmt.Errorf("the topic was deleted while the record was written: %w", kerr.UnknownTopicID)})
		return
	}
	done(ack, nil) // acknowledged, whatever keeps Kafka from answering now
}

// Close refuses new records, waits until those accepted have been answered or
// ctx ends, and then ends the connection. Records that are still open then
// fail with their outcome unknown. It must be called once.
func (p *Producer) Close(ctx context.Context) error {
	p.closed.Store(true)
	err := p.flush(ctx)
	if err == nil {
		// What was flushed may be on its way for the second and last time.
		resent := make(chan struct{})
		go func() { p.again.Wait(); close(resent) }()
		select {
		case <-resent:
			err = p.flush(ctx)
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	for _, cl := range p.clients() {
		cl.Close()
	}
	if err != nil {
		return fmt.Errorf("flush the Kafka producer: %w", err)
	}
	return nil
}

func record(m Message) *kgo.Record {
	r := &kgo.Record{Topic: m.Topic, Key: m.Key, Value: m.Value}
	if len(m.Headers) > 0 {
		r.Headers = make([]kgo.RecordHeader, len(m.Headers))
		for i, h := range m.Headers {
			r.Headers[i] = kgo.RecordHeader{Key: h.Key, Value: h.Value}
		}
	}
	if m.Partition >= 0 {
		r.Context = pinned{context.Background(), m.Partition}
	}
	return r
}

// recordSize is an upper bound of a record batch of just this record, without
// compression: 61 bytes of batch header and the record's varints.
func recordSize(m Message) int64 {
	n := 61 + 40 + len(m.Key) + len(m.Value)
	for _, h := range m.Headers {
		n += 10 + len(h.Key) + len(h.Value)
	}
	return int64(n)
}

func tooLarge(m Message, known *topicFacts) error {
	allowed := ""
	if known.exact {
		allowed = fmt.Sprintf("=%d", known.limit)
	}
	return fmt.Errorf("a record of %d bytes is larger than topic %s allows (max.message.bytes%s); send less, or raise it with "+
		"kafka-configs --alter --topic %s --add-config max.message.bytes=…: %w",
		len(m.Key)+len(m.Value), m.Topic, allowed, m.Topic, kerr.MessageTooLarge)
}

func compression(p properties) (kgo.CompressionCodec, error) {
	name, err := p.word("compression.type", "none")
	if err != nil {
		return kgo.CompressionCodec{}, err
	}
	switch name {
	case "none":
		return kgo.NoCompression(), nil
	case "gzip":
		return kgo.GzipCompression(), nil
	case "snappy":
		return kgo.SnappyCompression(), nil
	case "lz4":
		return kgo.Lz4Compression(), nil
	case "zstd":
		return kgo.ZstdCompression(), nil
	}
	return kgo.CompressionCodec{}, fmt.Errorf("Kafka property compression.type=%s: it must be none, gzip, snappy, lz4 or zstd", name)
}

// connectionHooks count what makes a producer doubt that Kafka is in reach.
type connectionHooks struct{ breaks *atomic.Uint64 }

func (h connectionHooks) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if err != nil {
		h.breaks.Add(1)
	}
}

func (h connectionHooks) OnBrokerDisconnect(kgo.BrokerMetadata, net.Conn) { h.breaks.Add(1) }

// pinned marks a record whose partition the caller chose. It travels as the
// record's context because kgo overwrites the Partition field while it
// partitions.
type pinned struct {
	context.Context
	partition int32
}

func partitionerNamed(name string) (kgo.Partitioner, error) {
	switch name {
	case "", "murmur2":
		return partitioner{kgo.StickyKeyPartitioner(nil)}, nil
	case "fnv1a":
		return partitioner{kgo.StickyKeyPartitioner(kgo.SaramaCompatHasher(func(b []byte) uint32 {
			h := fnv.New32a()
			h.Write(b)
			return h.Sum32()
		}))}, nil
	}
	return nil, fmt.Errorf("partitioner %q is not known: use murmur2 (as Java clients) or fnv1a (as Sarama and kafka-pixy)", name)
}

// partitioner honours pinned partitions and leaves the rest to another.
type partitioner struct{ kgo.Partitioner }

func (p partitioner) ForTopic(t string) kgo.TopicPartitioner {
	return &topicPartitioner{p.Partitioner.ForTopic(t)}
}

type topicPartitioner struct{ kgo.TopicPartitioner }

func (p *topicPartitioner) RequiresConsistency(r *kgo.Record) bool {
	_, ok := r.Context.(pinned)
	return ok || p.TopicPartitioner.RequiresConsistency(r)
}

func (p *topicPartitioner) Partition(r *kgo.Record, n int) int {
	if pin, ok := r.Context.(pinned); ok {
		return int(pin.partition)
	}
	return p.TopicPartitioner.Partition(r, n)
}

func (p *topicPartitioner) OnNewBatch() {
	if b, ok := p.TopicPartitioner.(kgo.TopicPartitionerOnNewBatch); ok {
		b.OnNewBatch()
	}
}
