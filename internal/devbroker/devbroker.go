// Package devbroker is the Kafka broker inside `kkv dev`: franz-go's kfake, which speaks Kafka's protocol to any
// client, in this process. It is made for tests and development and is never a broker for production: one node,
// no replication, and no promise that its files can be read by the next version.
package devbroker

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"

	"github.com/twmb/franz-go/pkg/kfake"
)

// maxMessageBytes bounds a batch as message.max.bytes does in Kafka; larger than Kafka's default, so that large
// values can be tried out.
const maxMessageBytes = 64 << 20

// Options of a Broker.
type Options struct {
	// Listen is host:port; port 0 picks a free one. Clients are told the same host, or this machine's name where
	// it is unspecified.
	Listen string
	// DataDir keeps the data across restarts, a kill included; "" keeps it in memory.
	DataDir string
}

// Broker is a running broker. It is safe for concurrent use.
type Broker struct {
	cluster *kfake.Cluster
	gate    *gate
	lock    *os.File
	addr    string
}

// ErrInUse: another process has the data directory.
var ErrInUse = errors.New("the data directory is in use")

// Start starts a Broker; Close ends it. Errors wrap ErrInUse, or syscall.EADDRINUSE where the port is taken.
func Start(o Options) (*Broker, error) {
	b := &Broker{}
	opts := []kfake.Opt{kfake.NumBrokers(1), kfake.Ports(0), kfake.ListenFn(func(network, _ string) (net.Listener, error) { return b.listen(network, o.Listen) }),
		kfake.BrokerConfigs(map[string]string{"message.max.bytes": strconv.Itoa(maxMessageBytes)})}
	if o.DataDir != "" {
		if err := os.MkdirAll(o.DataDir, 0o755); err != nil {
			return nil, fmt.Errorf("make the data directory: %w; choose another --data-dir, or none to keep data in memory", err)
		}
		lock, err := lockDir(o.DataDir)
		if err != nil {
			return nil, err
		}
		b.lock = lock
		opts = append(opts, kfake.DataDir(o.DataDir))
	}
	cluster, err := kfake.NewCluster(opts...)
	if err != nil {
		_ = b.unlock() // nothing was written under it
		return nil, fmt.Errorf("start the embedded broker on %s: %w", o.Listen, err)
	}
	b.cluster = cluster
	b.addr = cluster.ListenAddrs()[0]
	return b, nil
}

// Addr is the host:port that clients connect to.
func (b *Broker) Addr() string { return b.addr }

// Stop makes the broker unreachable, as one that is down: connections are cut and refused. Its data stays. Start again
// with Resume.
func (b *Broker) Stop() error {
	if err := b.gate.shut(); err != nil {
		return fmt.Errorf("stop the embedded broker: %w", err)
	}
	return nil
}

// Resume ends Stop, at the same address. The error wraps syscall.EADDRINUSE where something else has taken it.
func (b *Broker) Resume() error {
	if err := b.gate.open(); err != nil {
		return fmt.Errorf("start the embedded broker again on %s: %w", b.addr, err)
	}
	return nil
}

// listen opens the one listener that the cluster asks for.
func (b *Broker) listen(network, addr string) (net.Listener, error) {
	l, err := listen(network, addr)
	if err != nil {
		return nil, err
	}
	bound := l.Addr().String()
	if tcp, ok := l.Addr().(name); ok { // unspecified: it is bound to every address, and named otherwise
		_, port, _ := net.SplitHostPort(string(tcp))
		host, _, _ := net.SplitHostPort(addr)
		bound = net.JoinHostPort(host, port)
	}
	b.gate = newGate(l, func() (net.Listener, error) { return listen(network, bound) })
	return b.gate, nil
}

// CreateTopic makes a compacted topic, or leaves one that exists as it is.
func (b *Broker) CreateTopic(name string, partitions int32) error {
	if b.cluster.TopicInfo(name) != nil {
		return nil
	}
	if err := b.cluster.CreateTopic(name, partitions, map[string]string{"cleanup.policy": "compact", "max.message.bytes": strconv.Itoa(maxMessageBytes)}); err != nil {
		return fmt.Errorf("create topic %s: %w", name, err)
	}
	return nil
}

// Close ends the broker and writes down what is not on disk yet.
func (b *Broker) Close() error {
	b.cluster.Close()
	return b.unlock()
}

func (b *Broker) unlock() error {
	if b.lock == nil {
		return nil
	}
	return b.lock.Close()
}

// lockDir takes the directory for this process until the file is closed, or the process ends in whatever way.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir+"/kkv-dev.lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the data directory: %w; choose a --data-dir that can be written", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close() // was only opened
		return nil, fmt.Errorf("%w: another `kkv dev` runs on %s; end it, or choose another --data-dir", ErrInUse, dir)
	}
	return f, nil
}

// listen opens addr; the listener says the name under which clients reach it, which kfake tells them.
func listen(network, addr string) (net.Listener, error) {
	l, err := net.Listen(network, addr)
	if err != nil {
		return nil, err
	}
	tcp, ok := l.Addr().(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return l, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("find this machine's name to advertise: %w", err), l.Close())
	}
	return advertised{l, net.JoinHostPort(host, strconv.Itoa(tcp.Port))}, nil
}

type advertised struct {
	net.Listener
	addr string
}

func (a advertised) Addr() net.Addr { return name(a.addr) }

type name string

func (n name) Network() string { return "tcp" }
func (n name) String() string  { return string(n) }
