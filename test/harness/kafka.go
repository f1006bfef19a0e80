package harness

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Producer writes records to chosen partitions of one topic, as a Kafka client that is no part of kkv.
type Producer struct {
	client *kgo.Client
}

// NewProducer connects; the producer is closed when the test ends. Each call's records of one
// partition in one batch where they fit.
func NewProducer(t testing.TB, bootstrap, topic string) *Producer {
	t.Helper()
	client, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap),
		kgo.DefaultProduceTopic(topic),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.ProducerLinger(20*time.Millisecond),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &Producer{client}
}

// Send writes the records and waits until all are acknowledged; their Offset is set then. Records of one partition keep their
// order.
func (p *Producer) Send(ctx context.Context, records ...*kgo.Record) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return p.client.ProduceSync(ctx, records...).FirstErr()
}

// MustSend is Send that fails the test.
func (p *Producer) MustSend(t testing.TB, records ...*kgo.Record) {
	t.Helper()
	if err := p.Send(t.Context(), records...); err != nil {
		t.Fatalf("produce: %v", err)
	}
}

// Record makes a record for Send. A nil key or value stays null.
func Record(partition int32, key, value []byte) *kgo.Record {
	return &kgo.Record{Partition: partition, Key: key, Value: value}
}
