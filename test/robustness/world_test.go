package robustness

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/kkv-project/kkv/internal/cache"
	"github.com/kkv-project/kkv/internal/kafkatest"
	"github.com/kkv-project/kkv/internal/node"
	"github.com/kkv-project/kkv/internal/verify"
)

const topic = "t"

// How long the stages of a run are, in the bubble's time. Faults end with trafficFor; then everything has quietFor to
// arrive.
const (
	trafficFor = 40 * time.Second
	quietFor   = 20 * time.Second
)

// world is one run: Kafka, replicas, clients and receivers in a bubble.
type world struct {
	t     *testing.T
	seed  uint64
	rec   *verify.Recorder
	kafka *kafkatest.Cluster
	http  *http.Client
	log   *slog.Logger

	direct    *way     // to Kafka, of whoever is no replica
	slow      sync.Map // kmsg.Key -> time.Duration: how much longer such requests take
	replicas  []*replica
	receivers []*receiver
	clients   sync.WaitGroup
	ending    chan struct{} // closed when traffic and faults end
	over      chan struct{} // closed when watchers may end

	// turns has a place for each writer, which holds it while it writes; who takes something out of the log holds them
	// all. A mutex would stop the bubble's clock.
	turns   chan struct{}
	topic   *verify.Topic // the incarnation there is; guarded by turns
	made    atomic.Int64  // changes when writers must open new clients
	read    []int64       // by partition: up to where the log was collected
	acked   sync.Map      // writer's number -> position.Position of its last acknowledged write
	ports   atomic.Int64
	answers atomic.Int64
	counts  counts
}

// counts say what a run exercised; a run that does nothing finds nothing.
type counts struct {
	fresh, lists, atLeast, maxStale, resumed, resets, puts, commits, posts atomic.Int64
}

const writers = 4

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, seed: seed, rec: &verify.Recorder{}, ending: make(chan struct{}), over: make(chan struct{}),
		turns: make(chan struct{}, writers), log: slog.New(slog.DiscardHandler)}
	if *verbose {
		w.log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	w.ports.Store(20000)
	born := w.rec.Now()
	// Up to this version a fetch does not name a new leader's address (KIP-951). With it, Kafka's client stops its session
	// for each move, under a mutex that its Close waits for, which stops the bubble's clock.
	versions := kversion.Stable()
	versions.SetMaxKeyVersion(int16(kmsg.Fetch), 15)
	w.kafka = kafkatest.Start(t, topic, 0, kfake.NumBrokers(3), kfake.Ports(9092, 9093, 9094), kfake.MaxVersions(versions))
	w.direct = w.newWay()
	w.createTopic(3, born)
	tr := &http.Transport{DialContext: w.kafka.Net.DialContext, MaxIdleConnsPerHost: 16}
	w.http = &http.Client{Transport: tr}
	t.Cleanup(tr.CloseIdleConnections)
	return w
}

// rand is a source of its own for each part of the world, so that one's choices do not shift another's.
func (w *world) rand(part string, n int) *rand.Rand {
	h := uint64(n) << 8
	for _, c := range []byte(part) {
		h = h*131 + uint64(c)
	}
	return rand.New(rand.NewPCG(w.seed, h))
}

// listen opens a port that was never used before.
func (w *world) listen() (net.Listener, string) {
	l, err := w.kafka.Net.Listen("tcp", fmt.Sprintf("localhost:%d", w.ports.Add(1)))
	if err != nil {
		w.t.Error(err)
	}
	return l, "http://" + l.Addr().String()
}

// pause lets a random time below d pass, and reports whether traffic goes on.
func (w *world) pause(r *rand.Rand, d time.Duration) bool {
	select {
	case <-time.After(time.Duration(r.Int64N(int64(d)))):
		return true
	case <-w.ending:
		return false
	}
}

// replica is kkv serve, restarted now and then. Each of its runs has an address of its own, so that it is known which
// of them answered.
type replica struct {
	w    *world
	name string
	way  *way

	mu  sync.Mutex
	run int // index in the history; -1 while it is down
	url string
	end func(recorded bool)

	cache *cache.Cache // of the latest run; only the nemesis, which restarts replicas, looks at it
}

func (w *world) newReplica(i int) *replica {
	r := &replica{w: w, name: fmt.Sprint("replica-", i), way: w.newWay(), run: -1}
	w.replicas = append(w.replicas, r)
	r.start(time.Millisecond)
	w.t.Cleanup(func() { r.stop(false) }) // the history says that it ran until the end
	return r
}

// at is the replica's present run and its base URL; ok is false while it is down.
func (r *replica) at() (run int, url string, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.run, r.url, r.run >= 0
}

// start begins a run, which, when it is stopped, lets requests finish for grace.
func (r *replica) start(grace time.Duration) {
	w := r.w
	l, url := w.listen()
	run := verify.Run{Replica: r.name, Started: w.rec.Now()}
	if info := w.kafka.Fake.TopicInfo(topic); info != nil {
		run.Topic = info.TopicID
		for _, p := range w.kafka.Fake.PartitionInfos(topic) {
			run.Ends = append(run.Ends, p.LastStableOffset)
		}
	}
	var targets []string
	for _, c := range w.receivers {
		run.Targets = append(run.Targets, c.name)
	}
	n := w.rec.Start(run)
	for _, c := range w.receivers {
		targets = append(targets, fmt.Sprintf("%s/%d", c.url, n))
	}
	k := w.kafka.Config()
	k.Dial = r.way.Dial
	nd, err := node.New(node.Options{Kafka: k, Topic: topic, Listener: l, Writable: true, Quiet: true, Targets: targets, PushClient: w.http,
		Backoff: 200 * time.Millisecond, Logger: w.log.With("run", n)})
	if err != nil {
		w.t.Error(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- nd.Run(ctx, grace) }()
	go func() {
		select {
		case <-nd.Cache().Ready():
			if m, err := nd.Cache().Mark(); err == nil {
				w.rec.Do(func(h *verify.History) { h.Runs[n].Ready = m.Position })
			}
		case <-ctx.Done():
		}
	}()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.run, r.url, r.cache = n, url, nd.Cache()
	r.end = func(recorded bool) {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.DeadlineExceeded) { // its producer may not have flushed
			w.t.Errorf("%s ends with: %v", r.name, err)
		}
		if recorded {
			w.rec.Do(func(h *verify.History) { h.Runs[n].Ended = w.rec.Now() })
		}
	}
}

// stop ends the run, if there is one.
func (r *replica) stop(recorded bool) {
	r.mu.Lock()
	end := r.end
	r.run, r.end = -1, nil
	r.mu.Unlock()
	if end != nil {
		end(recorded)
	}
}

// way is the connections of one replica, or of all writers, to Kafka. They can be cut and kept from coming back.
type way struct {
	w *world

	mu      sync.Mutex
	conns   map[net.Conn]bool
	blocked bool
	late    time.Duration // what arrives is handed over so much later
}

func (w *world) newWay() *way { return &way{w: w, conns: map[net.Conn]bool{}} }

var errBlocked = errors.New("the network is cut")

func (y *way) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	y.mu.Lock()
	blocked := y.blocked
	y.mu.Unlock()
	if blocked {
		return nil, &net.OpError{Op: "dial", Net: network, Err: errBlocked}
	}
	c, err := y.w.kafka.Dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	y.conns[c] = true
	return conn{c, y}, nil
}

// cut closes all connections; blocked says whether new ones are refused from here on.
func (y *way) cut(blocked bool) {
	y.mu.Lock()
	conns := y.conns
	y.conns, y.blocked = map[net.Conn]bool{}, blocked
	y.mu.Unlock()
	for c := range conns {
		_ = c.Close() // cut off on purpose
	}
}

// mend ends what cut and delay began.
func (y *way) mend() {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.blocked, y.late = false, 0
}

func (y *way) delay(d time.Duration) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.late = d
}

// conn takes its time.
type conn struct {
	net.Conn
	y *way
}

func (c conn) Close() error {
	c.y.mu.Lock()
	delete(c.y.conns, c.Conn)
	c.y.mu.Unlock()
	return c.Conn.Close()
}

// roundTrip is what every request to Kafka takes at least. With none, Kafka's client asks again and again in no time
// while it waits for something else, such as where a leader is now, and the bubble's clock stands still.
const roundTrip = 500 * time.Microsecond

// Write is of one whole request, whose kind stands behind its length (Kafka's protocol guide).
func (c conn) Write(b []byte) (int, error) {
	d := roundTrip
	if len(b) >= 6 {
		if more, ok := c.y.w.slow.Load(kmsg.Key(binary.BigEndian.Uint16(b[4:]))); ok {
			d += more.(time.Duration)
		}
	}
	<-time.After(d)
	return c.Conn.Write(b)
}

func (c conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.y.mu.Lock()
	late := c.y.late
	c.y.mu.Unlock()
	if late > 0 {
		<-time.After(late)
	}
	return n, err
}

// discard empties and closes a body, so that its connection can be used again.
func discard(body io.ReadCloser) {
	_, _ = io.Copy(io.Discard, body)
	_ = body.Close()
}
