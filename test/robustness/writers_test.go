package robustness

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kkv-project/kkv/internal/position"
	"github.com/kkv-project/kkv/internal/verify"
)

// writeID is the record header that names a write, so that one of unknown outcome is found in the log.
const writeID = "Op"

// prefixes of keys. "m/" keys are written to whatever partition, so that some live in several.
var prefixes = []string{"a/", "b/", "m/"}

const keysEach = 8

func anyKey(r *rand.Rand) string {
	return prefixes[r.IntN(len(prefixes))] + strconv.Itoa(r.IntN(keysEach))
}

// writer writes one way until traffic ends.
type writer struct {
	w    *world
	n    int
	r    *rand.Rand
	ops  int
	cl   *kgo.Client
	made int64 // world.made when cl was opened
}

func (w *world) newWriter(n int) *writer { return &writer{w: w, n: n, r: w.rand("writer", n)} }

// run calls write again and again, each time in the writer's turn.
func (x *writer) run(every time.Duration, write func()) {
	for x.w.pause(x.r, every) {
		x.w.turns <- struct{}{}
		write()
		<-x.w.turns
	}
	x.close()
}

func (x *writer) close() {
	if x.cl != nil {
		x.cl.Close()
		x.cl = nil
	}
}

// next begins a write of a random key.
func (x *writer) next() verify.Write {
	x.ops++
	op := verify.Write{ID: fmt.Sprintf("%d.%d", x.n, x.ops), Key: anyKey(x.r), Served: -1}
	if op.Deleted = x.r.IntN(5) == 0; !op.Deleted {
		op.Value = fmt.Sprintf(`{"v":%q}`, op.ID)
		if x.r.IntN(4) == 0 {
			op.Value = op.ID + " not JSON\n"
		}
	}
	op.Call = x.w.rec.Now()
	return op
}

// client is a producer for the present incarnation, for Kafka's clients never adopt another one.
func (x *writer) client(opts ...kgo.Opt) *kgo.Client {
	if made := x.w.made.Load(); x.cl == nil || x.made != made {
		x.close()
		opts = append([]kgo.Opt{kgo.SeedBrokers(x.w.kafka.Fake.ListenAddrs()...), kgo.Dialer(x.w.direct.Dial), kgo.ProducerLinger(0),
			kgo.RecordPartitioner(partitioner{kgo.StickyKeyPartitioner(nil)}), kgo.RecordDeliveryTimeout(5 * time.Second),
			kgo.MetadataMinAge(250 * time.Millisecond), kgo.DefaultProduceTopic(topic)}, opts...)
		cl, err := kgo.NewClient(opts...)
		if err != nil {
			x.w.t.Error(err)
		}
		x.cl, x.made = cl, made
	}
	return x.cl
}

// record is op for Kafka. Keys of several partitions have times that go back, too.
func (x *writer) record(op *verify.Write) *kgo.Record {
	r := &kgo.Record{Key: []byte(op.Key), Headers: []kgo.RecordHeader{{Key: writeID, Value: []byte(op.ID)}}}
	if !op.Deleted {
		r.Value = []byte(op.Value)
	}
	if op.Key[0] == 'm' {
		r.Context = context.WithValue(context.Background(), anywhere{}, x.r.IntN(8))
		r.Timestamp = time.Now().Add(-time.Duration(x.r.Int64N(int64(5 * time.Second))))
	}
	return r
}

// anywhere marks a record that goes to a partition at random, as from a producer with another partitioner.
type anywhere struct{}

type partitioner struct{ kgo.Partitioner }

type topicPartitioner struct{ kgo.TopicPartitioner }

func (p partitioner) ForTopic(t string) kgo.TopicPartitioner {
	return topicPartitioner{p.Partitioner.ForTopic(t)}
}

func (topicPartitioner) RequiresConsistency(*kgo.Record) bool { return true }

func (p topicPartitioner) Partition(r *kgo.Record, n int) int {
	if r.Context != nil {
		if i, ok := r.Context.Value(anywhere{}).(int); ok {
			return i % n
		}
	}
	return p.TopicPartitioner.Partition(r, n)
}

// done records how op ended.
func (x *writer) done(op verify.Write, o verify.Outcome) {
	op.Return, op.Outcome = x.w.rec.Now(), o
	if o == verify.Acked && op.Topic == [16]byte{} {
		op.Topic = x.w.topic.ID
	}
	if o == verify.Acked {
		x.w.acked.Store(x.n, position.FromWrite(op.Topic, op.Partition, op.Offset))
	}
	x.w.rec.Write(op)
}

// plain produces one record and waits for its acknowledgement.
func (x *writer) plain() {
	op := x.next()
	r := x.record(&op)
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	if err := x.client().ProduceSync(ctx, r).FirstErr(); err != nil {
		x.done(op, verify.Unknown)
		x.close() // what it still holds must not be written later, but may be
		return
	}
	op.Partition, op.Offset = r.Partition, r.Offset
	x.done(op, verify.Acked)
}

// transaction writes a few records and commits or aborts, some time later.
func (x *writer) transaction() {
	cl := x.client(kgo.TransactionalID(fmt.Sprint("x", x.n, ".", x.w.made.Load())), kgo.TransactionTimeout(10*time.Second))
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	ops, err := x.within(ctx, cl)
	commit := err == nil && x.r.IntN(3) > 0
	if err == nil {
		err = cl.EndTransaction(ctx, kgo.TransactionEndTry(commit))
	}
	for _, op := range ops {
		switch {
		case err != nil:
			x.done(op, verify.Unknown)
		case commit:
			x.w.counts.commits.Add(1)
			x.done(op, verify.Acked)
		default:
			x.done(op, verify.Refused)
		}
	}
	if err != nil {
		x.close() // the next one fences this one off
	}
}

// within writes inside of a transaction.
func (x *writer) within(ctx context.Context, cl *kgo.Client) (ops []verify.Write, err error) {
	if err := cl.BeginTransaction(); err != nil {
		return nil, err
	}
	for range 1 + x.r.IntN(4) {
		op := x.next()
		r := x.record(&op)
		err = cl.ProduceSync(ctx, r).FirstErr()
		op.Partition, op.Offset = r.Partition, r.Offset
		if ops = append(ops, op); err != nil {
			return ops, err
		}
	}
	open := 20 * time.Millisecond
	if x.r.IntN(8) == 0 {
		open = 3 * time.Second
	}
	<-time.After(time.Duration(x.r.Int64N(int64(open))))
	return ops, nil
}

// http writes by PUT and DELETE, at any replica.
func (x *writer) http() {
	run, url, ok := x.w.replicas[x.r.IntN(len(x.w.replicas))].at()
	if !ok {
		return
	}
	op := x.next()
	method, body := http.MethodPut, []byte(op.Value)
	if op.Deleted {
		method, body = http.MethodDelete, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url+"/v1/topics/"+topic+"/keys/"+op.Key+"?timeout=4s", bytes.NewReader(body))
	if err != nil {
		x.w.t.Error(err)
		return
	}
	req.Header.Set("X-Kafka-"+writeID, base64.StdEncoding.EncodeToString([]byte(op.ID)))
	resp, err := x.w.http.Do(req)
	if err != nil {
		x.done(op, verify.Unknown)
		return
	}
	defer discard(resp.Body)
	switch resp.StatusCode {
	case http.StatusOK, http.StatusAccepted:
		x.answered(&op, resp, run)
	case http.StatusServiceUnavailable: // not sent
		x.done(op, verify.Refused)
	case http.StatusGatewayTimeout:
		x.done(op, verify.Unknown)
	default:
		x.w.t.Errorf("%s answers %s", method, resp.Status)
		x.done(op, verify.Unknown)
	}
}

// answered takes in what an acknowledged PUT or DELETE says.
func (x *writer) answered(op *verify.Write, resp *http.Response, run int) {
	var a struct {
		Partition int32
		Offset    int64
	}
	p, err := position.Parse(resp.Header.Get("Kkv-Position"))
	if err == nil {
		err = json.NewDecoder(resp.Body).Decode(&a)
	}
	if err != nil { // cut off in the middle
		x.done(*op, verify.Unknown)
		return
	}
	x.w.counts.puts.Add(1)
	op.Partition, op.Offset, op.Position, op.Topic = a.Partition, a.Offset, p, p.TopicID()
	if resp.StatusCode == http.StatusOK {
		op.Served = run
	}
	x.done(*op, verify.Acked)
}
