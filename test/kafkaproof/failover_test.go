package kafkaproof

import (
	"context"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kkv-project/kkv/internal/position"
	"github.com/kkv-project/kkv/internal/verify"
	"github.com/kkv-project/kkv/test/harness"
)

// testLeaderKills kills the leader of one partition after the other, three times, under writers with and without transactions, and
// readers in every mode and watchers on two replicas. What all of them saw goes through every checker of internal/verify.
func (c *cluster) testLeaderKills(t *testing.T) {
	const partitions, writes = 3, 20 // of each writer, between two things that happen to brokers
	topic := c.topic(t, partitions, map[string]string{"min.insync.replicas": "2"})
	l := newLoad(t, c.kafka, topic, partitions)
	for range 2 {
		l.serve()
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	l.run(ctx)
	for round := range 3 {
		l.awaitWrites(writes)
		b := c.leader(t, topic, int32(round%partitions), 3)
		began := time.Now()
		b.Kill()
		l.awaitWrites(writes) // to the leaders that there are now
		t.Logf("broker %d killed; every writer had %d more writes acknowledged after %v", b.ID, writes, time.Since(began).Round(time.Millisecond))
		b.Restart()
		c.leader(t, topic, 0, 3)
	}
	l.awaitWrites(writes)
	cancel()
	l.finish()
}

// load is what goes on while brokers die, and the history of it.
type load struct {
	t          *testing.T
	k          *kafka
	topic      string
	topicID    [16]byte
	partitions int32
	rec        verify.Recorder
	log        *verify.Topic
	replicas   []replica // by run
	watches    []*watch

	acked            []atomic.Int64 // how many writes, or transactions, by writer: one of each partition, the last with transactions
	written          chan verify.Write
	writers, readers sync.WaitGroup
	stopReaders      context.CancelFunc

	mu      sync.Mutex
	known   []string            // keys that were written
	reached []position.Position // by run, what its watch has named
	answers map[string]int      // by what was asked and the status
}

func newLoad(t *testing.T, k *kafka, topic string, partitions int32) *load {
	l := &load{t: t, k: k, topic: topic, partitions: partitions, acked: make([]atomic.Int64, partitions+1), written: make(chan verify.Write, 1), answers: map[string]int{}}
	details, err := k.admin.ListTopics(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	l.topicID = details[topic].ID
	now := l.rec.Now()
	l.rec.Do(func(h *verify.History) { l.log = h.Log.Add(l.topicID, now, now) })
	return l
}

// serve starts a replica, a run of the history.
func (l *load) serve() {
	l.t.Helper()
	run := verify.Run{Replica: fmt.Sprint("replica-", len(l.replicas)), Started: l.rec.Now(), Topic: l.topicID, Ends: l.ends()}
	r := l.k.serve(l.t, l.topic)
	run.Ready = l.parse(r.get(l.t, "any").Header.Get("Kkv-Position"))
	l.rec.Start(run)
	l.replicas = append(l.replicas, r)
	l.watches = append(l.watches, r.watch(l.t, ""))
	l.reached = append(l.reached, position.Position{})
}

// ends are the last stable offsets.
func (l *load) ends() []int64 {
	l.t.Helper()
	listed, err := l.k.admin.ListCommittedOffsets(l.t.Context(), l.topic)
	if err != nil || listed.Error() != nil {
		l.t.Fatal(err, listed.Error())
	}
	ends := make([]int64, l.partitions)
	for i := range ends {
		o, _ := listed.Lookup(l.topic, int32(i))
		ends[i] = o.Offset
	}
	return ends
}

func (l *load) parse(text string) position.Position {
	p, err := position.Parse(text)
	if err != nil {
		l.t.Error(err)
	}
	return p
}

// run starts the writers, which end with ctx, and the readers.
func (l *load) run(ctx context.Context) {
	var rctx context.Context
	rctx, l.stopReaders = context.WithCancel(context.WithoutCancel(ctx))
	for p := range l.partitions {
		client := l.k.producer(l.t, l.topic)
		l.writers.Go(func() { l.write(ctx, client, p) })
	}
	l.writers.Go(func() { l.transact(ctx) })
	for run := range l.replicas {
		l.readers.Go(func() { l.follow(run) })
		l.readers.Go(func() { l.readFresh(rctx, run) })
	}
	l.readers.Go(func() { l.readWritten(rctx) })
	l.readers.Go(func() { l.readSession(rctx) })
}

// awaitWrites waits until every writer has had so many more writes acknowledged.
func (l *load) awaitWrites(n int64) {
	l.t.Helper()
	var from []int64
	for i := range l.acked {
		from = append(from, l.acked[i].Load())
	}
	harness.Eventually(l.t, patience, nil, func() error {
		for i := range l.acked {
			if got := l.acked[i].Load() - from[i]; got < n {
				return fmt.Errorf("writer %d had %d writes acknowledged, want %d", i, got, n)
			}
		}
		return nil
	})
}

// idHeader names a write in its record.
const idHeader = "id"

// prepare makes the n-th write of a writer to a partition: every seventh deletes, and a key is left after 40 writes, for the
// more there are of one key, the longer porcupine takes.
func (l *load) prepare(writer string, partition int32, n int) (*kgo.Record, verify.Write) {
	w := verify.Write{Key: fmt.Sprintf("%s-%d-%d", writer, partition, n/40), Deleted: n%7 == 6, Topic: l.topicID, Partition: partition, Served: -1}
	w.ID = fmt.Sprintf("%s-%d-write-%d", writer, partition, n)
	var value []byte
	if !w.Deleted {
		w.Value = w.ID
		value = []byte(w.Value)
	}
	if n%40 == 0 {
		l.mu.Lock()
		l.known = append(l.known, w.Key)
		l.mu.Unlock()
	}
	rec := record(partition, w.Key, value)
	rec.Headers = []kgo.RecordHeader{{Key: idHeader, Value: []byte(w.ID)}}
	w.Call = l.rec.Now()
	return rec, w
}

// write sends one record after the other with acks=all, however long it takes each.
func (l *load) write(ctx context.Context, client *kgo.Client, partition int32) {
	for n := 0; ctx.Err() == nil; n++ {
		rec, w := l.prepare("plain", partition, n)
		if err := client.ProduceSync(context.WithoutCancel(ctx), rec).FirstErr(); err != nil {
			l.t.Errorf("%v: %v", w, err)
			return
		}
		w.Offset, w.Outcome, w.Return = rec.Offset, verify.Acked, l.rec.Now()
		l.rec.Write(w)
		l.acked[partition].Add(1)
		select {
		case l.written <- w:
		default:
		}
	}
}

// transact writes to every partition in one transaction after the other, and aborts every third. After an error, which leaves open
// whether it was committed, a new client of the same transactional ID has Kafka decide it (KIP-98).
func (l *load) transact(ctx context.Context) {
	var client *kgo.Client
	defer func() {
		if client != nil {
			client.Close()
		}
	}()
	for n := 0; ctx.Err() == nil; n++ {
		if client == nil {
			var err error
			if client, err = kgo.NewClient(append(l.k.producing(l.topic), kgo.TransactionalID(l.topic))...); err != nil {
				l.t.Error(err)
				return
			}
		}
		var records []*kgo.Record
		var writes []verify.Write
		for p := range l.partitions {
			rec, w := l.prepare("tx", p, n)
			records, writes = append(records, rec), append(writes, w)
		}
		how, outcome := kgo.TryCommit, verify.Acked
		if n%3 == 2 {
			how, outcome = kgo.TryAbort, verify.Refused
		}
		if err := transaction(client, records, how); err != nil {
			l.t.Logf("transaction %d: %v", n, err)
			outcome = verify.Unknown
			client.Close()
			client = nil
		} else {
			l.acked[l.partitions].Add(1)
		}
		now := l.rec.Now()
		for i, w := range writes {
			w.Offset, w.Outcome, w.Return = records[i].Offset, outcome, now
			l.rec.Write(w)
		}
	}
}

func transaction(client *kgo.Client, records []*kgo.Record, how kgo.TransactionEndTry) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := client.BeginTransaction(); err != nil {
		return err
	}
	if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return err
	}
	return client.EndTransaction(ctx, how)
}

// etag is the record's place; see GUARANTEES rule 18.
var etag = regexp.MustCompile(`^"[0-9a-f]{8}-(\d+)-\d+-(\d+)"$`)

// get asks a run for a key. Only an answer about the key and a 504 may come; it returns false for the latter.
func (l *load) get(run int, read verify.Read, key string, headers ...string) (verify.Read, bool) {
	read.Run, read.MaxStale, read.Age, read.Call = run, -1, -1, l.rec.Now()
	r := l.replicas[run]
	res, err := harness.Try(r.URL, "GET", r.keyRoute(key), nil, append(headers, "Kkv-Timeout: 10s"))
	if err != nil {
		l.t.Errorf("GET %s: %v", key, err)
		return read, false
	}
	read.Return, read.Status = l.rec.Now(), res.Status
	switch res.Status {
	case 200, 404:
		item := verify.Item{Key: key, Absent: res.Status == 404}
		if !item.Absent {
			item.Value = string(res.Body)
			m := etag.FindStringSubmatch(res.Header.Get("Etag"))
			if m == nil {
				l.t.Errorf("ETag %q", res.Header.Get("Etag"))
				return read, false
			}
			partition, _ := strconv.Atoi(m[1]) // digits
			item.Partition = int32(partition)
			item.Offset, _ = strconv.ParseInt(m[2], 10, 64)
		}
		read.Items = []verify.Item{item}
		read.Position = l.parse(res.Header.Get("Kkv-Position"))
		if ms, err := strconv.Atoi(res.Header.Get("Kkv-Age-Ms")); err == nil {
			read.Age = time.Duration(ms) * time.Millisecond
		}
	case 504:
		read.Problem = "behind"
	default:
		l.t.Errorf("GET %s: %s", key, res)
	}
	l.rec.Read(read)
	return read, res.Status != 504
}

// tally counts answers by what was asked for.
func (l *load) tally(asked string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.answers[asked]++; !ok {
		l.answers[asked+" answered 504"]++
	}
}

// some is a key that was written, of the newest ones rather.
func (l *load) some() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.known) == 0 {
		return "none"
	}
	return l.known[max(0, len(l.known)-1-rand.IntN(12))]
}

func (l *load) readFresh(ctx context.Context, run int) {
	for ctx.Err() == nil {
		_, ok := l.get(run, verify.Read{Fresh: true}, l.some(), fresh)
		l.tally("fresh", ok)
	}
}

// readWritten asks any replica for what was just written, by the partition and offset that its writer knows.
func (l *load) readWritten(ctx context.Context) {
	for {
		select {
		case w := <-l.written:
			at := position.FromWrite([16]byte{}, w.Partition, w.Offset)
			_, ok := l.get(rand.IntN(len(l.replicas)), verify.Read{AtLeast: []position.Position{at}}, w.Key, atLeast(fmt.Sprintf("%d:%d", w.Partition, w.Offset)))
			l.tally("at least a write", ok)
		case <-ctx.Done():
			return
		}
	}
}

// readSession goes from replica to replica with the position of the answer before.
func (l *load) readSession(ctx context.Context) {
	pace := time.NewTicker(5 * time.Millisecond)
	defer pace.Stop()
	var session verify.Read
	var headers []string
	for i := 0; ; i++ {
		answer, ok := l.get(i%len(l.replicas), session, l.some(), headers...)
		l.tally("at least the session's position", ok)
		if ok {
			session = verify.Read{AtLeast: []position.Position{answer.Position}}
			headers = []string{atLeast(answer.Position.String())}
		}
		select {
		case <-pace.C:
		case <-ctx.Done():
			return
		}
	}
}

// follow records a run's watch until it is stopped.
func (l *load) follow(run int) {
	s := verify.Stream{Run: run, Call: l.rec.Now(), Final: true}
	for {
		e, ok := l.watches[run].next()
		if !ok {
			l.rec.Stream(s)
			return
		}
		if e.Type == "reset" {
			l.t.Errorf("watch: %+v, though nothing was lost", e)
		}
		ve := verify.Event{Type: e.Type, Key: e.Key, Value: e.value(), Partition: e.Partition, Offset: e.Offset, Position: l.parse(e.Position), Reason: e.Reason}
		s.Events = append(s.Events, ve)
		if !ve.Position.IsZero() {
			l.mu.Lock()
			l.reached[run] = ve.Position
			l.mu.Unlock()
		}
	}
}

// finish ends the load once the watches have named the end of the log, takes the log from Kafka, and has everything checked.
func (l *load) finish() {
	l.t.Helper()
	l.writers.Wait()
	parts := make([]position.Partition, l.partitions)
	for i, end := range l.ends() {
		parts[i] = position.Partition{Next: end, Epoch: position.EpochUnknown}
	}
	theEnd := position.New(l.topicID, time.Now(), parts)
	harness.Eventually(l.t, patience, nil, func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		for run, p := range l.reached {
			if !p.Covers(theEnd) {
				return fmt.Errorf("the watch of run %d has come to %s, want %s", run, p, theEnd)
			}
		}
		return nil
	})
	l.stopReaders()
	for _, w := range l.watches {
		w.stop()
	}
	l.readers.Wait()
	for run, r := range l.replicas {
		l.get(run, verify.Read{Fresh: true, Final: true}, l.some(), fresh)
		r.wantLog(l.t, l.k)
	}
	for _, rec := range l.k.read(l.t, l.topic) {
		if rec.Attrs.IsControl() {
			continue
		}
		l.log.Append(verify.Record{Key: string(rec.Key), Value: string(rec.Value), Deleted: rec.Value == nil, Partition: rec.Partition, Offset: rec.Offset,
			Timestamp: rec.Timestamp.UnixMilli(), ID: string(rec.Headers[0].Value)})
	}
	l.rec.Do(func(h *verify.History) { h.End = theEnd })
	h := l.rec.History()
	if err := verify.Check(h); err != nil {
		l.t.Error(err)
	}
	l.t.Logf("%d writes, %v, %d reads", len(h.Writes), l.answers, len(h.Reads))
}
