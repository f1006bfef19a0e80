// Package kafkatest is a Kafka inside a testing/synctest bubble: kfake on a virtual network, so that the bubble owns
// every clock, with what tests do to a topic. It is for tests only.
package kafkatest

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kkv-project/kkv/internal/kafka"
)

// Cluster is one kfake cluster with a topic of interest. Its methods may be called concurrently, and fail the test where
// they cannot do as told, so that a goroutine that calls them must end before the test.
type Cluster struct {
	Fake  *kfake.Cluster
	Net   *kfake.VirtualNetwork
	Topic string

	t    testing.TB
	away atomic.Bool
	mu   sync.Mutex
	cl   *kgo.Client
}

// Start runs a cluster of one broker, unless opts say otherwise, until the test's end, and creates topic with so many
// partitions; with none it does not exist. Call it inside of a bubble (synctest.Test).
func Start(t testing.TB, topic string, partitions int32, opts ...kfake.Opt) *Cluster {
	t.Helper()
	c := &Cluster{t: t, Net: &kfake.VirtualNetwork{}, Topic: topic}
	all := []kfake.Opt{kfake.NumBrokers(1), kfake.Ports(9092), kfake.ListenFn(c.Net.Listen)}
	if partitions > 0 {
		all = append(all, kfake.SeedTopics(partitions, topic))
	}
	fake, err := kfake.NewCluster(append(all, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	c.Fake = fake
	t.Cleanup(func() {
		fake.Close()
		Pass(3 * time.Second) // for what a control still sleeps
	})
	return c
}

// Pass lets d of the bubble's time pass.
func Pass(d time.Duration) { <-time.After(d) }

// Config reaches the cluster.
func (c *Cluster) Config() kafka.Config {
	return kafka.Config{Bootstrap: c.Fake.ListenAddrs(), Dial: c.Dial}
}

// Dial connects to a broker, unless the cluster is Away.
func (c *Cluster) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if c.away.Load() {
		return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("connection refused")}
	}
	return c.Net.DialContext(ctx, network, addr)
}

// Away makes new connections fail from here on, or work again; those that are open stay as they are.
func (c *Cluster) Away(away bool) { c.away.Store(away) }

// NewClient makes a client that is closed at the test's end.
func (c *Cluster) NewClient(opts ...kgo.Opt) *kgo.Client {
	c.t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(c.Fake.ListenAddrs()...), kgo.Dialer(c.Net.DialContext)}, opts...)...)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(cl.Close)
	return cl
}

// Client is the one that the methods below use: records go to the partition that they name, at once.
func (c *Cluster) Client() *kgo.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cl == nil {
		c.cl = c.NewClient(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))
	}
	return c.cl
}

func (c *Cluster) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cl = nil
}

// Put writes a record and returns its offset.
func (c *Cluster) Put(partition int32, key, value string) int64 {
	c.t.Helper()
	return c.Produce(&kgo.Record{Partition: partition, Key: []byte(key), Value: []byte(value)})
}

// Delete writes a tombstone and returns its offset.
func (c *Cluster) Delete(partition int32, key string) int64 {
	c.t.Helper()
	return c.Produce(&kgo.Record{Partition: partition, Key: []byte(key)})
}

// Produce writes r, to Topic unless it names another, and returns its offset.
func (c *Cluster) Produce(r *kgo.Record) int64 {
	c.t.Helper()
	if r.Topic == "" {
		r.Topic = c.Topic
	}
	if err := c.Client().ProduceSync(c.t.Context(), r).FirstErr(); err != nil {
		c.t.Fatal(err)
	}
	return r.Offset
}

// Txn is a transaction under way.
type Txn struct {
	c  *Cluster
	cl *kgo.Client
}

// Begin starts a transaction of a producer of its own.
func (c *Cluster) Begin(transactionalID string) *Txn {
	c.t.Helper()
	x := &Txn{c, c.NewClient(kgo.TransactionalID(transactionalID), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic(c.Topic))}
	if err := x.cl.BeginTransaction(); err != nil {
		c.t.Fatal(err)
	}
	return x
}

// Put writes a record inside of the transaction.
func (x *Txn) Put(partition int32, key, value string) *Txn {
	x.c.t.Helper()
	return x.produce(&kgo.Record{Partition: partition, Key: []byte(key), Value: []byte(value)})
}

// Delete writes a tombstone inside of the transaction.
func (x *Txn) Delete(partition int32, key string) *Txn {
	x.c.t.Helper()
	return x.produce(&kgo.Record{Partition: partition, Key: []byte(key)})
}

func (x *Txn) produce(r *kgo.Record) *Txn {
	x.c.t.Helper()
	if err := x.cl.ProduceSync(x.c.t.Context(), r).FirstErr(); err != nil {
		x.c.t.Fatal(err)
	}
	return x
}

// Commit ends the transaction, and so does Abort.
func (x *Txn) Commit() { x.c.t.Helper(); x.end(kgo.TryCommit) }

// Abort ends the transaction and takes back what it wrote.
func (x *Txn) Abort() { x.c.t.Helper(); x.end(kgo.TryAbort) }

func (x *Txn) end(how kgo.TransactionEndTry) {
	x.c.t.Helper()
	if err := x.cl.EndTransaction(x.c.t.Context(), how); err != nil {
		x.c.t.Fatal(err)
	}
}

// DeleteTopic deletes Topic.
func (c *Cluster) DeleteTopic() {
	c.t.Helper()
	if err := c.Fake.DeleteTopic(c.Topic); err != nil {
		c.t.Fatal(err)
	}
}

// CreateTopic creates Topic; configs may be nil.
func (c *Cluster) CreateTopic(partitions int32, configs map[string]string) {
	c.t.Helper()
	if err := c.Fake.CreateTopic(c.Topic, partitions, configs); err != nil {
		c.t.Fatal(err)
	}
	c.forget() // its producer state is the old topic's
}

// DeleteRecords moves the partition's log start to offset.
func (c *Cluster) DeleteRecords(partition int32, offset int64) {
	c.t.Helper()
	if err := c.Fake.DeleteRecords(c.Topic, partition, offset); err != nil {
		c.t.Fatal(err)
	}
}

// AddPartitions raises Topic's number of partitions to n.
func (c *Cluster) AddPartitions(n int32) {
	c.t.Helper()
	req := kmsg.NewPtrCreatePartitionsRequest()
	rt := kmsg.NewCreatePartitionsRequestTopic()
	rt.Topic, rt.Count = c.Topic, n
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(c.t.Context(), c.Client())
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].ErrorCode)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	c.forget() // it would learn of them late
}

// Fail makes requests of these kinds about Topic answer err until the handle's Remove.
func (c *Cluster) Fail(err *kerr.Error, keys ...kmsg.Key) *kfake.FaultHandle {
	return c.Fake.Fault(kfake.Fault{Keys: keys, Err: err, Count: -1})
}

// Delay makes requests of one kind take d longer until undo is called, or the test's end.
func (c *Cluster) Delay(key kmsg.Key, d time.Duration) (undo func()) {
	var off atomic.Bool
	c.Fake.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
		if off.Load() {
			c.Fake.DropControl()
			return nil, nil, false
		}
		c.Fake.KeepControl()
		c.Fake.SleepControl(func() { <-time.After(d) })
		return nil, nil, false
	})
	undo = func() { off.Store(true) }
	c.t.Cleanup(func() {
		undo()
		Pass(d + 2*time.Second) // for those that it delays: kfake locks up if it is closed meanwhile
	})
	return undo
}
