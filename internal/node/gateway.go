package node

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/kkv-project/kkv/internal/gateway"
	"github.com/kkv-project/kkv/internal/httpapi"
	"github.com/kkv-project/kkv/internal/kafka"
)

// GatewayOptions are what a gateway process is made of.
type GatewayOptions struct {
	Kafka    kafka.Config
	Cluster  string
	Listener net.Listener
	Acked    func(ctx context.Context, topic string, a kafka.Ack)
	Logger   *slog.Logger
}

// Gateway serves until ctx ends, and then waits for what was promised to async callers.
func Gateway(ctx context.Context, o GatewayOptions, grace time.Duration) error {
	producer, err := kafka.NewProducer(o.Kafka)
	if err != nil {
		return err
	}
	admin, err := kafka.NewClient(o.Kafka)
	if err != nil {
		return errors.Join(err, producer.Close(ctx))
	}
	defer admin.Close()
	gw := gateway.New(gateway.Options{Producer: producer, Admin: kafka.Admin{Client: admin}, Cluster: o.Cluster, Acked: o.Acked, Logger: o.Logger})
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	reg.MustRegister(gw.Collectors()...)
	h := httpapi.WithMetrics(reg, gw)
	err = ServeHTTP(ctx, o.Listener, httpapi.LoopbackOnly(o.Listener.Addr(), h), o.Logger, grace)
	cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	return errors.Join(err, gw.Close(cctx), producer.Close(cctx))
}
