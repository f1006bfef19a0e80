package kafka

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// defaultMaxMessage is Kafka's default of max.message.bytes.
const defaultMaxMessage = 1048588

// topicFacts are what a producer knows of a topic; the value does not change.
type topicFacts struct {
	breaks     uint64 // Producer.breaks when they were asked for
	id         [16]byte
	partitions int32
	limit      int32 // max.message.bytes
	exact      bool  // limit was read from the topic, not assumed
	compacted  bool
}

// producerTopic is a producer's state of one topic.
type producerTopic struct {
	name     string
	learning chan struct{} // a mutex that a context can give up on
	known    atomic.Pointer[topicFacts]
	stale    atomic.Bool              // kgo holds on to a topic that is gone
	sure     atomic.Pointer[[16]byte] // the ID that kgo produces to; zero or nil: not known for certain

	// enqueue is held shared while a record is handed to kgo, and alone
	// while the topic moves to another client.
	enqueue  sync.RWMutex
	inflight inflight
	cl       *kgo.Client // that the records go through; guarded by enqueue
	resets   int
}

// successor is a client for topics that were reset equally often.
type successor struct {
	cl     *kgo.Client
	topics int
}

// topic waits until Kafka is in reach and the message's topic is known to
// exist and to allow the message, or says why not. This is what lets a caller
// that gives up know that nothing was written.
func (p *Producer) topic(ctx context.Context, m Message) (*producerTopic, *topicFacts, error) {
	if !LegalTopicName(m.Topic) {
		return nil, nil, fmt.Errorf("%q is not a legal topic name: %w", m.Topic, kerr.InvalidTopicException)
	}
	p.mu.Lock()
	t := p.topics[m.Topic]
	if t == nil {
		t = &producerTopic{name: m.Topic, learning: make(chan struct{}, 1), cl: p.cl}
		p.topics[m.Topic] = t
	}
	p.mu.Unlock()

	size := recordSize(m)
	known := t.known.Load()
	keyless := func() bool { return m.Key == nil && known.compacted }
	if known == nil || known.breaks != p.breaks.Load() || size > int64(known.limit) || keyless() {
		var err error
		if known, err = p.learn(ctx, t, size); err != nil {
			return nil, nil, err
		}
	}
	// recordSize is an upper bound: within its slack kgo counts exactly.
	if size-100 > int64(known.limit) {
		return nil, nil, tooLarge(m, known)
	}
	if keyless() { // Apache Kafka says the same, but only once an async caller has been told that all is well; kfake never does
		return nil, nil, fmt.Errorf("a record without a key for topic %s, which is compacted: %w", m.Topic, kerr.InvalidRecord)
	}
	if m.Partition >= known.partitions {
		return nil, nil, fmt.Errorf("topic %s has %d partitions, there is no partition %d: %w",
			m.Topic, known.partitions, m.Partition, kerr.UnknownTopicOrPartition)
	}
	return t, known, nil
}

// learn asks Kafka about a topic, unless somebody just did.
func (p *Producer) learn(ctx context.Context, t *producerTopic, size int64) (*topicFacts, error) {
	before := t.known.Load()
	select {
	case t.learning <- struct{}{}:
		defer func() { <-t.learning }()
	case <-ctx.Done():
		return nil, unreachable(ctx.Err())
	}
	breaks := p.breaks.Load()
	if now := t.known.Load(); now != nil && now != before && now.breaks == breaks && size <= int64(now.limit) {
		return now, nil
	}
	facts, err := p.ask(ctx, t.name, size)
	if err != nil {
		if errors.Is(err, kerr.UnknownTopicOrPartition) && before == nil {
			p.forget(t) // or names that nobody has would pile up
		}
		return nil, err
	}
	facts.breaks = breaks
	old, have := p.limits.Load(t.name)
	moved := before != nil && before.id != facts.id
	if t.stale.Load() || moved || !have || old.(int32) != facts.limit {
		if err := p.reset(ctx, t, facts.limit, have); err != nil {
			return nil, err
		}
	}
	t.known.Store(facts)
	return facts, nil
}

// ask makes the two requests of learn, for as long as Kafka is out of reach. A
// topic that is reported missing is asked for twice more, since a broker may
// be a moment behind the controller.
func (p *Producer) ask(ctx context.Context, name string, size int64) (*topicFacts, error) {
	facts := &topicFacts{limit: int32(min(max(defaultMaxMessage, size), 100<<20))}
	for try, missing := 1, 0; ; try++ {
		found, err := Metadata(ctx, p.cl, name)
		if err == nil {
			facts.id, facts.partitions = found.ID, int32(len(found.Partitions))
			break
		}
		if errors.Is(err, kerr.UnknownTopicOrPartition) {
			if missing++; missing == 3 {
				return nil, err
			}
		} else if Classify(err) == Fatal {
			return nil, err
		}
		pause := time.NewTimer(backoff(try))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil, asUnreachable(ctx, err)
		}
	}
	configs, err := TopicConfigs(ctx, p.cl, []string{name}, "max.message.bytes", "cleanup.policy")
	if _, kafkaSays := errors.AsType[*kerr.Error](err); err != nil && !kafkaSays {
		return nil, asUnreachable(ctx, err)
	}
	// Without DESCRIBE_CONFIGS on the topic the defaults are assumed, and a
	// record that is larger, or has no key, is left for the broker to judge.
	facts.compacted = strings.Contains(configs[name]["cleanup.policy"].Value, "compact")
	if n, err := strconv.ParseInt(configs[name]["max.message.bytes"].Value, 10, 32); err == nil {
		facts.limit, facts.exact = int32(min(max(n, 512), 100<<20)), true
	}
	return facts, nil
}

func asUnreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return unreachable(err)
	}
	return err
}

func unreachable(err error) error {
	return fmt.Errorf("Kafka cannot be reached: %w", err)
}

// reset makes kgo take a new limit, or the new incarnation of a topic, both
// of which it reads only when it first meets a topic. It waits until no
// record of the topic is under way, for they must not overtake each other.
//
// The topic moves to a client that has never met it. PurgeTopicsFromProducing
// would not do: kgo then counts the topic's sequence numbers from 0 again
// under the same producer ID, and if the incarnation is the same after all,
// the broker takes the next record for a repetition of an earlier one,
// acknowledges it and drops it.
func (p *Producer) reset(ctx context.Context, t *producerTopic, limit int32, met bool) error {
	t.enqueue.Lock()
	defer t.enqueue.Unlock()
	if err := t.inflight.wait(ctx); err != nil {
		return unreachable(err)
	}
	p.limits.Store(t.name, limit)
	if met {
		if err := p.move(t); err != nil {
			return err
		}
		t.sure.Store(new([16]byte)) // another pointer each time
	}
	t.stale.Store(false)
	return nil
}

// move gives the topic its next client, which it shares with topics that were
// reset as often, and ends the last one if no topic is left on it.
func (p *Producer) move(t *producerTopic) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := p.after[t.resets+1]
	if next == nil {
		cl, err := kgo.NewClient(p.opts...)
		if err != nil {
			return fmt.Errorf("kafka producer: %w", err)
		}
		next = &successor{cl: cl}
		p.after[t.resets+1] = next
	}
	if last := p.after[t.resets]; last != nil {
		if last.topics--; last.topics == 0 {
			delete(p.after, t.resets)
			p.again.Go(last.cl.Close)
		}
	}
	next.topics++
	t.resets++
	t.cl = next.cl
	return nil
}

// clients are all that there are.
func (p *Producer) clients() []*kgo.Client {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := []*kgo.Client{p.cl}
	for _, s := range p.after {
		all = append(all, s.cl)
	}
	return all
}

func (p *Producer) flush(ctx context.Context) error {
	for _, cl := range p.clients() {
		if err := cl.Flush(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (p *Producer) forget(t *producerTopic) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.topics[t.name] == t {
		delete(p.topics, t.name)
	}
}

// limit is called by kgo for each topic that it meets.
func (p *Producer) limit(topic string) int32 {
	if n, ok := p.limits.Load(topic); ok {
		return n.(int32)
	}
	return defaultMaxMessage
}

// inflight counts records that kgo holds. Its zero value is ready.
type inflight struct {
	mu   sync.Mutex
	n    int
	zero chan struct{} // closed when n falls to zero; nil if nobody waits
}

func (f *inflight) add() {
	f.mu.Lock()
	f.n++
	f.mu.Unlock()
}

func (f *inflight) done() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n--; f.n == 0 && f.zero != nil {
		close(f.zero)
		f.zero = nil
	}
}

func (f *inflight) wait(ctx context.Context) error {
	f.mu.Lock()
	if f.n == 0 {
		f.mu.Unlock()
		return nil
	}
	if f.zero == nil {
		f.zero = make(chan struct{})
	}
	zero := f.zero
	f.mu.Unlock()
	select {
	case <-zero:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
