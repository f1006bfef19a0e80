package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
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

// runDev is `kkv dev`: broker, gateway, cache and demo application in one process.
func runDev(ctx context.Context, s *config.Dev, stdout io.Writer, logger *slog.Logger) (err error) {
	var ls [3]net.Listener // all ports are taken before anything starts
	for i, f := range []struct{ flag, addr string }{{"demo-listen", s.DemoListen}, {"cache-listen", s.CacheListen}, {"gateway-listen", s.GatewayListen}} {
		if ls[i], err = listen(f.flag, f.addr); err != nil {
			return err
		}
	}
	demoL, cacheL, gatewayL := ls[0], ls[1], ls[2]
	k, where, closeBroker, err := devKafka(ctx, s, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeBroker()) }()
	n, err := node.New(node.Options{Kafka: k, Topic: s.Topic, Listener: cacheL, Writable: true, Quiet: true, Targets: s.Targets(), Logger: logger})
	if err != nil {
		return err
	}
	app, err := demo.New(demo.Options{Server: []string{"http://" + cacheL.Addr().String()}, Topic: s.Topic, Logger: logger})
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.Run(gctx, devGrace) })
	g.Go(func() error {
		return node.Gateway(gctx, node.GatewayOptions{Kafka: k, Cluster: "default", Listener: gatewayL, Acked: served(n.Cache()), Logger: logger}, devGrace)
	})
	g.Go(func() error { return serveDemo(gctx, app, demoL, logger, devGrace) })
	g.Go(func() error {
		select {
		case <-n.Cache().Ready():
			_, err := io.WriteString(stdout, banner(demoL.Addr(), cacheL.Addr(), gatewayL.Addr(), where, s.Topic))
			return err
		case <-gctx.Done():
			return nil
		}
	})
	return g.Wait()
}

// devKafka starts the embedded broker, or takes the one that was named, and makes the topic.
func devKafka(ctx context.Context, s *config.Dev, logger *slog.Logger) (k kafka.Config, where string, closeBroker func() error, err error) {
	none := func() error { return nil }
	if k, err = kafkaConfig(s.Kafka, logger); err == nil {
		err = createTopic(ctx, k, s.Topic, s.Partitions, -1, logger)
		return k, strings.Join(s.Bootstrap, ",") + "  (yours, --kafka-bootstrap)", none, err
	} else if len(s.Bootstrap) > 0 || s.ConfigFile != "" || len(s.Property) > 0 {
		return k, "", none, err
	}
	b, err := devbroker.Start(devbroker.Options{Listen: s.KafkaListen, DataDir: s.DataDir})
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return k, "", none, taken(err, "kafka-listen", s.KafkaListen)
	case err != nil:
		return k, "", none, err
	}
	if err := b.CreateTopic(s.Topic, s.Partitions); err != nil {
		return k, "", none, errors.Join(err, b.Close())
	}
	where = b.Addr() + "  (embedded, data in memory)"
	if s.DataDir != "" {
		where = b.Addr() + "  (embedded, data in " + s.DataDir + ")"
	}
	return kafka.Config{Bootstrap: []string{b.Addr()}, Logger: logger}, where, b.Close, nil
}

// served is the gateway's hook in `kkv dev`: an answer waits until the cache beside it serves the write, so that a
// pasted script never reads what was there before.
func served(c *cache.Cache) func(context.Context, string, kafka.Ack) {
	return func(ctx context.Context, topic string, a kafka.Ack) {
		if topic != c.Topic() {
			return
		}
		ctx, cancel := context.WithTimeout(ctx, ackedWait)
		defer cancel()
		_ = c.WaitFor(ctx, a.TopicID, a.Partition, a.Offset) // the write is acknowledged in any case
	}
}

func banner(demo, cache, gateway net.Addr, where, topic string) string {
	return fmt.Sprintf(`kkv dev is ready
  demo app   http://%[1]s
  cache      http://%[2]s
  gateway    http://%[3]s
  Kafka      %[4]s

curl -X POST -H 'content-type: application/json' -d '{ "id": "A", "color": "red" }' 'http://%[3]s/topics/%[5]s/messages?key=A'
curl http://%[2]s/cache/v1/raw/A
curl -N http://%[2]s/v1/topics/%[5]s/watch
`, demo, cache, gateway, where, topic)
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
	return serveDemo(ctx, app, l, logger, grace)
}

func serveDemo(ctx context.Context, app *demo.App, l net.Listener, logger *slog.Logger, grace time.Duration) error {
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return app.Run(gctx) })
	g.Go(func() error {
		return node.ServeHTTP(gctx, l, httpapi.LoopbackOnly(l.Addr(), app.Handler()), logger, grace)
	})
	return g.Wait()
}
