package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kkv-project/kkv/test/apachekafka"
	"github.com/kkv-project/kkv/test/harness"
)

// sortSlices compares slices without regard to their order.
func sortSlices[T any](less func(a, b T) bool) cmp.Option { return cmpopts.SortSlices(less) }

// testLargeValue takes 5 MB of incompressible bytes through the gateway and the native route.
func testLargeValue(t *testing.T, e env) {
	topic := topicName(t)
	if e.kafka != nil {
		// Apache Kafka takes 1 MB unless its topic is told otherwise; `kkv dev` serves a topic that is there as it is.
		e.kafka.CreateTopic(topic, 1, map[string]string{"cleanup.policy": "compact", "max.message.bytes": "8000000"})
	}
	d := e.devOn(t, topic)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	value := make([]byte, 5<<20)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)}).Read(value)

	read := func(key string) {
		t.Helper()
		for _, target := range []string{raw(key), native(topic, key)} {
			res := harness.Do(t, d.Cache, "GET", target)
			if res.Status != 200 || !bytes.Equal(res.Body, value) {
				t.Fatalf("GET %s: status %d, %d bytes, want the %d that were put", target, res.Status, len(res.Body), len(value))
			}
		}
	}
	wantStatus(t, "produce 5 MB", harness.DoBody(t, d.Gateway, "POST", produceTo(topic, "by-gateway"), value, "Content-Type: application/octet-stream"), 200)
	read("by-gateway")
	value[0]++
	wantStatus(t, "PUT 5 MB", harness.DoBody(t, d.Cache, "PUT", native(topic, "by-put"), value), 200)
	read("by-put")
}

// TestApacheKafkaTooLarge: what the broker refuses for its size is the caller's to mend, and says so.
func TestApacheKafkaTooLarge(t *testing.T) {
	e := env{apachekafka.Start(t)}
	d := e.dev(t)
	value := bytes.Repeat([]byte("incompressible? no, but the limit counts what is stored; "), 100_000)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(value)
	res := harness.DoBody(t, d.Gateway, "POST", produceTo(d.Topic, "k"), value, "Content-Type: application/octet-stream")
	if res.Status < 400 || !bytes.Contains(res.Body, []byte("max.message.bytes")) {
		t.Errorf("produce above the topic's limit: %s, want an error that names max.message.bytes", res)
	}
	wantStatus(t, "GET after it", harness.Do(t, d.Cache, "GET", raw("k")), 404)
}

// testNullAndEmpty: a null value is a delete, an empty one is a value.
func testNullAndEmpty(t *testing.T, e env) {
	s, producer := e.serve(t, 1, nil)
	key := []byte("k")
	await := func(what string, status int, value string) {
		t.Helper()
		harness.Eventually(t, harness.StartTimeout, s.Process, func() error {
			res := harness.Do(t, s.URL, "GET", "/cache/v1/raw/k")
			if res.Status != status || string(res.Body) != value {
				return fmt.Errorf("%s: got %s, want %d %q", what, res, status, value)
			}
			return nil
		})
	}
	keys := func(want string) {
		t.Helper()
		wantValue(t, "keys", harness.Do(t, s.URL, "GET", "/cache/v1/keys"), want)
	}
	producer.MustSend(t, harness.Record(0, key, []byte("v")))
	await("put", 200, "v")
	producer.MustSend(t, harness.Record(0, key, nil))
	await("null value", 404, "")
	keys("")
	producer.MustSend(t, harness.Record(0, key, []byte{}))
	await("empty value", 200, "")
	keys("k\n")
	wantValue(t, "values", harness.Do(t, s.URL, "GET", "/cache/v1/values"), "\n")
	// A delete of what is not there, and a put after it.
	producer.MustSend(t, harness.Record(0, []byte("never"), nil), harness.Record(0, key, []byte("again")))
	await("put again", 200, "again")
	keys("k\n")
}

// testNullKey: a record without a key cannot be asked for; it is passed over, and counted.
func testNullKey(t *testing.T, e env) {
	bootstrap, topic := e.broker(t), topicName(t)
	// Apache Kafka refuses null keys in a compacted topic.
	apachekafka.CreateTopic(t, bootstrap, topic, 1, map[string]string{"cleanup.policy": "delete"})
	s := harness.StartServe(t, bootstrap, topic, nil)
	s.AwaitReady(t)
	producer := harness.NewProducer(t, bootstrap, topic)
	producer.MustSend(t, harness.Record(0, nil, []byte("no key")), harness.Record(0, nil, nil), harness.Record(0, []byte("k"), []byte("v")))
	harness.Eventually(t, harness.StartTimeout, s.Process, func() error {
		if res := harness.Do(t, s.URL, "GET", "/cache/v1/raw/k"); res.Status != 200 {
			return fmt.Errorf("the record after two without a key: %s", res)
		}
		return nil
	})
	wantValue(t, "keys", harness.Do(t, s.URL, "GET", "/cache/v1/keys"), "k\n")
	wantMetric(t, s, `kkv_onupdate_suppressed_total{suppress_reason="null_key"}`, 2)
}
