// Package apachekafka runs a real Apache Kafka for a test: the version that test/kafka/pom.xml names, a KRaft broker and
// controller in one process, on loopback.
//
// The in-process broker of `kkv dev` is a good likeness, but it has no truncation, no leader moves and no compaction as Apache
// Kafka does it; what is promised about Kafka is tested here.
package apachekafka

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kkv-project/kkv/test/port"
	"github.com/kkv-project/kkv/test/process"
	"github.com/kkv-project/kkv/test/require"
)

// clusterID is the KRaft cluster id of every test cluster: 16 bytes in base64url, as StorageTool wants it.
const clusterID = "a2t2LXRlc3QtY2x1c3Rlcg"

// startTimeout bounds a start, on a busy machine and with a log to recover.
const startTimeout = 90 * time.Second

// An Option changes how brokers run.
type Option func(*options)

type options struct {
	properties     map[string]string
	heap           string
	user, password string
}

// WithProperty sets a property of server.properties, over what this package sets.
func WithProperty(name, value string) Option {
	return func(o *options) { o.properties[name] = value }
}

// WithHeap sets the largest heap of each JVM in the JVM's notation; 512m unless told.
func WithHeap(size string) Option {
	return func(o *options) { o.heap = size }
}

// WithUser gives each broker a second listener, Broker.SASLBootstrap, on which only this user gets in: SASL_PLAINTEXT with the
// mechanism PLAIN. Neither name nor password may hold quotes.
func WithUser(user, password string) Option {
	return func(o *options) { o.user, o.password = user, password }
}

// A Broker is one Apache Kafka process, broker and controller in one. Its methods must be called from the test's goroutine.
type Broker struct {
	// ID is the broker's node id, from 1.
	ID int32
	// Bootstrap is the broker's host:port. It stays the same over restarts.
	Bootstrap string
	// SASLBootstrap is where WithUser's user gets in; empty without it.
	SASLBootstrap string

	t         testing.TB
	dir       string // config, log and data
	classpath string
	heap      string
	process   *process.Process
}

// Start fetches Apache Kafka if need be, formats a directory and runs a broker that is ready when Start returns. The test is
// skipped if the machine lacks Java or Maven. When the test ends the broker is killed and its data removed.
func Start(t testing.TB, opts ...Option) *Broker {
	t.Helper()
	return StartCluster(t, 1, opts...)[0]
}

// StartCluster is Start for a cluster of n brokers, each a controller too: it lives while more than half of them do. Topics and
// Kafka's own logs have min(n, 3) replicas; each JVM takes half a gigabyte and, while it starts, a core.
func StartCluster(t testing.TB, n int, opts ...Option) []*Broker {
	t.Helper()
	require.Need(t, require.Kafka)
	o := options{properties: map[string]string{}, heap: "512m"}
	for _, opt := range opts {
		opt(&o)
	}
	classpath := classpath(t)

	// All ports first: every node's properties name every controller.
	ports := port.Free(t, 3*n)
	voters := make([]string, n)
	for i := range n {
		voters[i] = fmt.Sprintf("%d@127.0.0.1:%d", i+1, ports[n+i])
	}
	brokers := make([]*Broker, n)
	for i := range n {
		b := &Broker{
			Bootstrap: fmt.Sprintf("127.0.0.1:%d", ports[i]),
			ID:        int32(i + 1), t: t, dir: t.TempDir(), classpath: classpath, heap: o.heap,
		}
		properties := map[string]string{
			"node.id":                          fmt.Sprint(b.ID),
			"process.roles":                    "broker,controller",
			"controller.quorum.voters":         strings.Join(voters, ","),
			"listeners":                        fmt.Sprintf("PLAINTEXT://%s,CONTROLLER://127.0.0.1:%d", b.Bootstrap, ports[n+i]),
			"advertised.listeners":             "PLAINTEXT://" + b.Bootstrap,
			"controller.listener.names":        "CONTROLLER",
			"inter.broker.listener.name":       "PLAINTEXT",
			"listener.security.protocol.map":   "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
			"log.dirs":                         filepath.Join(b.dir, "data"),
			"auto.create.topics.enable":        "false",
			"default.replication.factor":       fmt.Sprint(min(n, 3)),
			"group.initial.rebalance.delay.ms": "0",
			// One partition of each internal topic: a start creates fewer files.
			"offsets.topic.num.partitions":                     "1",
			"offsets.topic.replication.factor":                 fmt.Sprint(min(n, 3)),
			"transaction.state.log.num.partitions":             "1",
			"transaction.state.log.replication.factor":         fmt.Sprint(min(n, 3)),
			"transaction.state.log.min.isr":                    fmt.Sprint(max(1, min(n, 3)-1)),
			"share.coordinator.state.topic.replication.factor": fmt.Sprint(min(n, 3)),
			// A broker that was killed may register again only when its old session has ended: 9 s by default.
			"broker.session.timeout.ms":             "2000",
			"broker.heartbeat.interval.ms":          "500",
			"controller.quorum.election.timeout.ms": "500",
			"controller.quorum.fetch.timeout.ms":    "1000",
		}
		if o.user != "" {
			b.SASLBootstrap = fmt.Sprintf("127.0.0.1:%d", ports[2*n+i])
			properties["listeners"] += ",SASL://" + b.SASLBootstrap
			properties["advertised.listeners"] += ",SASL://" + b.SASLBootstrap
			properties["listener.security.protocol.map"] += ",SASL:SASL_PLAINTEXT"
			properties["sasl.enabled.mechanisms"] = "PLAIN"
			properties["listener.name.sasl.plain.sasl.jaas.config"] = fmt.Sprintf(
				`org.apache.kafka.common.security.plain.PlainLoginModule required user_%s="%s";`, o.user, o.password)
		}
		maps.Copy(properties, o.properties)
		b.write("server.properties", properties)
		brokers[i] = b
	}
	for _, b := range brokers {
		b.format()
	}
	for _, b := range brokers {
		b.run()
	}
	for _, b := range brokers {
		b.awaitReady()
	}
	return brokers
}

// Stop ends the broker as an operator would, with SIGTERM: it hands over and closes its log. Restart starts it again.
func (b *Broker) Stop() {
	b.t.Helper()
	if err := b.process.Stop(30 * time.Second); err != nil {
		b.t.Fatal(err)
	}
}

// Kill ends the broker as a crash would, with SIGKILL. Restart starts it again.
func (b *Broker) Kill() { b.process.Kill() }

// Restart starts a broker that was stopped or killed, on the same address and data, and waits until it is ready. A running
// one is stopped first.
func (b *Broker) Restart() {
	b.t.Helper()
	b.Start()
	b.awaitReady()
}

// Start starts a broker that was stopped or killed, as Restart does, but does not wait for it.
func (b *Broker) Start() {
	b.t.Helper()
	if b.process.Running() {
		b.Stop()
	}
	b.run()
}

// CreateTopic makes a topic, with the replication factor that the broker defaults to, and configs such as
// {"cleanup.policy": "compact"}. It fails the test if that cannot be done.
func (b *Broker) CreateTopic(topic string, partitions int32, configs map[string]string) {
	b.t.Helper()
	CreateTopic(b.t, b.Bootstrap, topic, partitions, configs)
}

// CreateTopic makes a topic on any Kafka, Apache's or not, and waits until every broker knows of it; bootstrap is one address or
// several, comma-separated. See [Broker.CreateTopic].
func CreateTopic(t testing.TB, bootstrap, topic string, partitions int32, configs map[string]string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(bootstrap, ",")...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	pointers := map[string]*string{}
	for name, value := range configs {
		pointers[name] = &value
	}
	admin := kadm.NewClient(client)
	if _, err := admin.CreateTopic(ctx, partitions, -1, pointers, topic); err != nil {
		t.Fatalf("create topic %s: %v", topic, err)
	}
	AwaitTopic(t, client, topic, int(partitions))
}

// AwaitTopic waits until every broker names a leader for each of the topic's partitions, of which there are so many at least: that a
// topic was created, or grew, is answered before they have heard of it.
func AwaitTopic(t testing.TB, client *kgo.Client, topic string, partitions int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	brokers, err := kadm.NewClient(client).ListBrokers(ctx)
	if err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for _, id := range brokers.NodeIDs() {
		for {
			err := knowsTopic(ctx, client.Broker(int(id)), topic, partitions)
			if err == nil {
				break
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatalf("broker %d does not know topic %s: %v", id, topic, err)
			}
		}
	}
}

func knowsTopic(ctx context.Context, broker *kgo.Broker, topic string, partitions int) error {
	req := kmsg.NewPtrMetadataRequest()
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = &topic
	req.Topics = append(req.Topics, rt)
	kr, err := broker.RetriableRequest(ctx, req)
	if err != nil {
		return err
	}
	res := kr.(*kmsg.MetadataResponse)
	err = kerr.ErrorForCode(res.Topics[0].ErrorCode)
	if n := len(res.Topics[0].Partitions); err == nil && n < partitions {
		err = fmt.Errorf("it names %d partitions, want %d", n, partitions)
	}
	for _, p := range res.Topics[0].Partitions {
		if err == nil {
			err = kerr.ErrorForCode(p.ErrorCode)
		}
	}
	return err
}

// Output returns what the broker has printed since it was last started.
func (b *Broker) Output() string { return b.process.Output() }

func (b *Broker) write(name string, properties map[string]string) {
	var text strings.Builder
	for _, key := range slices.Sorted(maps.Keys(properties)) {
		fmt.Fprintf(&text, "%s=%s\n", key, properties[key])
	}
	if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text.String()), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// java returns the arguments of a JVM that runs the class. The settings are for a quick start and a small footprint.
func (b *Broker) java(class string, args ...string) []string {
	return append([]string{
		"-Xmx" + b.heap, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Xshare:auto",
		"-Dlog4j2.configurationFile=" + filepath.Join(sourceDir(), "log4j2.properties"),
		"-cp", b.classpath, class,
	}, args...)
}

// format makes the broker's data directory a member of the cluster.
func (b *Broker) format() {
	b.t.Helper()
	cmd := exec.Command("java", b.java("kafka.tools.StorageTool", "format", "--cluster-id", clusterID,
		"--config", filepath.Join(b.dir, "server.properties"))...)
	if out, err := cmd.CombinedOutput(); err != nil {
		b.t.Fatalf("format the data directory of broker %d: %v\n%s", b.ID, err, out)
	}
}

func (b *Broker) run() {
	b.t.Helper()
	b.process = process.Start(b.t, process.Options{
		Name: fmt.Sprintf("Apache Kafka broker %d", b.ID),
		Path: "java",
		Args: b.java("kafka.Kafka", filepath.Join(b.dir, "server.properties")),
		Dir:  b.dir,
	})
}

// awaitReady waits until the broker answers metadata with itself in it: it is registered and unfenced by then.
func (b *Broker) awaitReady() {
	b.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Bootstrap), kgo.MetadataMinAge(10*time.Millisecond))
	if err != nil {
		b.t.Fatal(err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(startTimeout)
	for {
		ctx, cancel := context.WithTimeout(b.t.Context(), 2*time.Second)
		brokers, err := admin.ListBrokers(ctx)
		cancel()
		if err == nil && slices.Contains(brokers.NodeIDs(), b.ID) {
			return
		}
		select {
		case <-tick.C:
		case <-b.process.Done():
			b.t.Fatalf("broker %d ended while starting; its last lines:\n%s", b.ID, b.process.Tail(40))
		case <-deadline:
			b.t.Fatalf("broker %d is not ready after %v (%v); its last lines:\n%s", b.ID, startTimeout, err, b.process.Tail(40))
		}
	}
}

// sourceDir returns test/kafka.
func sourceDir() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "kafka")
}

// classpath fetches the jars if need be.
func classpath(t testing.TB) string {
	t.Helper()
	cmd := exec.Command("bash", filepath.Join(sourceDir(), "get"))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("fetch Apache Kafka: %v\n%s", err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}
