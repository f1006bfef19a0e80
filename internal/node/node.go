// Package node wires the packages into the two servers that kkv is: a cache with its doors, and the gateway. The commands run
// them, and kkvtest does for users' tests.
package node

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/kkv-project/kkv/internal/cache"
	"github.com/kkv-project/kkv/internal/httpapi"
	"github.com/kkv-project/kkv/internal/ingest"
	"github.com/kkv-project/kkv/internal/kafka"
	"github.com/kkv-project/kkv/internal/webhook"
)

// Options are what a cache process is made of.
type Options struct {
	Kafka           kafka.Config
	Topic           string
	Listener        net.Listener
	Writable        bool
	ReadUncommitted bool
	PushHistory     bool
	Targets         []string     // URLs of webhooks
	Service         *Service     // whose pods get updates beside Targets; may be nil
	PushClient      *http.Client // sends the webhooks; nil: one of their own
	Backoff         time.Duration
	WebhookV2       bool
	WebhookSecrets  []webhook.Secret
	WebhookLookback time.Duration
	WebhookResume   string // file
	MaxBytes        int64  // of the store; 0: no limit
	UnreadyAtLimit  bool
	UnreadyWhenAway bool // while Kafka is
	Fresh           bool
	Quiet           bool // do not say that it is ready: the banner does
	ListTimeout     time.Duration
	MaxWatchers     int             // open at a time; 0: no bound
	Drain           time.Duration   // how long to go on, unready, once told to end
	Acked           func(kafka.Ack) // hears of every write through this node, acknowledged and not answered yet; must not block; may be nil
	Logger          *slog.Logger
}

// fetchShare: what is in flight between Kafka and the store takes up to ten times the bytes of one fetch, and comes on top of MaxBytes.
// Measured in 100 MiB: with Kafka's own bound, or our 8 MiB, loading 45 MB of records did not survive.
const fetchShare = 64

// Node is one cache with its HTTP door and its pushes.
type Node struct {
	o        Options
	cache    *cache.Cache
	push     *webhook.Dispatcher
	server   *httpapi.Server
	producer *kafka.Producer // nil unless writable
}

// New makes a Node; nothing runs before Run. Its error is that of the Kafka settings.
func New(o Options) (*Node, error) {
	n := &Node{o: o}
	n.cache = cache.New(cache.Options{AnnounceHistory: o.PushHistory, MaxBytes: o.MaxBytes,
		Ingest: ingest.Options{Kafka: o.Kafka, Topic: o.Topic, ReadUncommitted: o.ReadUncommitted, FetchBytes: o.MaxBytes / fetchShare, Logger: o.Logger}})
	targets := webhook.Static(o.Targets...)
	if o.Service != nil {
		targets = webhook.Merge(targets, o.Service)
	}
	n.push = webhook.New(webhook.Options{Source: n.cache, Topic: o.Topic, Targets: targets, Client: o.PushClient, Backoff: o.Backoff,
		V2: o.WebhookV2, Secrets: o.WebhookSecrets, Lookback: o.WebhookLookback, Resume: o.WebhookResume, History: o.PushHistory, Loading: n.loading, Logger: o.Logger})
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		httpapi.NewCollector(n.cache, n.pushStats))
	opts := httpapi.Options{Cache: n.cache, Gatherer: reg, Fresh: o.Fresh, UnreadyAtLimit: o.UnreadyAtLimit, UnreadyWhenAway: o.UnreadyWhenAway,
		ListTimeout: o.ListTimeout, MaxWatchers: o.MaxWatchers, Logger: o.Logger}
	if o.Writable {
		p, err := kafka.NewProducer(o.Kafka)
		if err != nil {
			return nil, err
		}
		n.producer, opts.Producer = p, p
		if o.Acked != nil {
			opts.Producer = told{p, o.Acked}
		}
	}
	n.server = httpapi.New(opts)
	reg.MustRegister(httpapi.Watchers(n.server))
	return n, nil
}

// told is a producer that says when a write was acknowledged.
type told struct {
	httpapi.Producer
	acked func(kafka.Ack)
}

func (t told) Produce(ctx context.Context, m kafka.Message) (kafka.Ack, error) {
	a, err := t.Producer.Produce(ctx, m)
	if err == nil {
		t.acked(a)
	}
	return a, err
}

func (n *Node) loading() bool {
	select {
	case <-n.cache.Ready():
		return false
	default:
		return true
	}
}

func (n *Node) pushStats() httpapi.PushStats {
	s := n.push.Stats()
	p := httpapi.PushStats{Dispatched: int64(s.Dispatched), Deduplicated: int64(s.Suppressed), OK: int64(s.OK), Failed: int64(s.Failures),
		InvalidKeys: int64(s.InvalidKeys)}
	if n.o.Service != nil {
		watch := n.o.Service.Endpoints.Stats()
		p.Down, p.Events = watch.Down, watch.Events
	}
	for _, t := range s.Targets {
		p.Targets = append(p.Targets, httpapi.TargetStats{ID: t.ID, Pending: t.PendingKeys, Oldest: t.OldestPending,
			Merged: int64(t.Merged), Retries: int64(t.Retries)})
	}
	return p
}

// Run serves until ctx ends, which is no error. Then it drains: unready at once, it goes on as before for Options.Drain, so that
// who balances load has time to notice; ends the streams; and lets what is under way finish within grace. Only after the last
// answer the reader of the topic ends, for a PUT is answered once it was read.
func (n *Node) Run(ctx context.Context, grace time.Duration) error {
	live, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, gctx := errgroup.WithContext(live)
	g.Go(func() error {
		if err := n.cache.Run(gctx); err != nil {
			return kafka.Explain(err)
		}
		return nil
	})
	g.Go(func() error { return n.push.Run(gctx) })
	g.Go(func() error { n.report(gctx); return nil })
	g.Go(func() error {
		defer stop()
		return n.serve(ctx, gctx, grace)
	})
	err := g.Wait()
	if n.producer != nil {
		cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		err = errors.Join(err, n.producer.Close(cctx))
	}
	return err
}

// serve answers until ctx has ended and the node has drained, or broken ends: then a part of the node has failed.
func (n *Node) serve(ctx, broken context.Context, grace time.Duration) error {
	open, shut := context.WithCancel(broken)
	defer shut()
	defer context.AfterFunc(open, n.server.EndStreams)()
	defer context.AfterFunc(ctx, func() {
		n.server.Drain()
		if !n.loading() { // else nobody was sent here yet
			select {
			case <-time.After(n.o.Drain):
			case <-broken.Done():
			}
		}
		shut()
	})()
	return ServeHTTP(open, n.o.Listener, httpapi.LoopbackOnly(n.o.Listener.Addr(), n.server), n.o.Logger, grace)
}

const reportEvery = 10 * time.Second

// report says how a load goes on, every 10 s until the cache is ready, and once when memory runs short.
func (n *Node) report(ctx context.Context) {
	began := time.Now()
	t := time.NewTicker(reportEvery)
	defer t.Stop()
	ready, short := n.cache.Ready(), false
	for {
		select {
		case <-ready:
			ready = nil
			if n.o.Quiet {
				continue
			}
			st := n.cache.Status()
			n.o.Logger.Info("ready", "topic", st.Topic, "keys", st.Keys, "bytes", st.Bytes, "partitions", len(st.Partitions), "took", time.Since(began).Round(time.Millisecond))
		case <-t.C:
		case <-ctx.Done():
			return
		}
		st := n.cache.Status()
		if r := st.Replay; r != nil {
			left := "unknown"
			if r.Left >= 0 {
				left = r.Left.Round(time.Second).String()
			}
			n.o.Logger.Info("loading", "topic", st.Topic, "records", r.Records, "bytes", r.Bytes, "percent", int(r.Done*100),
				"records/s", int(float64(r.Records)/max(r.Took.Seconds(), 0.001)), "left", left)
		}
		if full := st.Full(); full >= 0.9 && !short {
			short = true
			n.o.Logger.Warn("memory runs short: when --max-bytes is reached, partitions stand still until there is room; raise it", "topic", st.Topic,
				"percent", int(full*100), "limit", st.MaxBytes, "held", st.Held)
		} else if full < 0.8 {
			short = false
		}
	}
}

// Cache is what the node serves.
func (n *Node) Cache() *cache.Cache { return n.cache }
