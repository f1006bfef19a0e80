// Package kafkaproof proves on Apache Kafka what the in-process broker cannot show (GUARANTEES rule 21): control records and
// aborted data as a broker really stores them, compaction, quotas, leaders that are killed, and logs that are cut. kkv runs as a
// process, the broker is the reference: what a plain consumer reads is what kkv has to serve.
package kafkaproof

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kkv-project/kkv/test/apachekafka"
	"github.com/kkv-project/kkv/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// patience bounds everything that is waited for; it is far above what is promised.
const patience = 60 * time.Second

// one is what is proved on one broker.
var one = []struct {
	name string
	test func(*testing.T, *kafka)
}{
	{"Compaction", testCompaction}, // first: it waits most
	{"CompactedTail", testCompactedTail},
	{"Suspended", testSuspended},
	{"Markers", testMarkers},
	{"OpenTransaction", testOpenTransaction},
	{"Commits", testCommits},
	{"LogStart", testLogStart},
	{"HeadDeletedWhileLoading", testHeadDeletedWhileLoading},
	{"PartitionsAdded", testPartitionsAdded},
	{"TopicMadeAnew", testTopicMadeAnew},
	{"TopicGone", testTopicGone},
	{"FiftyPartitions", testFiftyPartitions},
	{"BusyTopic", testBusyTopic},
	{"ReadYourWrites", testReadYourWrites},
}

// TestOneBroker runs them side by side on one broker, whose cleaner and retention look often.
func TestOneBroker(t *testing.T) {
	b := apachekafka.Start(t, apachekafka.WithProperty("log.cleaner.backoff.ms", "200"),
		apachekafka.WithProperty("log.retention.check.interval.ms", "500"), apachekafka.WithProperty("log.initial.task.delay.ms", "500"))
	k := connect(t, b.Bootstrap)
	for _, s := range one {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			s.test(t, k)
		})
	}
}

// kafka is a cluster under test with a client for questions to it.
type kafka struct {
	bootstrap string // one or more addresses, comma-separated
	client    *kgo.Client
	admin     *kadm.Client
}

func connect(t testing.TB, bootstrap string) *kafka {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(bootstrap, ",")...), kgo.MetadataMinAge(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &kafka{bootstrap, client, kadm.NewClient(client)}
}

var notInTopics = regexp.MustCompile(`[^a-zA-Z0-9]+`)

// topic creates the test's topic, compacted, and returns its name.
func (k *kafka) topic(t testing.TB, partitions int32, configs map[string]string) string {
	t.Helper()
	name := strings.ToLower(notInTopics.ReplaceAllString(t.Name(), "-"))
	k.create(t, name, partitions, configs)
	return name
}

func (k *kafka) create(t testing.TB, name string, partitions int32, configs map[string]string) {
	t.Helper()
	all := map[string]string{"cleanup.policy": "compact"}
	for n, v := range configs {
		all[n] = v
	}
	apachekafka.CreateTopic(t, k.bootstrap, name, partitions, all)
}

// deleteRecords moves the partition's log start to offset, as DeleteRecords of Kafka's tools does.
func (k *kafka) deleteRecords(t testing.TB, topic string, partition int32, offset int64) {
	t.Helper()
	var offsets kadm.Offsets
	offsets.AddOffset(topic, partition, offset, -1)
	deleted, err := k.admin.DeleteRecords(t.Context(), offsets)
	if err == nil {
		err = deleted.Error()
	}
	if err != nil {
		t.Fatalf("delete records of %s/%d below %d: %v", topic, partition, offset, err)
	}
}

func (k *kafka) producing(topic string) []kgo.Opt {
	return []kgo.Opt{kgo.SeedBrokers(strings.Split(k.bootstrap, ",")...), kgo.DefaultProduceTopic(topic),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0), kgo.MetadataMinAge(50 * time.Millisecond),
		kgo.UnknownTopicRetries(-1)} // that a topic was created is answered before each broker knows of it
}

// producer writes as a client of its own, each record to the partition that it names.
func (k *kafka) producer(t testing.TB, topic string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append(k.producing(topic), opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// record of a partition; a nil value is a tombstone.
func record(partition int32, key string, value []byte) *kgo.Record {
	return harness.Record(partition, []byte(key), value)
}

// send writes and waits until all is acknowledged.
func send(t testing.TB, client *kgo.Client, records ...*kgo.Record) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		t.Fatalf("produce: %v", err)
	}
}

// begin starts a transaction, of a client with a transactional ID, and writes into it.
func begin(t testing.TB, client *kgo.Client, records ...*kgo.Record) {
	t.Helper()
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	send(t, client, records...)
}

// end commits the transaction or aborts it.
func end(t testing.TB, client *kgo.Client, how kgo.TransactionEndTry) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := client.EndTransaction(ctx, how); err != nil {
		t.Fatalf("end transaction: %v", err)
	}
}

// read returns every record that a plain consumer of committed records gets, per partition in the log's order, control records
// included, up to the last stable offset.
func (k *kafka) read(t testing.TB, topic string) []*kgo.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	starts, err := k.admin.ListStartOffsets(ctx, topic)
	if err != nil || starts.Error() != nil {
		t.Fatal(err, starts.Error())
	}
	ends, err := k.admin.ListCommittedOffsets(ctx, topic)
	if err != nil || ends.Error() != nil {
		t.Fatal(err, ends.Error())
	}
	left := map[int32]int64{} // partition -> where it ends
	ends.Each(func(o kadm.ListedOffset) {
		if s, _ := starts.Lookup(topic, o.Partition); s.Offset < o.Offset {
			left[o.Partition] = o.Offset
		}
	})
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(k.bootstrap, ",")...), kgo.ConsumeTopics(topic),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var all []*kgo.Record
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("a plain consumer has not reached %v of %s after %d records", left, topic, len(all))
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if end, ok := left[r.Partition]; ok {
				all = append(all, r)
				if r.Offset+1 >= end {
					delete(left, r.Partition)
				}
			}
		})
	}
	return all
}

// fold is what a log's records come to. In these tests each key stays in one partition.
func fold(records []*kgo.Record) map[string]string {
	state := map[string]string{}
	for _, r := range records {
		switch {
		case r.Attrs.IsControl() || r.Key == nil:
		case r.Value == nil:
			delete(state, string(r.Key))
		default:
			state[string(r.Key)] = string(r.Value)
		}
	}
	return state
}
