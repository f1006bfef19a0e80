package kafkaproof

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kkv-project/kkv/test/harness"
)

// eager makes a topic whose every record can be compacted away within a second or two, tombstones too.
var eager = map[string]string{"segment.ms": "100", "delete.retention.ms": "100", "min.cleanable.dirty.ratio": "0.01"}

// compact writes until the log meets the condition. A segment is rolled by a write, and only rolled ones are cleaned; a tombstone
// goes in the second cleaning after its first, and no sooner than delete.retention.ms.
func (k *kafka) compact(t *testing.T, topic string, write func(), done func(log []*kgo.Record) bool) {
	t.Helper()
	began, last := time.Now(), time.Time{}
	harness.Eventually(t, patience, nil, func() error {
		if time.Since(last) < 150*time.Millisecond {
			return fmt.Errorf("not compacted")
		}
		write()
		last = time.Now()
		log := k.read(t, topic)
		if !done(log) {
			return fmt.Errorf("not compacted: %d records left", len(log))
		}
		return nil
	})
	t.Logf("compacted after %v", time.Since(began).Round(time.Millisecond))
}

// testCompaction: the tombstone of a deleted key is compacted away. A replica that has seen it resumes a watch from before exactly; one
// that was started later cannot know, and says reset.
func testCompaction(t *testing.T, k *kafka) {
	topic := k.topic(t, 1, eager)
	plain := k.producer(t, topic)
	for i := range 20 {
		send(t, plain, record(0, fmt.Sprint("key-", i), []byte("1")))
	}
	old := k.serve(t, topic)
	before := old.want(t, "key-7", "1", fresh)
	send(t, plain, record(0, "key-7", nil), record(0, "key-8", []byte("2")))
	n := 0
	k.compact(t, topic, func() {
		n++
		send(t, plain, record(0, "filler", fmt.Append(nil, n)))
	}, func(log []*kgo.Record) bool {
		return !slices.ContainsFunc(log, func(r *kgo.Record) bool { return string(r.Key) == "key-7" })
	})

	young := k.serve(t, topic)
	young.wantLog(t, k)
	old.wantLog(t, k)
	young.want(t, "key-7", "", atLeast(before))
	end := young.status(t).Partitions[0].Position
	old.wantPositions(t, end)

	// The reset is followed by the whole state, in which the key is not.
	got := brief(young.watch(t, before).until(synced))
	if len(got) != 22 || got[0] != "reset beyond-horizon" || slices.ContainsFunc(got, func(e string) bool { return e == "put key-7=1" }) {
		t.Errorf("watch of the younger replica: %d events %q, want a reset, 20 puts without key-7, synced", len(got), got)
	}
	got = brief(old.watch(t, before).until(synced))
	slices.Sort(got)
	want := []string{"delete key-7", fmt.Sprint("put filler=", n), "put key-8=2", "synced"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("watch of the replica that has run since (-want +got):\n%s", diff)
	}
	// What the younger one has seen itself it can resume from.
	here := young.want(t, "key-8", "2", fresh)
	send(t, plain, record(0, "key-9", nil))
	young.want(t, "key-9", "", fresh)
	if diff := cmp.Diff([]string{"delete key-9", "synced"}, brief(young.watch(t, here).until(synced))); diff != "" {
		t.Errorf("watch of the younger replica since its own position (-want +got):\n%s", diff)
	}
}

// testCompactedTail: a partition in which nothing is left but the marker of an aborted transaction; a poll shows none of it.
func testCompactedTail(t *testing.T, k *kafka) {
	topic := k.topic(t, 1, eager)
	plain, tx := k.producer(t, topic), k.producer(t, topic, kgo.TransactionalID(topic))
	for range 5 {
		send(t, plain, record(0, "a", []byte("1")))
	}
	send(t, plain, record(0, "a", nil))
	k.compact(t, topic, func() {
		begin(t, tx, record(0, "a", []byte("aborted")))
		end(t, tx, kgo.TryAbort)
	}, func(log []*kgo.Record) bool {
		return !slices.ContainsFunc(log, func(r *kgo.Record) bool { return !r.Attrs.IsControl() })
	})
	r := k.serve(t, topic)
	r.wantLog(t, k)
	r.want(t, "a", "", fresh)
	if p := r.status(t).Partitions[0]; p.Position < 8 {
		t.Errorf("position %d, want that behind the markers", p.Position)
	}
}

// testSuspended: a replica is suspended, as a laptop or a virtual machine is, while a key is deleted and the tombstone compacted away. What
// it reads when it goes on does not tell it; it must not show the key (GUARANTEES rule 10). Six
// seconds, since reading that goes on as usual may be up to five behind.
func testSuspended(t *testing.T, k *kafka) {
	topic := k.topic(t, 1, eager)
	plain := k.producer(t, topic)
	for i := range 10 {
		send(t, plain, record(0, fmt.Sprint("key-", i), []byte("1")))
	}
	r := k.serve(t, topic)
	before := r.want(t, "key-7", "1", fresh)
	r.Signal(syscall.SIGSTOP)
	stopped := time.Now()
	send(t, plain, record(0, "filler", []byte("0"))) // the answer to the fetch that was under way
	send(t, plain, record(0, "key-7", nil), record(0, "key-8", []byte("2")))
	k.compact(t, topic, func() {
		send(t, plain, record(0, "filler", []byte("1")))
	}, func(log []*kgo.Record) bool {
		return time.Since(stopped) > 6*time.Second && !slices.ContainsFunc(log, func(r *kgo.Record) bool { return string(r.Key) == "key-7" })
	})
	r.Signal(syscall.SIGCONT)
	r.want(t, "key-8", "2", fresh)
	r.want(t, "key-7", "", fresh)
	r.wantLog(t, k)
	// Nor does a watch from before show it.
	state := map[string]string{"key-7": "1"}
	for _, e := range r.watch(t, before).until(synced) {
		switch e.Type {
		case "reset":
			clear(state)
		case "put":
			state[e.Key] = e.value()
		case "delete":
			delete(state, e.Key)
		}
	}
	if v, ok := state["key-7"]; ok {
		t.Errorf("who resumes a watch from before still has key-7=%s", v)
	}
}
