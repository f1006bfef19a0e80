// Package kafka is kkv's way to Kafka: it connects (TLS and SASL, configured
// by the property names of the Java client), classifies errors, reads
// metadata and produces.
//
// The names and meanings of properties are those of Apache Kafka's Java
// clients (https://kafka.apache.org/documentation/#configuration), so that a
// client.properties file which works with Kafka's own tools works here. A
// property that kkv does not know is an error, never a silent difference.
//
// Nothing in here runs in the background except what a kgo.Client runs, and
// that ends with its Close.
package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Config says how to reach Kafka. Its zero value is usable except Bootstrap
// (or the property bootstrap.servers). A Config is a value: it may be copied
// and used from several goroutines as long as nobody writes to Properties.
type Config struct {
	// Bootstrap lists the first brokers to ask, each host:port. It wins over
	// the property bootstrap.servers.
	Bootstrap []string
	// Properties are Java client properties, as LoadProperties merges them.
	// Values may hold ${file:…} references, which are read whenever a
	// connection is made.
	Properties map[string]string
	// ClientID names this client in the brokers' logs and quotas. It wins
	// over the property client.id; "kkv" if neither is set.
	ClientID string
	// Partitioner chooses the partition of a keyed record: "murmur2" as the
	// Java client does (the default), or "fnv1a" as Sarama's hash partitioner
	// (and so kafka-pixy) does.
	Partitioner string
	// Logger receives the Kafka client's errors as warnings and the rest of
	// what it has to say at level Debug. Nil is silent.
	Logger *slog.Logger
	// Dial opens a connection; nil is a net.Dialer. TLS, when asked for, is
	// spoken on top of it. Tests pass kfake's VirtualNetwork.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Defaults of the Java client, but for the connection setup timeout: its 10 s
// are longer than anybody waits for one write.
const (
	defaultSetupTimeout    = 5 * time.Second
	defaultIdleTimeout     = 9 * time.Minute
	defaultRequestTimeout  = 10 * time.Second
	defaultDeliveryTimeout = 30 * time.Second
)

// Options turns the configuration into options for kgo.NewClient. It reads
// every file that the configuration names, so that a wrong path or a broken
// certificate is an error here and not a connection that never comes up.
func (c Config) Options() ([]kgo.Opt, error) {
	p, err := newProperties(c.Properties)
	if err != nil {
		return nil, err
	}
	bootstrap := c.bootstrap()
	if err := checkBootstrap(bootstrap); err != nil {
		return nil, err
	}
	setup, err := p.duration("socket.connection.setup.timeout.ms", defaultSetupTimeout, 0)
	if err != nil {
		return nil, err
	}
	request, err := p.duration("request.timeout.ms", defaultRequestTimeout, 100*time.Millisecond)
	if err != nil {
		return nil, err
	}
	idle, err := p.duration("connections.max.idle.ms", defaultIdleTimeout, time.Second)
	if err != nil {
		return nil, err
	}
	maxAge, err := p.duration("metadata.max.age.ms", 5*time.Minute, 100*time.Millisecond)
	if err != nil {
		return nil, err
	}
	dial, err := c.dialer(p, setup)
	if err != nil {
		return nil, err
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(bootstrap...),
		kgo.ClientID(c.clientID()),
		kgo.Dialer(dial),
		kgo.RequestTimeoutOverhead(request),
		kgo.ConnIdleTimeout(idle),
		kgo.MetadataMaxAge(maxAge),
		kgo.MetadataMinAge(min(maxAge, 5*time.Second)),
		kgo.RetryBackoffFn(backoff),
		kgo.DisableClientMetrics(), // KIP-714; closing would take seconds to send the last while Kafka is away
	}
	mechanism, err := p.saslMechanism()
	if err != nil {
		return nil, err
	}
	if mechanism != nil {
		opts = append(opts, kgo.SASL(mechanism))
	}
	if c.Logger != nil {
		opts = append(opts, kgo.WithLogger(clientLogger{c.Logger}))
	}
	return opts, nil
}

// NewClient makes a client for consuming and for admin requests. The extra
// options come last and so win. It connects to nothing yet; the caller closes
// it. For producing see NewProducer.
func NewClient(c Config, extra ...kgo.Opt) (*kgo.Client, error) {
	opts, err := c.Options()
	if err != nil {
		return nil, err
	}
	cl, err := kgo.NewClient(append(opts, extra...)...)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	return cl, nil
}

// CloseWith closes cl as soon as ctx ends, since a request to a broker that takes connections and never answers ends
// no sooner, or when what it returns is called. kgo must not be closed twice at once.
func CloseWith(ctx context.Context, cl *kgo.Client) func() {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		cl.Close()
		close(ended)
	})
	return func() {
		if stop() {
			cl.Close()
		} else {
			<-ended
		}
	}
}

func (c Config) bootstrap() []string {
	if len(c.Bootstrap) > 0 {
		return c.Bootstrap
	}
	var out []string
	for s := range strings.SplitSeq(c.Properties["bootstrap.servers"], ",") {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}

func checkBootstrap(servers []string) error {
	if len(servers) == 0 {
		return errors.New("no Kafka brokers given: set --kafka-bootstrap host:port (or the property bootstrap.servers)")
	}
	for _, s := range servers {
		_, port, err := net.SplitHostPort(s)
		if err == nil {
			_, err = strconv.ParseUint(port, 10, 16)
		}
		if err != nil {
			return fmt.Errorf("Kafka broker %q is not host:port, such as localhost:9092 (several are separated by commas)", s)
		}
	}
	return nil
}

func (c Config) clientID() string {
	if c.ClientID != "" {
		return c.ClientID
	}
	if id := c.Properties["client.id"]; id != "" {
		return id
	}
	return "kkv"
}

// backoff is the pause before try n of anything: 50 ms to 1 s with jitter, as
// the Java client's reconnect.backoff.ms and reconnect.backoff.max.ms.
func backoff(n int) time.Duration {
	d := time.Second
	if n < 6 {
		d = min(d, 50*time.Millisecond<<max(n-1, 0))
	}
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}

// clientLogger passes kgo's log lines to slog. kgo reports every failed
// connection at Warn or Error though it goes on by itself, each time anew;
// kkv logs what matters once at its edge, so those lines are demoted to Debug,
// and only what else kgo calls an error is a warning here.
type clientLogger struct{ log *slog.Logger }

// returned are kgo's errors that whoever asked for the connection gets as well.
var returned = []string{"unable to request api versions", "unable to initialize sasl"}

func (l clientLogger) Level() kgo.LogLevel {
	ctx := context.Background()
	switch {
	case l.log.Enabled(ctx, slog.LevelDebug):
		return kgo.LogLevelInfo
	case l.log.Enabled(ctx, slog.LevelWarn):
		return kgo.LogLevelError
	}
	return kgo.LogLevelNone
}

func (l clientLogger) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	to := slog.LevelDebug
	if level == kgo.LogLevelError && !slices.Contains(returned, msg) {
		to = slog.LevelWarn
	}
	l.log.Log(context.Background(), to, "kafka: "+msg, keyvals...)
}
