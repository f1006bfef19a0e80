package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"syscall"
	"time"

	"github.com/kkv-project/kkv/internal/config"
	"github.com/kkv-project/kkv/internal/kafka"
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
	defer kafka.CloseWith(ctx, cl)()
	wait := 100 * time.Millisecond
	for said := false; ; said = true {
		cctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		err = kafka.CreateTopic(cctx, cl, name, partitions, replication, map[string]string{"cleanup.policy": "compact"})
		cancel()
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if kafka.Classify(err) == kafka.Fatal {
			return kafka.Explain(err)
		}
		if !said {
			logger.Warn("cannot create the topic yet, trying again until it works", "topic", name, "error", kafka.Explain(err))
		}
		select {
		case <-time.After(wait):
			wait = min(2*wait, 5*time.Second)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
