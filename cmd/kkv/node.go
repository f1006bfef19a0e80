package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/kkv-project/kkv/internal/cache"
	"github.com/kkv-project/kkv/internal/config"
	"github.com/kkv-project/kkv/internal/gateway"
	"github.com/kkv-project/kkv/internal/httpapi"
	"github.com/kkv-project/kkv/internal/ingest"
	"github.com/kkv-project/kkv/internal/kafka"
	"github.com/kkv-project/kkv/internal/webhook"
)

// listen opens a TCP address for what the flag names; port 0 picks a free one.
func listen(flag, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	return l, taken(err, flag, addr)
}

// taken says what to do where a port is in use.
func taken(err error, flag, addr string) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		host, _, _ := net.SplitHostPort(addr)
		return fmt.Errorf("the address %s is in use: end what listens there, or choose another with --%s (%s picks a free port)", addr, flag, net.JoinHostPort(host, "0"))
	}
	return fmt.Errorf("listen for --%s: %w", flag, err)
}

// serveHTTP answers on l until ctx ends, and then lets what is under way finish within grace.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler, logger *slog.Logger, grace time.Duration) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug)}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if srv.Shutdown(sctx) != nil {
		_ = srv.Close() // out of time: cut off what is left
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve on %s: %w", l.Addr(), err)
	}
	return nil
}

func kafkaConfig(k config.Kafka, logger *slog.Logger) (kafka.Config, error) {
	props, err := kafka.LoadProperties(k.ConfigFile, k.Property)
	if err != nil {
		return kafka.Config{}, err
	}
	c := kafka.Config{Bootstrap: k.Bootstrap, Properties: props, Logger: logger}
	_, err = c.Options() // names a fault before anything starts
	return c, err
}

// createTopic makes the topic, compacted, trying until Kafka answers; it ends with what Kafka calls fatal.
func createTopic(ctx context.Context, k kafka.Config, name string, partitions int32, replication int16, logger *slog.Logger) error {
	cl, err := kafka.NewClient(k)
	if err != nil {
		return err
	}
	end := sync.OnceFunc(cl.Close)
	defer end()
	defer context.AfterFunc(ctx, end)() // a broker may take connections and never answer
	wait := 100 * time.Millisecond
	for said := false; ; said = true {
		cctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		err = kafka.CreateTopic(cctx, cl, name, partitions, replication, map[string]string{"cleanup.policy": "compact"})
		cancel()
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if kafka.Classify(err) == kafka.Fatal {
			return withHint(err)
		}
		if !said {
			logger.Warn("cannot create the topic yet, trying again until it works", "topic", name, "error", withHint(err))
		}
		select {
		case <-time.After(wait):
			wait = min(2*wait, 5*time.Second)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func withHint(err error) error {
	if hint := kafka.Hint(err); hint != "" {
		return fmt.Errorf("%w; %s", err, hint)
	}
	return err
}

// nodeOptions are what a cache process is made of.
type nodeOptions struct {
	kafka           kafka.Config
	topic           string
	listener        net.Listener
	writable        bool
	readUncommitted bool
	pushHistory     bool
	targets         []string
	backoff         time.Duration
	maxBytes        int64 // of the store; 0: no limit
	unreadyAtLimit  bool
	fresh           bool
	quiet           bool // do not say that it is ready: the banner does
	listTimeout     time.Duration
	logger          *slog.Logger
}

// node is one cache with its HTTP door and its pushes.
type node struct {
	o        nodeOptions
	cache    *cache.Cache
	push     *webhook.Dispatcher
	server   *httpapi.Server
	producer *kafka.Producer // nil unless writable
}

func newNode(o nodeOptions) (*node, error) {
	n := &node{o: o}
	n.cache = cache.New(cache.Options{AnnounceHistory: o.pushHistory, MaxBytes: o.maxBytes,
		Ingest: ingest.Options{Kafka: o.kafka, Topic: o.topic, ReadUncommitted: o.readUncommitted, Logger: o.logger}})
	n.push = webhook.New(webhook.Options{Source: n.cache, Topic: o.topic, Targets: webhook.Static(o.targets...), Backoff: o.backoff,
		History: o.pushHistory, Loading: n.loading, Logger: o.logger})
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		httpapi.NewCollector(n.cache, n.pushStats))
	opts := httpapi.Options{Cache: n.cache, Gatherer: reg, Fresh: o.fresh, UnreadyAtLimit: o.unreadyAtLimit, ListTimeout: o.listTimeout, Logger: o.logger}
	if o.writable {
		p, err := kafka.NewProducer(o.kafka)
		if err != nil {
			return nil, err
		}
		n.producer, opts.Producer = p, p
	}
	n.server = httpapi.New(opts)
	return n, nil
}

func (n *node) loading() bool {
	select {
	case <-n.cache.Ready():
		return false
	default:
		return true
	}
}

func (n *node) pushStats() httpapi.PushStats {
	s := n.push.Stats()
	p := httpapi.PushStats{Dispatched: int64(s.Dispatched), Deduplicated: int64(s.Suppressed), OK: int64(s.OK), Failed: int64(s.Failures),
		Retries: int64(s.Retries), Merged: int64(s.Merged), InvalidKeys: int64(s.InvalidKeys)}
	for _, t := range s.Targets {
		p.Targets = append(p.Targets, httpapi.TargetStats{ID: t.ID, Pending: t.PendingKeys, Oldest: t.OldestPending})
	}
	return p
}

// run serves until ctx ends.
func (n *node) run(ctx context.Context, grace time.Duration) error {
	g, gctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(gctx, n.server.Drain)()
	g.Go(func() error {
		if err := n.cache.Run(gctx); err != nil {
			return withHint(err)
		}
		return nil
	})
	g.Go(func() error { return n.push.Run(gctx) })
	g.Go(func() error { n.report(gctx); return nil })
	g.Go(func() error {
		return serveHTTP(gctx, n.o.listener, httpapi.LoopbackOnly(n.o.listener.Addr(), n.server), n.o.logger, grace)
	})
	err := g.Wait()
	if n.producer != nil {
		cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		err = errors.Join(err, n.producer.Close(cctx))
	}
	return err
}

const reportEvery = 10 * time.Second

// report says how a load goes on, every 10 s until the cache is ready, and once when memory runs short.
func (n *node) report(ctx context.Context) {
	began := time.Now()
	t := time.NewTicker(reportEvery)
	defer t.Stop()
	ready, short := n.cache.Ready(), false
	for {
		select {
		case <-ready:
			ready = nil
			if n.o.quiet {
				continue
			}
			st := n.cache.Status()
			n.o.logger.Info("ready", "topic", st.Topic, "keys", st.Keys, "bytes", st.Bytes, "partitions", len(st.Partitions), "took", time.Since(began).Round(time.Millisecond))
		case <-t.C:
		case <-ctx.Done():
			return
		}
		st := n.cache.Status()
		if r := st.Replay; r != nil {
			n.o.logger.Info("loading", "topic", st.Topic, "records", r.Records, "bytes", r.Bytes, "percent", int(r.Done*100),
				"records/s", int(float64(r.Records)/max(r.Took.Seconds(), 0.001)), "left", r.Left.Round(time.Second))
		}
		if full := st.Full(); full >= 0.9 && !short {
			short = true
			n.o.logger.Warn("memory runs short: when --max-bytes is reached, partitions stand still until there is room; raise it", "topic", st.Topic,
				"percent", int(full*100), "limit", st.MaxBytes, "held", st.Held)
		} else if full < 0.8 {
			short = false
		}
	}
}

// gatewayOptions are what a gateway process is made of.
type gatewayOptions struct {
	kafka    kafka.Config
	cluster  string
	listener net.Listener
	acked    func(ctx context.Context, topic string, a kafka.Ack)
	logger   *slog.Logger
}

// serveGateway serves until ctx ends, and then waits for what was promised to async callers.
func serveGateway(ctx context.Context, o gatewayOptions, grace time.Duration) error {
	producer, err := kafka.NewProducer(o.kafka)
	if err != nil {
		return err
	}
	admin, err := kafka.NewClient(o.kafka)
	if err != nil {
		return err
	}
	defer admin.Close()
	gw := gateway.New(gateway.Options{Producer: producer, Admin: kafka.Admin{Client: admin}, Cluster: o.cluster, Acked: o.acked, Logger: o.logger})
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	reg.MustRegister(gw.Collectors()...)
	h := httpapi.WithMetrics(reg, gw)
	err = serveHTTP(ctx, o.listener, httpapi.LoopbackOnly(o.listener.Addr(), h), o.logger, grace)
	cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	return errors.Join(err, gw.Close(cctx), producer.Close(cctx))
}
