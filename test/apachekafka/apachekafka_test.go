package apachekafka

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestKillAndRestart holds what the other suites build on: an acknowledged record outlives SIGKILL, a property reaches the
// broker, and the address stays.
func TestKillAndRestart(t *testing.T) {
	began := time.Now()
	b := Start(t, WithProperty("message.max.bytes", "6000000"))
	t.Logf("ready after %v", time.Since(began))
	b.CreateTopic("t", 1, map[string]string{"cleanup.policy": "compact", "max.message.bytes": "6000000"})

	client, err := kgo.NewClient(kgo.SeedBrokers(b.Bootstrap), kgo.ConsumeTopics("t"), kgo.DefaultProduceTopic("t"),
		kgo.ProducerBatchMaxBytes(6_000_000), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	value := make([]byte, 5_000_000)
	if err := client.ProduceSync(ctx, kgo.KeySliceRecord([]byte("k"), value)).FirstErr(); err != nil {
		t.Fatal(err)
	}

	b.Kill()
	began = time.Now()
	b.Restart()
	t.Logf("ready again after SIGKILL after %v", time.Since(began))
	for {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatal("the record is gone")
		}
		if records := fetches.Records(); len(records) > 0 {
			if len(records[0].Value) != len(value) {
				t.Fatalf("value of %d bytes, want %d", len(records[0].Value), len(value))
			}
			break
		}
	}

	began = time.Now()
	b.Stop()
	t.Logf("stopped after %v", time.Since(began))
	b.Restart()
}
