package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kkv-project/kkv/test/apachekafka"
	"github.com/kkv-project/kkv/test/harness"
	"github.com/kkv-project/kkv/test/port"
)

// await waits until the cache gives the value for the key.
func await(t *testing.T, s *harness.Serve, key, value string) {
	t.Helper()
	harness.Eventually(t, harness.StartTimeout, s.Process, func() error {
		if res := harness.Do(t, s.URL, "GET", raw(key)); res.Status != 200 || string(res.Body) != value {
			return fmt.Errorf("%s: got %s, want %q", key, res, value)
		}
		return nil
	})
}

// testMissingTopic: kkv waits for a topic that is not there, says so, and serves it when somebody makes it.
func testMissingTopic(t *testing.T, e env) {
	bootstrap, topic := e.broker(t), topicName(t)
	s := harness.StartServe(t, bootstrap, topic, nil)
	harness.Eventually(t, harness.StartTimeout, s.Process, func() error {
		res := harness.Do(t, s.URL, "GET", "/q/health/ready")
		if res.Status != 503 || !strings.Contains(string(res.Body), topic) || !strings.Contains(string(res.Body), "DOWN") {
			return fmt.Errorf("readiness: %s, want 503, DOWN and the topic's name", res)
		}
		return nil
	})
	wantStatus(t, "raw before ready", harness.Do(t, s.URL, "GET", "/cache/v1/raw/k"), 503)
	wantStatus(t, "keys before ready", harness.Do(t, s.URL, "GET", "/cache/v1/keys"), 503)
	wantStatus(t, "live", harness.Do(t, s.URL, "GET", "/q/health/live"), 200)
	wantStatus(t, "offset before ready", harness.Do(t, s.URL, "GET", "/cache/v1/offset/"+topic+"/0"), 204)
	// Said once, with what to do.
	s.WaitFor(t, `create-topic`, harness.StartTimeout)

	apachekafka.CreateTopic(t, bootstrap, topic, 2, map[string]string{"cleanup.policy": "compact"})
	s.AwaitReady(t)
	harness.NewProducer(t, bootstrap, topic).MustSend(t, harness.Record(1, []byte("k"), []byte("v")))
	await(t, s, "k", "v")
	if n := strings.Count(s.Output(), "create-topic"); n != 1 {
		t.Errorf("the missing topic is in the log %d times, want once:\n%s", n, s.Output())
	}
}

// testCreateTopic: with --create-topic kkv makes the topic, compacted.
func testCreateTopic(t *testing.T, e env) {
	bootstrap, topic := e.broker(t), topicName(t)
	s := harness.StartServe(t, bootstrap, topic, nil, "--create-topic", "--create-topic-partitions", "4")
	s.AwaitReady(t)
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	details, err := admin.ListTopics(t.Context(), topic)
	if err != nil || len(details[topic].Partitions) != 4 {
		t.Errorf("topic %v (%v), want 4 partitions", details[topic], err)
	}
	configs, err := admin.DescribeTopicConfigs(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	var policy string
	for _, c := range configs[0].Configs {
		if c.Key == "cleanup.policy" {
			policy = c.MaybeValue()
		}
	}
	if policy != "compact" {
		t.Errorf("cleanup.policy %q, want compact", policy)
	}
}

// testVersion1Start starts kkv as deployments of 1.x do: no subcommand, old environment names, a port as a Java property, targets
// with __TOPIC__ in them.
func testVersion1Start(t *testing.T, e env) {
	bootstrap, topic := e.broker(t), topicName(t)
	apachekafka.CreateTopic(t, bootstrap, topic, 1, map[string]string{"cleanup.policy": "compact"})
	hook, second := newReceiver(t), newReceiver(t)
	listen := port.Free(t, 1)[0]
	s := &harness.Serve{URL: "http://127.0.0.1:" + strconv.Itoa(listen), Topic: topic}
	s.Process = harness.Kkv(t, []string{
		"kafka_bootstrap=" + bootstrap, "topic=" + topic, "kafka_group_id=old-group", "kafka_offset_reset=latest", "kafka_max_poll_records=100",
		"target=" + hook.URL + "/hook/__TOPIC__", "target1=" + second.URL + "/second",
	}, fmt.Sprintf("-Dquarkus.http.port=%d", listen))
	s.AwaitAnswer(t)
	s.AwaitReady(t)
	harness.NewProducer(t, bootstrap, topic).MustSend(t, harness.Record(0, []byte("k"), []byte("v")))
	await(t, s, "k", "v")
	hook.awaitKeys(t, s, "k")
	second.awaitKeys(t, s, "k")
	if got := hook.pushes()[0].path; got != "/hook/"+topic {
		t.Errorf("pushed to %s, want /hook/%s", got, topic)
	}
	if got := second.pushes()[0].path; got != "/second" {
		t.Errorf("pushed to %s, want /second", got)
	}
}

// testTermWhileLoading: SIGTERM ends kkv soon, also while it reads a topic.
func testTermWhileLoading(t *testing.T, e env) {
	bootstrap, topic := e.broker(t), topicName(t)
	apachekafka.CreateTopic(t, bootstrap, topic, 1, map[string]string{"cleanup.policy": "compact"})
	producer := harness.NewProducer(t, bootstrap, topic)
	value := make([]byte, 10_000)
	for range 20 {
		producer.MustSend(t, records(500, value)...)
	}
	s := harness.StartServe(t, bootstrap, topic, nil, "--drain", "0s")
	wantEndWithin(t, s.Process, syscall.SIGTERM, 2*time.Second)
}

// TestTermWhileBrokerHangs: a broker that accepts and never answers holds up neither the routes nor the end.
func TestTermWhileBrokerHangs(t *testing.T) {
	s := harness.StartServe(t, hangingBroker(t), "topic", nil)
	wantStatus(t, "ready", harness.Do(t, s.URL, "GET", "/q/health/ready"), 503)
	wantStatus(t, "live", harness.Do(t, s.URL, "GET", "/q/health/live"), 200)
	wantEndWithin(t, s.Process, syscall.SIGTERM, 2*time.Second)
}

// TestEmbeddedBrokerAwayAtStart: kkv serve starts before its broker, and before its topic.
func TestEmbeddedBrokerAwayAtStart(t *testing.T) {
	bootstrap := fmt.Sprintf("127.0.0.1:%d", port.Free(t, 1)[0])
	s := harness.StartServe(t, bootstrap, "late", nil)
	wantStatus(t, "ready without a broker", harness.Do(t, s.URL, "GET", "/q/health/ready"), 503)
	wantStatus(t, "live without a broker", harness.Do(t, s.URL, "GET", "/q/health/live"), 200)
	// The log names the address that cannot be reached.
	s.WaitFor(t, bootstrap, harness.StartTimeout)
	d := harness.StartDev(t, "another", nil, "--kafka-listen", bootstrap)
	s.WaitFor(t, `topic does not exist.*create-topic`, harness.StartTimeout)
	apachekafka.CreateTopic(t, bootstrap, "late", 1, map[string]string{"cleanup.policy": "compact"})
	s.AwaitReady(t)
	wantStatus(t, "produce", harness.DoBody(t, d.Gateway, "POST", produceTo("late", "k"), []byte("v")), 200)
	await(t, s, "k", "v")
}

// TestEmbeddedBrokerAwayLater: the embedded broker is killed and started again under a cache of another process.
func TestEmbeddedBrokerAwayLater(t *testing.T) {
	listen := []string{"--kafka-listen", fmt.Sprintf("127.0.0.1:%d", port.Free(t, 1)[0]), "--data-dir", t.TempDir()}
	d := harness.StartDev(t, "away", nil, listen...)
	s := harness.StartServe(t, d.Kafka, "away", nil)
	s.AwaitReady(t)
	wantStatus(t, "produce", harness.DoBody(t, d.Gateway, "POST", produceTo("away", "a"), []byte("1")), 200)
	await(t, s, "a", "1")
	d.Kill()
	wantValue(t, "a while the broker is away", harness.Do(t, s.URL, "GET", raw("a")), "1")
	wantStatus(t, "ready while the broker is away", harness.Do(t, s.URL, "GET", "/q/health/ready"), 200)
	d = harness.StartDev(t, "away", nil, listen...)
	wantStatus(t, "produce again", harness.DoBody(t, d.Gateway, "POST", produceTo("away", "a"), []byte("2")), 200)
	await(t, s, "a", "2")
}

// TestApacheKafkaAway: Apache Kafka not there at the start, killed later, started again: the cache serves what it has and catches
// up.
func TestApacheKafkaAway(t *testing.T) {
	b := apachekafka.Start(t)
	b.CreateTopic("away", 2, map[string]string{"cleanup.policy": "compact"})
	producer := harness.NewProducer(t, b.Bootstrap, "away")
	producer.MustSend(t, harness.Record(0, []byte("a"), []byte("1")), harness.Record(1, []byte("b"), []byte("1")))
	b.Stop()

	s := harness.StartServe(t, b.Bootstrap, "away", nil)
	wantStatus(t, "ready without a broker", harness.Do(t, s.URL, "GET", "/q/health/ready"), 503)
	b.Restart()
	s.AwaitReady(t)
	await(t, s, "a", "1")

	for round := range 2 {
		b.Kill()
		// The cache stays ready and serves on. Half a second is long enough for it to have noticed.
		for began := time.Now(); time.Since(began) < 500*time.Millisecond; {
			wantStatus(t, "b while Kafka is away", harness.Do(t, s.URL, "GET", raw("b")), 200)
			wantStatus(t, "ready while Kafka is away", harness.Do(t, s.URL, "GET", "/q/health/ready"), 200)
		}
		b.Restart()
		value := fmt.Sprint("after kill ", round)
		producer.MustSend(t, harness.Record(0, []byte("a"), []byte(value)), harness.Record(1, []byte("c"), []byte(value)))
		await(t, s, "a", value)
		await(t, s, "c", value)
	}
}

// testMetrics: every name that dashboards of the original ask for is there from the start, counters at 0.
func testMetrics(t *testing.T, e env) {
	s := harness.StartServe(t, e.broker(t), topicName(t), nil)
	for _, name := range []string{
		"kkv_cache_keys", "kkv_onupdate_dispatch_total", `kkv_onupdate_suppressed_total{suppress_reason="null_key"}`,
		`kkv_onupdate_suppressed_total{suppress_reason="value_deduplication"}`, "kkv_target_update_ok_total", "kkv_target_update_failure_total",
		"kkv_watcher_down", "kkv_watcher_event_total",
	} {
		wantMetric(t, s, name, 0)
	}
	switch stage := metric(t, s, "kkv_stage"); stage {
	case 10, 50, 60, 80:
	default:
		t.Errorf("kkv_stage %v without a topic, want a stage before Polling", stage)
	}
	if a, b := harness.Do(t, s.URL, "GET", "/metrics"), harness.Do(t, s.URL, "GET", "/q/metrics"); a.Status != 200 || b.Status != 200 ||
		!strings.HasPrefix(b.Header.Get("Content-Type"), "text/plain") {
		t.Errorf("metrics: %d and %d, %s", a.Status, b.Status, b.Header.Get("Content-Type"))
	}

	ready, producer := e.serve(t, 2, nil)
	wantMetric(t, ready, "kkv_stage", 90)
	producer.MustSend(t, harness.Record(1, []byte("a"), []byte("1")), harness.Record(1, []byte("b"), []byte("1")), harness.Record(1, []byte("b"), nil))
	wantMetric(t, ready, "kkv_cache_keys", 1)
	wantMetric(t, ready, fmt.Sprintf(`kkv_last_seen_offset{partition="1",topic=%q}`, ready.Topic), 2)
}

// wantMetric waits until the metric has the value.
func wantMetric(t *testing.T, s *harness.Serve, name string, value float64) {
	t.Helper()
	harness.Eventually(t, harness.StartTimeout, s.Process, func() error {
		if got := metric(t, s, name); got != value {
			return fmt.Errorf("%s is %v, want %v", name, got, value)
		}
		return nil
	})
}

// metric returns a metric's value, -1 if it is not there.
func metric(t *testing.T, s *harness.Serve, name string) float64 {
	t.Helper()
	res := harness.Do(t, s.URL, "GET", "/q/metrics")
	for line := range strings.Lines(string(res.Body)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			value, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			return value
		}
	}
	return -1
}
