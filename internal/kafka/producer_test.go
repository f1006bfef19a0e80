package kafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// consume reads n records of topic t from its start.
func (f *fake) consume(topic string, n int) []*kgo.Record {
	f.t.Helper()
	cl, err := NewClient(f.config(nil), kgo.ConsumeTopics(topic), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		f.t.Fatal(err)
	}
	defer cl.Close()
	var got []*kgo.Record
	for ctx := within(f.t, time.Minute); len(got) < n; {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			f.t.Fatalf("after %d of %d records: %v", len(got), n, err)
		}
		got = append(got, fetches.Records()...)
	}
	return got
}

func TestProduceKeepsBytes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(t, kfake.SeedTopics(1, "t"))
		p := f.producer(nil)
		messages := []Message{
			{Key: []byte("a/b ?%+.."), Value: []byte("v")},
			{Key: []byte{}, Value: []byte("empty key")},
			{Key: nil, Value: []byte("no key")},
			{Key: []byte("å\x00\xff"), Value: []byte{}},
			{Key: []byte("gone"), Value: nil},
			{Key: []byte("h"), Value: []byte("x"), Headers: []Header{{"H", []byte("1")}, {"H", []byte{0xff}}, {"", nil}}},
		}
		for i, m := range messages {
			m.Topic, m.Partition = "t", -1
			ack, err := p.Produce(within(t, time.Second), m)
			if err != nil {
				t.Fatal(err)
			}
			if ack.Partition != 0 || ack.Offset != int64(i) || !ack.Timestamp.Equal(time.Now().Truncate(time.Millisecond)) || ack.TopicID == [16]byte{} {
				t.Errorf("ack %d: %+v", i, ack)
			}
		}
		for i, r := range f.consume("t", len(messages)) {
			m := messages[i]
			var headers []Header
			for _, h := range r.Headers {
				headers = append(headers, Header(h))
			}
			if !bytes.Equal(r.Key, m.Key) || !bytes.Equal(r.Value, m.Value) ||
				(r.Key == nil) != (m.Key == nil) || (r.Value == nil) != (m.Value == nil) {
				t.Errorf("record %d: got %q=%q, want %q=%q", i, r.Key, r.Value, m.Key, m.Value)
			}
			if diff := cmp.Diff(m.Headers, headers); diff != "" {
				t.Errorf("record %d headers (-want +got):\n%s", i, diff)
			}
		}
	})
}

func TestProducePartition(t *testing.T) {
	// Murmur2 as org.apache.kafka.common.utils.Utils.murmur2, whose published
	// test vectors these are (UtilsTest.testMurmur2), modulo 50.
	murmur2 := map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string":                       -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
	}
	bubble(t, func(t *testing.T) {
		f := newFake(t, kfake.SeedTopics(50, "t"))
		p := f.producer(nil)
		for key, hash := range murmur2 {
			ack, err := p.Produce(within(t, time.Second), Message{Topic: "t", Partition: -1, Key: []byte(key), Value: []byte("v")})
			if want := (hash & 0x7fffffff) % 50; err != nil || ack.Partition != want {
				t.Errorf("key %q went to %d (%v), want %d", key, ack.Partition, err, want)
			}
		}
		for _, partition := range []int32{0, 7, 49} {
			ack, err := p.Produce(within(t, time.Second), Message{Topic: "t", Partition: partition, Key: []byte("foobar")})
			if err != nil || ack.Partition != partition {
				t.Errorf("pinned to %d: went to %d, %v", partition, ack.Partition, err)
			}
		}
		if _, err := p.Produce(within(t, time.Second), Message{Topic: "t", Partition: 50}); !errors.Is(err, kerr.UnknownTopicOrPartition) || OutcomeUnknown(err) {
			t.Errorf("partition 50 of 50: %v", err)
		}
	})
	bubble(t, func(t *testing.T) {
		f := newFake(t, kfake.SeedTopics(50, "t"))
		c := f.config(nil)
		c.Partitioner = "fnv1a"
		p, err := NewProducer(c)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close(t.Context())
		// FNV-1a of "foobar" is 0xbf9cf968 (the reference vector), negative as
		// an int32, so Sarama negates the remainder.
		ack, err := p.Produce(within(t, time.Second), Message{Topic: "t", Partition: -1, Key: []byte("foobar")})
		signed := uint32(0xbf9cf968)
		if want := -(int32(signed) % 50); err != nil || ack.Partition != want {
			t.Errorf("fnv1a: %d, %v, want %d", ack.Partition, err, want)
		}
	})
	if _, err := NewProducer(Config{Bootstrap: []string{"x:1"}, Partitioner: "crc"}); err == nil || !strings.Contains(err.Error(), "murmur2") {
		t.Errorf("unknown partitioner: %v", err)
	}
}

func TestProduceMissingTopic(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(t)
		p := f.producer(nil)
		start := time.Now()
		_, err := p.Produce(within(t, time.Minute), Message{Topic: "nosuch", Partition: -1, Key: []byte("k")})
		if !errors.Is(err, kerr.UnknownTopicOrPartition) || OutcomeUnknown(err) || time.Since(start) > time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		if f.c.TopicInfo("nosuch") != nil {
			t.Error("the topic was created")
		}
		if len(p.topics) != 0 {
			t.Error("a missing topic is remembered")
		}
		for _, name := range []string{"", "..", "a/b", "a b", "ä", strings.Repeat("x", 250)} {
			if _, err := p.Produce(within(t, time.Second), Message{Topic: name}); !errors.Is(err, kerr.InvalidTopicException) {
				t.Errorf("topic %q: %v", name, err)
			}
		}
		if err := f.c.CreateTopic("nosuch", 1, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Produce(within(t, time.Second), Message{Topic: "nosuch", Partition: -1, Key: []byte("k")}); err != nil {
			t.Errorf("once it exists: %v", err)
		}
	})
}

func TestProduceTopicMadeAnew(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(t, kfake.SeedTopics(2, "t"))
		p := f.producer(nil)
		m := Message{Topic: "t", Partition: -1, Key: []byte("k"), Value: []byte("1")}
		first, err := p.Produce(within(t, time.Second), m)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.c.DeleteTopic("t"); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Produce(within(t, 10*time.Second), m); !errors.Is(err, kerr.UnknownTopicOrPartition) {
			t.Errorf("deleted: %v", err)
		}
		if err := f.c.CreateTopic("t", 1, nil); err != nil {
			t.Fatal(err)
		}
		second, err := p.Produce(within(t, 10*time.Second), m)
		if err != nil || second.TopicID == first.TopicID || second.Offset != 0 {
			t.Errorf("made anew: %+v, %v", second, err)
		}
		// Deleted and made anew between two records.
		if err := f.c.DeleteTopic("t"); err != nil {
			t.Fatal(err)
		}
		if err := f.c.CreateTopic("t", 1, nil); err != nil {
			t.Fatal(err)
		}
		third, err := p.Produce(within(t, 10*time.Second), m)
		if err != nil || third.TopicID == second.TopicID || third.Offset != 0 {
			t.Errorf("made anew again: %+v, %v", third, err)
		}
	})
}

// TestProduceAfterAReset: a topic that kgo has to meet again, although it is the same, loses no record that was
// acknowledged. A producer that counts it from 0 again under its old ID is taken to repeat itself.
func TestProduceAfterAReset(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(t, kfake.SeedTopics(1, "t"))
		p := f.producer(nil)
		var last Ack
		for i, limit := range []string{"2000000", "3000000", "4000000"} {
			alter(t, p.Client(), "t", "max.message.bytes", limit)
			size := 10
			if i > 0 {
				size = i*1_000_000 + 500_000 // more than was allowed before, so that the limit is asked for again
			}
			ack, err := p.Produce(within(t, 10*time.Second), Message{Topic: "t", Partition: -1, Key: []byte("k"), Value: bytes.Repeat([]byte{'x'}, size)})
			if err != nil || i > 0 && ack.Offset != last.Offset+1 {
				t.Errorf("record %d: at offset %d after %d, %v", i, ack.Offset, last.Offset, err)
			}
			last = ack
		}
	})
}

func TestProduceLarge(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(t)
		large := "6000000"
		for topic, configs := range map[string]map[string]*string{"large": {"max.message.bytes": &large}, "small": nil} {
			plain := map[string]string{}
			for k, v := range configs {
				plain[k] = *v
			}
			if err := f.c.CreateTopic(topic, 1, plain); err != nil {
				t.Fatal(err)
			}
		}
		p := f.producer(nil)
		value := bytes.Repeat([]byte("0123456789"), 500_000)
		if _, err := p.Produce(within(t, 10*time.Second), Message{Topic: "large", Partition: -1, Key: []byte("k"), Value: value}); err != nil {
			t.Fatalf("5 MB: %v", err)
		}
		if got := f.consume("large", 1)[0].Value; !bytes.Equal(got, value) {
			t.Errorf("read %d bytes back", len(got))
		}
		_, err := p.Produce(within(t, 10*time.Second), Message{Topic: "small", Partition: -1, Key: []byte("k"), Value: value})
		if !errors.Is(err, kerr.MessageTooLarge) || OutcomeUnknown(err) || !strings.Contains(err.Error(), "max.message.bytes=1048588") {
			t.Errorf("5 MB where 1 MB is allowed: %v", err)
		}
		// Raised while we are running.
		cl := p.Client()
		alter(t, cl, "small", "max.message.bytes", "5500000")
		if _, err := p.Produce(within(t, 10*time.Second), Message{Topic: "small", Partition: -1, Key: []byte("k"), Value: value}); err != nil {
			t.Errorf("after it was raised: %v", err)
		}
		// Lowered: the broker says so once, then we know.
		alter(t, cl, "small", "max.message.bytes", "1000000")
		for range 2 {
			_, err = p.Produce(within(t, 10*time.Second), Message{Topic: "small", Partition: -1, Key: []byte("k"), Value: value})
			if !errors.Is(err, kerr.MessageTooLarge) || OutcomeUnknown(err) {
				t.Errorf("after it was lowered: %v", err)
			}
		}
		if !strings.Contains(err.Error(), "max.message.bytes=1000000") {
			t.Errorf("the new limit is not named: %v", err)
		}
	})
}

func TestProduceLargeWithoutDescribeConfigs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(t)
		if err := f.c.CreateTopic("t", 1, map[string]string{"max.message.bytes": "6000000"}); err != nil {
			t.Fatal(err)
		}
		f.c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeConfigs}, Err: kerr.TopicAuthorizationFailed, Count: -1})
		p := f.producer(nil)
		for _, size := range []int{10, 5_000_000, 10} {
			if _, err := p.Produce(within(t, 10*time.Second), Message{Topic: "t", Partition: -1, Value: make([]byte, size)}); err != nil {
				t.Errorf("%d bytes: %v", size, err)
			}
		}
		_, err := p.Produce(within(t, 10*time.Second), Message{Topic: "t", Partition: -1, Value: make([]byte, 7_000_000)})
		if !errors.Is(err, kerr.MessageTooLarge) || OutcomeUnknown(err) {
			t.Errorf("7 MB: %v", err)
		}
	})
}

func alter(t *testing.T, cl *kgo.Client, topic, name, value string) {
	t.Helper()
	rc := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	rc.Name, rc.Value = name, &value
	rr := kmsg.NewIncrementalAlterConfigsRequestResource()
	rr.ResourceType, rr.ResourceName, rr.Configs = kmsg.ConfigResourceTypeTopic, topic, []kmsg.IncrementalAlterConfigsRequestResourceConfig{rc}
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	req.Resources = []kmsg.IncrementalAlterConfigsRequestResource{rr}
	resp, err := req.RequestWith(t.Context(), cl)
	if err == nil {
		err = kerr.ErrorForCode(resp.Resources[0].ErrorCode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// gate is a network that can be cut: dialling fails and what is open closes.
type gate struct {
	dial  func(context.Context, string, string) (net.Conn, error)
	shut  atomic.Bool
	conns chan net.Conn
}

func (g *gate) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if g.shut.Load() {
		return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("connection refused")}
	}
	c, err := g.dial(ctx, network, addr)
	if err == nil {
		g.conns <- c
	}
	return c, err
}

func (g *gate) cut() {
	g.shut.Store(true)
	for {
		select {
		case c := <-g.conns:
			c.Close()
		default:
			return
		}
	}
}

func TestProduceBrokerAway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(t, kfake.SeedTopics(1, "t"))
		g := &gate{dial: f.vn.DialContext, conns: make(chan net.Conn, 100)}
		c := f.config(nil)
		c.Dial = g.Dial
		g.shut.Store(true)
		p, err := NewProducer(c)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close(within(t, time.Minute))
		m := Message{Topic: "t", Partition: -1, Key: []byte("k"), Value: []byte("v")}
		away := func(when string) {
			t.Helper()
			start := time.Now()
			_, err := p.Produce(within(t, 10*time.Second), m)
			if took := time.Since(start); took != 10*time.Second {
				t.Errorf("%s: gave up after %v: %v", when, took, err)
			}
			if err == nil || OutcomeUnknown(err) || !strings.Contains(err.Error(), "not written") {
				t.Errorf("%s: %v, want one that says that nothing was written", when, err)
			}
		}
		away("from the start")
		g.shut.Store(false)
		if _, err := p.Produce(within(t, 10*time.Second), m); err != nil {
			t.Fatal(err)
		}
		g.cut()
		// This one may be the one that finds out: then it is on its way, and is
		// written when the broker is back. Those after it wait outside.
		_, err = p.Produce(within(t, 5*time.Second), m)
		if err == nil {
			t.Error("written to a broker that is away")
		}
		next := int64(1)
		if OutcomeUnknown(err) {
			next = 2
		}
		away("later")
		g.shut.Store(false)
		if ack, err := p.Produce(within(t, 10*time.Second), m); err != nil || ack.Offset != next {
			t.Errorf("when it is back: %+v, %v", ack, err)
		}
	})
}

func TestProduceOutcomeUnknown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(t, kfake.SeedTopics(1, "t"))
		p := f.producer(nil)
		m := Message{Topic: "t", Partition: -1, Key: []byte("k"), Value: []byte("v")}
		if _, err := p.Produce(within(t, time.Second), m); err != nil {
			t.Fatal(err)
		}
		f.c.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
			f.c.DropControl()
			f.c.SleepControl(func() { time.Sleep(3 * time.Second) })
			return nil, nil, false
		})
		_, err := p.Produce(within(t, time.Second), m)
		if !OutcomeUnknown(err) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("slow broker: %v", err)
		}
		if got := f.consume("t", 2); len(got) != 2 { // it was written after all, once
			t.Errorf("%d records", len(got))
		}
		if ack, err := p.Produce(within(t, 5*time.Second), m); err != nil || ack.Offset != 2 {
			t.Errorf("next: %+v, %v", ack, err)
		}
	})
}

// One caller that gives up must not take the records of others with it.
func TestProduceOthersSurvive(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(t, kfake.SeedTopics(1, "t"))
		p := f.producer(nil)
		hold := f.c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotLeaderForPartition, Count: -1})
		results := make(chan error, 10)
		for i := range 10 {
			ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
			defer cancel()
			if i == 0 {
				time.AfterFunc(time.Second, cancel)
			}
			go func() {
				_, err := p.Produce(ctx, Message{Topic: "t", Partition: -1, Key: fmt.Append(nil, i)})
				results <- err
			}()
		}
		if err := <-results; !errors.Is(err, context.Canceled) || !OutcomeUnknown(err) {
			t.Errorf("the caller that went away: %v", err)
		}
		hold.Remove()
		for range 9 {
			if err := <-results; err != nil {
				t.Errorf("another: %v", err)
			}
		}
	})
}

func TestProduceRefusals(t *testing.T) {
	for _, c := range []struct {
		code    *kerr.Error
		unknown bool
	}{
		{kerr.InvalidRecord, false},
		{kerr.TopicAuthorizationFailed, false},
		{kerr.PolicyViolation, false},
	} {
		bubble(t, func(t *testing.T) {
			f := newFake(t, kfake.SeedTopics(1, "t"))
			p := f.producer(nil)
			f.c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: c.code, Count: -1})
			_, err := p.Produce(within(t, 5*time.Second), Message{Topic: "t", Partition: -1})
			if !errors.Is(err, c.code) || OutcomeUnknown(err) != c.unknown {
				t.Errorf("%v: got %v", c.code, err)
			}
		})
	}
}

// A compacted topic takes no record without a key, which must be said before an async caller is told that all is well; and as
// soon as the topic is not compacted any more it does.
func TestProduceWithoutKey(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(t)
		p := f.producer(nil)
		for topic, policy := range map[string]string{"compact": "compact", "both": "compact,delete", "delete": "delete"} {
			if err := f.c.CreateTopic(topic, 1, map[string]string{"cleanup.policy": policy}); err != nil {
				t.Fatal(err)
			}
		}
		produce := func(topic string, key []byte) error {
			_, err := p.Produce(within(t, 5*time.Second), Message{Topic: topic, Key: key, Partition: -1})
			return err
		}
		for range 2 {
			for _, topic := range []string{"compact", "both"} {
				if err := produce(topic, nil); !errors.Is(err, kerr.InvalidRecord) || OutcomeUnknown(err) {
					t.Errorf("%s, no key: %v", topic, err)
				}
				if err := produce(topic, []byte{}); err != nil {
					t.Errorf("%s, an empty key: %v", topic, err)
				}
			}
			if err := produce("delete", nil); err != nil {
				t.Errorf("not compacted, no key: %v", err)
			}
		}
		alter(t, p.Client(), "compact", "cleanup.policy", "delete")
		if err := produce("compact", nil); err != nil {
			t.Errorf("no longer compacted, no key: %v", err)
		}
	})
}

func TestProducerCloseFlushes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(t, kfake.SeedTopics(1, "t"))
		p, err := NewProducer(f.config(nil))
		if err != nil {
			t.Fatal(err)
		}
		var acked atomic.Int32
		for i := range 100 {
			p.ProduceAsync(t.Context(), Message{Topic: "t", Partition: -1, Key: fmt.Append(nil, i)}, func(_ Ack, err error) {
				if err == nil {
					acked.Add(1)
				}
			})
		}
		if err := p.Close(within(t, 10*time.Second)); err != nil || acked.Load() != 100 {
			t.Errorf("close: %v, %d of 100 acknowledged", err, acked.Load())
		}
		if _, err := p.Produce(t.Context(), Message{Topic: "t"}); !errors.Is(err, ErrClosed) || OutcomeUnknown(err) {
			t.Errorf("after close: %v", err)
		}
		for i, r := range f.consume("t", 100) {
			if string(r.Key) != fmt.Sprint(i) {
				t.Errorf("record %d has key %s: out of order", i, r.Key)
			}
		}
	})
}

// On loopback: the zstd decoder's finalizer must not run inside a bubble.
func TestCompressionTypes(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "t"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	codecs := []string{"none", "gzip", "snappy", "lz4", "zstd"}
	value := bytes.Repeat([]byte("x"), 10_000)
	for _, codec := range codecs {
		p, err := NewProducer(Config{Bootstrap: c.ListenAddrs(), Properties: map[string]string{"compression.type": codec}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Produce(within(t, 10*time.Second), Message{Topic: "t", Partition: -1, Value: value}); err != nil {
			t.Errorf("%s: %v", codec, err)
		}
		p.Close(t.Context())
	}
	cl, err := NewClient(Config{Bootstrap: c.ListenAddrs()}, kgo.ConsumeTopics("t"), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for n := 0; n < len(codecs); {
		fetches := cl.PollFetches(within(t, 10*time.Second))
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		for _, r := range fetches.Records() {
			if want := uint8(n); !bytes.Equal(r.Value, value) || r.Attrs.CompressionType() != want {
				t.Errorf("%s: %d bytes, compressed as %d", codecs[n], len(r.Value), r.Attrs.CompressionType())
			}
			n++
		}
	}
	if _, err := NewProducer(Config{Bootstrap: []string{"x:1"}, Properties: map[string]string{"compression.type": "rar"}}); err == nil {
		t.Error("compression.type=rar was taken")
	}
}
