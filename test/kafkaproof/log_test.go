package kafkaproof

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kkv-project/kkv/test/apachekafka"
	"github.com/kkv-project/kkv/test/harness"
)

// testMarkers: partitions that end in a commit marker, in an abort marker, in nothing but one, and not at all. All count as
// read, before the start and after it, and what was aborted is never seen.
func testMarkers(t *testing.T, k *kafka) {
	topic := k.topic(t, 4, nil)
	plain, tx := k.producer(t, topic), k.producer(t, topic, kgo.TransactionalID(topic))
	send(t, plain, record(0, "a", []byte("1")), record(1, "b", []byte("1")))
	begin(t, tx, record(0, "a", []byte("2")))
	end(t, tx, kgo.TryCommit)
	begin(t, tx, record(1, "b", []byte("aborted")), record(2, "c", []byte("aborted")))
	end(t, tx, kgo.TryAbort)

	r := k.serve(t, topic)
	r.wantPositions(t, 3, 3, 2, 0)
	w := r.watch(t, "")
	if diff := cmp.Diff([]string{"put a=2", "put b=1", "synced"}, brief(w.until(synced))); diff != "" {
		t.Fatalf("state (-want +got):\n%s", diff)
	}
	for i := range 10 {
		begin(t, tx, record(0, "a", []byte("aborted")), record(3, "d", []byte("aborted")))
		end(t, tx, kgo.TryAbort)
		r.want(t, "a", "2", fresh)
		r.want(t, "d", "", fresh)
		if i == 0 {
			r.wantPositions(t, 5, 3, 2, 2)
		}
	}
	begin(t, tx, record(3, "d", []byte("1")))
	end(t, tx, kgo.TryCommit)
	if diff := cmp.Diff([]string{"put d=1"}, brief(w.until(isKey("put", "d")))); diff != "" {
		t.Fatalf("live (-want +got):\n%s", diff)
	}
	r.wantLog(t, k)
}

// testOpenTransaction: what lies behind an open transaction is not served yet, although it is acknowledged, and whoever asks
// for it is told why; what was stable at the start makes ready.
func testOpenTransaction(t *testing.T, k *kafka) {
	topic := k.topic(t, 1, nil)
	plain, tx := k.producer(t, topic), k.producer(t, topic, kgo.TransactionalID(topic))
	send(t, plain, record(0, "a", []byte("1")))
	begin(t, tx, record(0, "b", []byte("1")))
	send(t, plain, record(0, "c", []byte("1")))

	r := k.serve(t, topic)
	r.want(t, "a", "1")
	r.want(t, "b", "")
	r.want(t, "c", "")
	for _, ask := range []string{fresh, atLeast("0:2")} {
		wantProblem(t, ask, r.get(t, "a", ask, "Kkv-Timeout: 1s"), 504, `"reason":"open-transaction"`)
	}
	if p := r.status(t).Partitions[0]; p.Position != 1 || p.End == nil || *p.End != 3 || p.Behind != "open-transaction" {
		t.Errorf("status %+v, want position 1 and end 3, behind for an open transaction", p)
	}
	end(t, tx, kgo.TryCommit)
	r.want(t, "b", "1", fresh)
	r.want(t, "c", "1", atLeast("0:2"))
	r.wantPositions(t, 4)
}

// testCommits: a commit is answered before its markers are written, so that the last stable offset is an answer from the past; a
// fresh read after the answer sees the commit all the same.
func testCommits(t *testing.T, k *kafka) {
	const commits = 300
	topic := k.topic(t, 2, nil)
	tx := k.producer(t, topic, kgo.TransactionalID(topic))
	r := k.serve(t, topic)
	behind := 0 // how often a read by the last stable offset would have been stale
	for i := range commits {
		partition, value := int32(i%2), fmt.Sprint(i)
		rec := record(partition, fmt.Sprint("key-", partition), []byte(value))
		begin(t, tx, rec)
		end(t, tx, kgo.TryCommit)
		if i%3 == 0 { // the question itself takes time, in which the markers arrive
			stable, err := k.admin.ListCommittedOffsets(t.Context(), topic)
			if err != nil {
				t.Fatal(err)
			}
			if o, _ := stable.Lookup(topic, partition); o.Offset <= rec.Offset {
				behind++
			}
		}
		r.want(t, string(rec.Key), value, fresh)
	}
	t.Logf("of %d commits asked about, %d were not below the last stable offset when they had been answered", commits/3, behind)
	r.wantLog(t, k)
}

// testLogStart: partitions whose log starts above 0, empty or not, at the start; and log starts that move while running.
func testLogStart(t *testing.T, k *kafka) {
	topic := k.topic(t, 2, map[string]string{"cleanup.policy": "compact,delete"})
	plain := k.producer(t, topic)
	for i := range 10 {
		send(t, plain, record(0, fmt.Sprint("gone-", i), []byte("1")), record(1, fmt.Sprint("key-", i), []byte("1")))
	}
	k.deleteRecords(t, topic, 0, 10)
	k.deleteRecords(t, topic, 1, 7)
	r := k.serve(t, topic)
	r.wantPositions(t, 10, 10)
	r.wantLog(t, k)

	w := r.watch(t, "")
	w.until(synced)
	k.deleteRecords(t, topic, 1, 9)
	want := []string{"delete key-7 expired", "delete key-8 expired"}
	if diff := cmp.Diff(want, brief(w.until(isKey("delete", "key-8")))); diff != "" {
		t.Fatalf("announced (-want +got):\n%s", diff)
	}
	r.wantLog(t, k)
	send(t, plain, record(0, "new", []byte("1")))
	r.want(t, "new", "1", fresh)
	k.deleteRecords(t, topic, 1, 10)
	w.until(isKey("delete", "key-9"))
	r.wantLog(t, k)
}

// testHeadDeletedWhileLoading: the broker's quota makes the load slow, and what it has not come to yet is deleted.
func testHeadDeletedWhileLoading(t *testing.T, k *kafka) {
	topic := k.topic(t, 1, map[string]string{"cleanup.policy": "compact,delete"})
	plain := k.producer(t, topic, kgo.ProducerBatchCompression(kgo.NoCompression()))
	const records = 3000
	all := make([]*kgo.Record, records)
	for i := range all {
		all[i] = record(0, fmt.Sprint("key-", i), []byte(strings.Repeat("x", 10_000)))
	}
	send(t, plain, all...)
	quota := func(set kadm.AlterClientQuotaOp) {
		entity := kadm.ClientQuotaEntity{{Type: "client-id", Name: &topic}}
		res, err := k.admin.AlterClientQuotas(t.Context(), []kadm.AlterClientQuotaEntry{{Entity: entity, Ops: []kadm.AlterClientQuotaOp{set}}})
		if err != nil || res[0].Err != nil {
			t.Fatal(err, res)
		}
	}
	quota(kadm.AlterClientQuotaOp{Key: "consumer_byte_rate", Value: 3e6})

	r := k.start(t, topic, "--kafka-property", "client.id="+topic)
	harness.Eventually(t, patience, r.Process, func() error {
		if s := r.status(t); s.Ready || len(s.Partitions) == 0 || s.Partitions[0].Position == 0 {
			return fmt.Errorf("not half loaded: %+v", s)
		}
		return nil
	})
	k.deleteRecords(t, topic, 0, records-10)
	quota(kadm.AlterClientQuotaOp{Key: "consumer_byte_rate", Remove: true})
	r.AwaitReady(t)
	if !strings.Contains(r.Output(), "OFFSET_OUT_OF_RANGE") {
		t.Errorf("the load was not interrupted:\n%s", r.Output())
	}
	r.wantLog(t, k)
}

// testPartitionsAdded: a write to a partition that the cache has not heard of is seen by a fresh read and by at-least.
func testPartitionsAdded(t *testing.T, k *kafka) {
	topic := k.topic(t, 1, nil)
	send(t, k.producer(t, topic), record(0, "a", []byte("1")))
	r := k.serve(t, topic)
	w := r.watch(t, "")
	w.until(synced)
	for n := 2; n <= 4; n++ {
		if res, err := k.admin.UpdatePartitions(t.Context(), n, topic); err != nil || res.Error() != nil {
			t.Fatal(err, res.Error())
		}
		apachekafka.AwaitTopic(t, k.client, topic, n)
		key := fmt.Sprint("in-", n-1)
		rec := record(int32(n-1), key, []byte("1"))
		send(t, k.producer(t, topic), rec)
		if n%2 == 0 {
			r.want(t, key, "1", fresh)
		} else {
			r.want(t, key, "1", atLeast(fmt.Sprintf("%d:%d", rec.Partition, rec.Offset)))
		}
		w.until(isKey("put", key))
	}
	r.wantLog(t, k)
}

// testTopicMadeAnew: the topic is deleted and created again under the cache, with fewer records and fewer partitions than before.
func testTopicMadeAnew(t *testing.T, k *kafka) {
	topic := k.topic(t, 3, nil)
	plain := k.producer(t, topic)
	for i := range 20 {
		send(t, plain, record(int32(i%3), fmt.Sprint("old-", i), []byte("1")))
	}
	r := k.serve(t, topic, "--writable")
	old := r.want(t, "old-19", "1", fresh)
	w := r.watch(t, "")
	w.until(synced)
	for round := range 2 {
		k.delete(t, topic)
		k.create(t, topic, 2, nil)
		key := fmt.Sprint("new-", round)
		send(t, k.producer(t, topic), record(1, key, []byte("1")))
		r.want(t, key, "1", fresh) // it waits for the new topic
		r.want(t, "old-19", "")
		wantProblem(t, "a position of the deleted topic", r.get(t, key, atLeast(old)), 409, "position-from-another-topic")
		want := []string{"reset topic-recreated", "put " + key + "=1", "synced"}
		// The record may have come after the load.
		got := brief(w.until(isKey("put", key)))
		if len(got) == 2 {
			got = append(got, brief(w.until(synced))...)
		} else {
			want[1], want[2] = want[2], want[1]
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("announced (-want +got):\n%s", diff)
		}
		seen := brief(r.watch(t, old).until(synced))
		if diff := cmp.Diff([]string{"reset topic-recreated", "put " + key + "=1", "synced"}, seen); diff != "" {
			t.Errorf("watch since a position of the deleted topic (-want +got):\n%s", diff)
		}
		// What is written through this replica is written to, and read from, the topic that there is.
		put := harness.DoBody(t, r.URL, "PUT", r.keyRoute("put"), []byte(key))
		if put.Status != 200 {
			t.Fatalf("PUT: %s", put)
		}
		r.want(t, "put", key, atLeast(put.Header.Get("Kkv-Position")))
		w.until(isKey("put", "put"))
		r.wantLog(t, k)
	}
}

func (k *kafka) delete(t testing.TB, topic string) {
	t.Helper()
	if res, err := k.admin.DeleteTopics(t.Context(), topic); err != nil || res.Error() != nil {
		t.Fatal(err, res.Error())
	}
	// The controller has deleted it; a broker may answer for it a moment longer.
	harness.Eventually(t, patience, nil, func() error {
		details, err := k.admin.ListTopics(t.Context(), topic)
		if err == nil && details.Has(topic) && details[topic].Err == nil {
			return fmt.Errorf("topic %s is still there", topic)
		}
		return err
	})
}

// testTopicGone: the topic is deleted and stays away: the cache serves what it has, says so, and knows no fresh answer.
func testTopicGone(t *testing.T, k *kafka) {
	topic := k.topic(t, 1, nil)
	send(t, k.producer(t, topic), record(0, "a", []byte("1")))
	r := k.serve(t, topic)
	k.delete(t, topic)
	harness.Eventually(t, patience, r.Process, func() error {
		if res := harness.Do(t, r.URL, "GET", "/q/health/ready"); res.Status != 200 || !strings.Contains(string(res.Body), "deleted") {
			return fmt.Errorf("readiness: %s, want 200 and that the topic was deleted", res)
		}
		return nil
	})
	r.want(t, "a", "1")
	wantProblem(t, "fresh", r.get(t, "a", fresh, "Kkv-Timeout: 500ms"), 504, `"reason":"no-leader"`)
}

// testFiftyPartitions: many partitions, and a fresh read of a write to any of them.
func testFiftyPartitions(t *testing.T, k *kafka) {
	const partitions = 50
	topic := k.topic(t, partitions, nil)
	plain := k.producer(t, topic)
	var all []*kgo.Record
	for i := range 20 * partitions {
		all = append(all, record(int32(i%partitions), fmt.Sprint("key-", i), []byte("1")))
	}
	send(t, plain, all...)
	r := k.serve(t, topic)
	r.wantLog(t, k)
	for i := range 2 * partitions {
		key, value := fmt.Sprint("key-", i), fmt.Sprint("again ", i)
		send(t, plain, record(int32(i%partitions), key, []byte(value)))
		r.want(t, key, value, fresh)
	}
	r.wantLog(t, k)
}

// testBusyTopic: writes go on from before the start until after ready.
func testBusyTopic(t *testing.T, k *kafka) {
	topic := k.topic(t, 4, nil)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	acked, ended := make(chan int64, 1), make(chan struct{}) // acked holds the newest count of acknowledged writes
	plain := k.producer(t, topic, kgo.MaxBufferedRecords(1000))
	go func() {
		defer close(ended)
		var n int64
		for i := 0; ctx.Err() == nil; i++ {
			plain.Produce(context.WithoutCancel(ctx), record(int32(i%4), fmt.Sprint("key-", i%1000), fmt.Append(nil, i)), func(_ *kgo.Record, err error) {
				if err != nil {
					t.Errorf("produce: %v", err)
				}
				n++
				select {
				case <-acked:
				default:
				}
				acked <- n
			})
		}
		if err := plain.Flush(context.WithoutCancel(ctx)); err != nil {
			t.Errorf("flush: %v", err)
		}
	}()
	for <-acked < 20_000 {
	}
	before := <-acked
	began := time.Now()
	r := k.serve(t, topic)
	took, during := time.Since(began), <-acked-before
	if during < 100 {
		t.Errorf("only %d writes while the cache started: the topic was not busy", during)
	}
	<-acked // one more: they have not stopped
	t.Logf("ready after %v, in which %d records were written", took.Round(time.Millisecond), during)
	stop()
	<-ended
	r.wantLog(t, k)
}

// testReadYourWrites: written through one replica or the gateway, read on another by the position that was answered.
func testReadYourWrites(t *testing.T, k *kafka) {
	topic := k.topic(t, 3, nil)
	a, b := k.serve(t, topic, "--writable"), k.serve(t, topic, "--writable")
	gateway := harness.Kkv(t, nil, "gateway", "--kafka-bootstrap", k.bootstrap, "--listen", "127.0.0.1:0")
	door := "http://" + gateway.WaitFor(t, `address=(127\.0\.0\.1:[1-9]\d*)`, harness.StartTimeout)[1]
	for i := range 100 {
		key, value := fmt.Sprint("key-", i%7), fmt.Sprint(i)
		written := harness.DoBody(t, a.URL, "PUT", a.keyRoute(key), []byte(value))
		position := written.Header.Get("Kkv-Position")
		if written.Status != 200 || position == "" {
			t.Fatalf("PUT: %s, position %q", written, position)
		}
		b.want(t, key, value, atLeast(position))
		a, b = b, a
	}
	for i := range 50 {
		key, value := fmt.Sprint("by-gateway-", i%7), fmt.Sprint(i)
		written := harness.DoBody(t, door, "POST", "/topics/"+topic+"/messages?key="+key+"&sync", []byte(value))
		position := written.Header.Get("Kkv-Position")
		if written.Status != 200 || position == "" {
			t.Fatalf("POST to the gateway: %s, position %q", written, position)
		}
		b.want(t, key, value, atLeast(position))
		a, b = b, a
	}
	for i := range 7 {
		key := fmt.Sprint("key-", i)
		written := harness.Do(t, a.URL, "DELETE", a.keyRoute(key))
		if written.Status != 200 {
			t.Fatalf("DELETE: %s", written)
		}
		b.want(t, key, "", atLeast(written.Header.Get("Kkv-Position")))
	}
	a.wantLog(t, k)
	b.wantLog(t, k)
}
