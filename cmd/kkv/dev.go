package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kkv-project/kkv/internal/cache"
	"github.com/kkv-project/kkv/internal/config"
	"github.com/kkv-project/kkv/internal/demo"
	"github.com/kkv-project/kkv/internal/devbroker"
	"github.com/kkv-project/kkv/internal/httpapi"
	"github.com/kkv-project/kkv/internal/kafka"
	"github.com/kkv-project/kkv/internal/node"
)

// devGrace is short: Ctrl-C ends `kkv dev` within a second.
const devGrace = 500 * time.Millisecond

// ackedWait bounds how long the gateway of `kkv dev` holds an answer back until the cache beside it serves the write.
const ackedWait = 5 * time.Second

// runDev is `kkv dev`: broker, gateway, replicas of the cache and demo application in one process.
func runDev(ctx context.Context, s *config.Dev, stdout io.Writer, logger *slog.Logger) (err error) {
	ls, err := devListeners(s) // all ports are taken before anything starts
	if err != nil {
		return err
	}
	dk, err := devKafka(ctx, s, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dk.close()) }()
	lag := devbroker.NewLag()
	// The application has no log: what could be wrong between it and the caches, in one process, they say themselves.
	app, err := demo.New(demo.Options{Server: ls.servers(), Topic: s.Topic, Dev: dk.console(ls, lag)})
	if err != nil {
		return err
	}
	acked := func(a kafka.Ack) { app.Acked(a.Partition, a.Offset) }
	nodes, err := devNodes(s, dk.Config, ls.caches, lag, acked, logger)
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, n := range nodes {
		g.Go(func() error { return n.Run(gctx, devGrace) })
	}
	g.Go(func() error {
		return node.Gateway(gctx, node.GatewayOptions{Kafka: dk.Config, Cluster: "default", Listener: ls.gateway, Acked: served(nodes[0].Cache(), acked), Logger: logger}, devGrace)
	})
	g.Go(func() error {
		return node.ServeHTTP(gctx, ls.demo, httpapi.LoopbackOnly(ls.demo.Addr(), app.Handler()), logger, devGrace)
	})
	g.Go(func() error {
		for _, n := range nodes {
			select {
			case <-n.Cache().Ready():
			case <-gctx.Done():
				return nil
			}
		}
		if _, err := io.WriteString(stdout, banner(ls, dk.where, s.Topic)); err != nil {
			return err
		}
		return app.Run(gctx) // not before: a mirror that is refused at first takes its time until it asks again
	})
	if err := g.Wait(); ctx.Err() == nil || !dk.stopped.Load() || !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// listeners are all that `kkv dev` has open but the broker's.
type listeners struct {
	demo, gateway net.Listener
	caches        []net.Listener // of each replica
}

func (ls listeners) servers() (urls []string) {
	for _, l := range ls.caches {
		urls = append(urls, "http://"+l.Addr().String())
	}
	return urls
}

func devListeners(s *config.Dev) (ls listeners, err error) {
	if ls.demo, err = listen("demo-listen", s.DemoListen); err != nil {
		return ls, err
	}
	for i := range int(s.Replicas) {
		flag, addr := "cache-listen", s.CacheListen
		if i > 0 {
			flag, addr = "replica-listen", portAfter(s.ReplicaListen, i-1)
		}
		l, err := listen(flag, addr)
		if err != nil {
			return ls, err
		}
		ls.caches = append(ls.caches, l)
	}
	ls.gateway, err = listen("gateway-listen", s.GatewayListen)
	return ls, err
}

// portAfter is the address with a port so much higher; 0 stays 0.
func portAfter(addr string, n int) string {
	host, port, _ := net.SplitHostPort(addr) // was checked with the settings
	if p, err := strconv.Atoi(port); err == nil && p > 0 {
		port = strconv.Itoa(p + n)
	}
	return net.JoinHostPort(host, port)
}

// devNodes are the replicas. All take writes; the first alone pushes, for its receivers want each change once. The second is
// the one that can be made to lag.
func devNodes(s *config.Dev, k kafka.Config, caches []net.Listener, lag *devbroker.Lag, acked func(kafka.Ack), logger *slog.Logger) (nodes []*node.Node, err error) {
	for i, l := range caches {
		o := node.Options{Kafka: k, Topic: s.Topic, Listener: l, Writable: true, Quiet: true, Acked: acked, Logger: logger}
		switch i {
		case 0:
			o.Targets = s.Targets()
		case 1:
			if !encrypted(k) {
				o.Kafka.Dial = lag.Dial
			}
		}
		n, err := node.New(o)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

// encrypted: what goes over the line to Kafka cannot be read on the way, as devbroker.Lag must.
func encrypted(k kafka.Config) bool {
	return strings.HasSuffix(strings.ToUpper(k.Properties["security.protocol"]), "SSL")
}

// devCluster is the Kafka of `kkv dev`.
type devCluster struct {
	kafka.Config
	where  string            // for people
	broker *devbroker.Broker // nil where it is the user's own Kafka
	// The page has stopped the broker. What was under way then has no outcome, and at the end nobody is left to be told.
	stopped atomic.Bool
}

func (d *devCluster) close() error {
	if d.broker == nil {
		return nil
	}
	return d.broker.Close()
}

// devKafka starts the embedded broker, or takes the one that was named, and makes the topic.
func devKafka(ctx context.Context, s *config.Dev, logger *slog.Logger) (d *devCluster, err error) {
	d = &devCluster{}
	if d.Config, err = kafkaConfig(s.Kafka, logger); err == nil {
		d.where = strings.Join(s.Bootstrap, ",") + "  (yours, --kafka-bootstrap)"
		return d, createTopic(ctx, d.Config, s.Topic, s.Partitions, -1, logger)
	} else if len(s.Bootstrap) > 0 || s.ConfigFile != "" || len(s.Property) > 0 {
		return d, err
	}
	b, err := devbroker.Start(devbroker.Options{Listen: s.KafkaListen, DataDir: s.DataDir})
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return d, taken(err, "kafka-listen", s.KafkaListen)
	case err != nil:
		return d, err
	}
	if err := b.CreateTopic(s.Topic, s.Partitions); err != nil {
		return d, errors.Join(err, b.Close())
	}
	where := b.Addr() + "  (embedded, data in memory)"
	if s.DataDir != "" {
		where = b.Addr() + "  (embedded, data in " + s.DataDir + ")"
	}
	return &devCluster{Config: kafka.Config{Bootstrap: []string{b.Addr()}, Logger: logger}, where: where, broker: b}, nil
}

// console is what the page's buttons do, as far as there is something for them to do it to.
func (d *devCluster) console(ls listeners, lag *devbroker.Lag) *demo.Dev {
	o := &demo.Dev{}
	if tcp, ok := ls.demo.Addr().(*net.TCPAddr); !ok || !tcp.IP.IsLoopback() {
		o.Locked = "Not on a page that others can reach: --demo-listen is no loopback address."
	}
	o.Lag.Set = func(on bool) error {
		if on {
			lag.Set(demo.LagBy)
		} else {
			lag.Set(0)
		}
		return nil
	}
	switch {
	case len(ls.caches) < 2:
		o.Lag.Off = "There is one replica: start kkv dev with --replicas 2."
	case encrypted(d.Config):
		o.Lag.Off = "The line to your Kafka is encrypted: nothing on it can be held back."
	}
	if d.broker == nil {
		o.Kafka.Off = "Kafka is yours (--kafka-bootstrap): kkv does not stop it."
		return o
	}
	o.Kafka.Set = func(on bool) error {
		d.stopped.Store(!on)
		if on {
			return d.broker.Resume()
		}
		return d.broker.Stop()
	}
	return o
}

// served is the gateway's hook in `kkv dev`: an answer waits until the first replica serves the write, so that a pasted
// script never reads what was there before.
func served(c *cache.Cache, acked func(kafka.Ack)) func(context.Context, string, kafka.Ack) {
	return func(ctx context.Context, topic string, a kafka.Ack) {
		if topic != c.Topic() {
			return
		}
		acked(a)
		ctx, cancel := context.WithTimeout(ctx, ackedWait)
		defer cancel()
		_ = c.WaitFor(ctx, a.TopicID, a.Partition, a.Offset) // the write is acknowledged in any case
	}
}

func banner(ls listeners, where, topic string) string {
	var b strings.Builder
	cache := ls.servers()[0]
	fmt.Fprintf(&b, "kkv dev is ready\n  demo app   http://%s\n  cache      %s\n", ls.demo.Addr(), cache)
	for i, url := range ls.servers()[1:] {
		fmt.Fprintf(&b, "  replica %d  %s\n", i+2, url)
	}
	fmt.Fprintf(&b, `  gateway    http://%[1]s
  Kafka      %[2]s

curl -X POST -H 'content-type: application/json' -d '{ "id": "A", "color": "red" }' 'http://%[1]s/topics/%[3]s/messages?key=A'
curl -X POST -H 'content-type: application/json' -d '{ "id": "B", "color": "blue" }' 'http://%[1]s/topics/%[3]s/messages?key=B'
curl %[4]s/cache/v1/keys
curl %[4]s/cache/v1/values
curl %[4]s/cache/v1/raw/A
curl -N %[4]s/v1/topics/%[3]s/watch
`, ls.gateway.Addr(), where, topic, cache)
	return b.String()
}

// runDemo is `kkv demo`: the demo application on a cache that runs elsewhere.
func runDemo(ctx context.Context, s *config.Demo, logger *slog.Logger) error {
	l, err := listen("listen", s.Listen)
	if err != nil {
		return err
	}
	app, err := demo.New(demo.Options{Server: s.Server, Topic: s.Topic, Logger: logger})
	if err != nil {
		return err
	}
	logger.Info("demo", "address", l.Addr().String())
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return app.Run(gctx) })
	g.Go(func() error {
		return node.ServeHTTP(gctx, l, httpapi.LoopbackOnly(l.Addr(), app.Handler()), logger, grace)
	})
	return g.Wait()
}
