package main

import (
	"context"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kkv-project/kkv/bench/dataset"
)

// broker is one Apache Kafka, broker and controller in one process, with a heap of 1 GiB and the JVM's own settings
// else, since it serves all that is compared. Its version is test/kafka's.
type broker struct {
	address string
	*child
}

// kafka starts the broker, once, and loads the topic into it, once.
func (b *bench) kafka(ctx context.Context, t dataset.Topic) (*broker, error) {
	if b.broker == nil {
		br, err := startBroker(ctx, filepath.Join(b.dir, "kafka"))
		if err != nil {
			return nil, err
		}
		b.broker, b.loaded = br, map[string]bool{}
	}
	if b.loaded[t.Name] {
		return b.broker, nil
	}
	began := time.Now()
	if err := b.broker.create(ctx, t); err != nil {
		return nil, err
	}
	if err := b.load(ctx, t, 0, t.Writes); err != nil {
		return nil, err
	}
	fmt.Fprintf(os.Stderr, "%-9s %s, loaded in %.1f s\n", t.Name, t, time.Since(began).Seconds())
	b.loaded[t.Name] = true
	return b.broker, nil
}

func startBroker(ctx context.Context, dir string) (*broker, error) {
	classpath, err := output(ctx, "../test/kafka/get")
	if err != nil {
		return nil, fmt.Errorf("fetch Apache Kafka: %w", err)
	}
	client, err := freeAddress()
	if err != nil {
		return nil, err
	}
	controller, err := freeAddress()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "server.properties")
	err = os.WriteFile(config, fmt.Appendf(nil, `node.id=1
process.roles=broker,controller
controller.quorum.voters=1@%[2]s
listeners=PLAINTEXT://%[1]s,CONTROLLER://%[2]s
advertised.listeners=PLAINTEXT://%[1]s
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=%[3]s
auto.create.topics.enable=false
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
`, client, controller, filepath.Join(dir, "data")), 0o600)
	if err != nil {
		return nil, err
	}
	java := []string{"-Xms1g", "-Xmx1g", "-Dlog4j2.configurationFile=../test/kafka/log4j2.properties", "-cp", classpath}
	if _, err := output(ctx, "java", append(java, "kafka.tools.StorageTool", "format", "--cluster-id", "a2t2LWJlbmNoLWNsdXN0ZXI", "--config", config)...); err != nil {
		return nil, fmt.Errorf("format Kafka's directory: %w", err)
	}
	c, err := startChild("Apache Kafka", "java", append(java, "kafka.Kafka", config)...)
	if err != nil {
		return nil, err
	}
	br := &broker{client, c}
	if err := br.awaitReady(ctx); err != nil {
		br.close()
		return nil, err
	}
	return br, nil
}

func (br *broker) close() { br.kill() }

func (br *broker) awaitReady(ctx context.Context) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(br.address))
	if err != nil {
		return err
	}
	defer cl.Close()
	for deadline := time.Now().Add(90 * time.Second); ; {
		if brokers, err := kadm.NewClient(cl).ListBrokers(ctx); err == nil && len(brokers) == 1 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("Apache Kafka is not ready after 90 s; its last lines:\n%s", br.last())
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// create makes a compacted topic that is not compacted while we measure.
func (br *broker) create(ctx context.Context, t dataset.Topic) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(br.address))
	if err != nil {
		return err
	}
	defer cl.Close()
	compact, never := "compact", "86400000"
	_, err = kadm.NewClient(cl).CreateTopic(ctx, t.Partitions, 1, map[string]*string{"cleanup.policy": &compact, "min.compaction.lag.ms": &never}, t.Name)
	if err != nil {
		return fmt.Errorf("create topic %s: %w", t.Name, err)
	}
	return nil
}

// remove deletes a topic that is not needed any more, to spare the disk.
func (b *bench) remove(ctx context.Context, t dataset.Topic) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.broker.address))
	if err != nil {
		return err
	}
	defer cl.Close()
	delete(b.loaded, t.Name)
	_, err = kadm.NewClient(cl).DeleteTopic(ctx, t.Name)
	return err
}

// load writes the versions from first to before last of every key. Keys go to partitions as Java's producer has it.
func (b *bench) load(ctx context.Context, t dataset.Topic, first, last int) error {
	codecs := map[string]kgo.CompressionCodec{"none": kgo.NoCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
		"snappy": kgo.SnappyCompression(), "gzip": kgo.GzipCompression()}
	codec, ok := codecs[b.compression]
	if !ok {
		return fmt.Errorf("no codec %q", b.compression)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.broker.address), kgo.DefaultProduceTopic(t.Name), kgo.ProducerBatchCompression(codec),
		kgo.ProducerBatchMaxBytes(int32(b.batch)), kgo.ProducerLinger(0), kgo.MaxBufferedRecords(200_000),
		kgo.MetadataMinAge(50*time.Millisecond)) // else the leader of a topic just created is learned 5 s later
	if err != nil {
		return err
	}
	defer cl.Close()
	failed := make(chan error, 1)
	for i := first * t.Keys; i < last*t.Keys && len(failed) == 0; i++ {
		key, version := t.Record(i)
		kv := t.AppendValue(dataset.AppendKey(make([]byte, 0, dataset.KeyBytes+t.ValueBytes), key), key, version)
		cl.Produce(ctx, &kgo.Record{Key: kv[:dataset.KeyBytes:dataset.KeyBytes], Value: kv[dataset.KeyBytes:]}, func(_ *kgo.Record, err error) {
			if err != nil {
				select {
				case failed <- err:
				default:
				}
			}
		})
	}
	if err := cl.Flush(ctx); err != nil {
		return fmt.Errorf("load topic %s: %w", t.Name, err)
	}
	select {
	case err := <-failed:
		return fmt.Errorf("load topic %s: %w", t.Name, err)
	default:
		return nil
	}
}

// globalKTable builds the Kafka Streams program, once for each content of its sources, and returns its classpath.
func globalKTable(ctx context.Context) (string, error) {
	const dir = "rivals/globalktable"
	pom, err := os.ReadFile(filepath.Join(dir, "pom.xml"))
	if err != nil {
		return "", err
	}
	source, err := os.ReadFile(filepath.Join(dir, "src/main/java/kkv/bench/GlobalTable.java"))
	if err != nil {
		return "", err
	}
	cache, err := filepath.Abs("../.cache")
	if err != nil {
		return "", err
	}
	out := filepath.Join(cache, fmt.Sprintf("globalktable-%08x", crc32.ChecksumIEEE(append(pom, source...))))
	classpath := filepath.Join(out, "classes") + ":" + filepath.Join(out, "jars", "*")
	if _, err := os.Stat(filepath.Join(out, "classes")); err == nil {
		return classpath, nil
	}
	tmp, err := os.MkdirTemp(cache, "globalktable-build-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	_, err = output(ctx, "mvn", "--batch-mode", "--no-transfer-progress", "-q", "-f", dir, "-Dout="+tmp, "compile",
		"dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory="+filepath.Join(tmp, "jars"))
	if err != nil {
		return "", fmt.Errorf("build the Kafka Streams program with Maven: %w", err)
	}
	return classpath, os.Rename(tmp, out)
}

// output runs a program to its end and returns what it prints on stdout, without the line break.
func output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s%s", name, err, out, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}
