// Package e2e tests kkv as a process, from outside: started with flags and environment, asked over HTTP, written to over Kafka,
// stopped and killed by signals. It imports nothing of kkv but the public Go client and the test
// packages beside it.
package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/kkv-project/kkv/test/apachekafka"
	"github.com/kkv-project/kkv/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// suite is what must hold whatever the Kafka is.
var suite = []struct {
	name string
	test func(*testing.T, env)
}{
	{"Mission", testMission},
	{"HostileKeys", testHostileKeys},
	{"KeysAsTyped", testKeysAsTyped},
	{"BinaryKeys", testBinaryKeys},
	{"NativeRoutes", testNativeRoutes},
	{"Watch", testWatch},
	{"Mirror", testMirror},
	{"CompatCache", testCompatCache},
	{"CompatGateway", testCompatGateway},
	{"OffsetsHeader", testOffsetsHeader},
	{"LargeValue", testLargeValue},
	{"NullAndEmpty", testNullAndEmpty},
	{"NullKey", testNullKey},
	{"MissingTopic", testMissingTopic},
	{"CreateTopic", testCreateTopic},
	{"Metrics", testMetrics},
	{"Webhook", testWebhook},
	{"WebhookRetries", testWebhookRetries},
	{"WebhookV2", testWebhookV2},
	{"Version1Start", testVersion1Start},
	{"TermWhileLoading", testTermWhileLoading},
}

// TestEmbedded runs the suite on the broker inside `kkv dev`.
func TestEmbedded(t *testing.T) { runSuite(t, env{}) }

// TestApacheKafka runs the suite on one Apache Kafka.
func TestApacheKafka(t *testing.T) { runSuite(t, env{apachekafka.Start(t)}) }

func runSuite(t *testing.T, e env) {
	for _, s := range suite {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			s.test(t, e)
		})
	}
}

// An env is the Kafka that a test runs on.
type env struct {
	kafka *apachekafka.Broker // nil: the embedded one, a new one for each kkv dev
}

// dev starts `kkv dev` on the env's Kafka, with a topic of its own.
func (e env) dev(t testing.TB, args ...string) *harness.Dev {
	t.Helper()
	return e.devOn(t, topicName(t), args...)
}

// devOn is dev with a topic of the given name.
func (e env) devOn(t testing.TB, topic string, args ...string) *harness.Dev {
	t.Helper()
	if e.kafka != nil {
		args = append(args, "--kafka-bootstrap", e.kafka.Bootstrap)
	}
	d := harness.StartDev(t, topic, nil, args...)
	if e.kafka != nil {
		d.Kafka = e.kafka.Bootstrap
	}
	return d
}

// broker returns the bootstrap address of a Kafka for tests that start other commands than `kkv dev` on it.
func (e env) broker(t testing.TB) string {
	t.Helper()
	if e.kafka != nil {
		return e.kafka.Bootstrap
	}
	return harness.StartDev(t, "not-of-interest", nil).Kafka
}

// serve starts `kkv serve` on a new topic with so many partitions, and waits until it is ready.
func (e env) serve(t testing.TB, partitions int32, env []string, args ...string) (*harness.Serve, *harness.Producer) {
	t.Helper()
	bootstrap, topic := e.broker(t), topicName(t)
	apachekafka.CreateTopic(t, bootstrap, topic, partitions, map[string]string{"cleanup.policy": "compact"})
	s := harness.StartServe(t, bootstrap, topic, env, args...)
	s.AwaitReady(t)
	return s, harness.NewProducer(t, bootstrap, topic)
}

var (
	topics      atomic.Int64
	notInTopics = regexp.MustCompile(`[^a-zA-Z0-9]+`)
)

// topicName makes a topic name that is new and tells the test.
func topicName(t testing.TB) string {
	return fmt.Sprintf("%s-%d", strings.ToLower(notInTopics.ReplaceAllString(t.Name(), "-")), topics.Add(1))
}

// wantStatus fails the test if the answer has another status.
func wantStatus(t testing.TB, what string, res *harness.Response, status int) {
	t.Helper()
	if res.Status != status {
		t.Fatalf("%s: got %s, want status %d", what, res, status)
	}
}

// wantValue fails the test if the answer is not 200 with exactly this body.
func wantValue(t testing.TB, what string, res *harness.Response, value string) {
	t.Helper()
	wantStatus(t, what, res, 200)
	if string(res.Body) != value {
		t.Fatalf("%s: got %s, want %q", what, res, value)
	}
}
