package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kkv-project/kkv/internal/config"
	"github.com/kkv-project/kkv/internal/httpapi"
	"github.com/kkv-project/kkv/internal/kube"
	"github.com/kkv-project/kkv/internal/node"
	"github.com/kkv-project/kkv/internal/webhook"
)

// exitCode ends the process with that code, as the management listener was asked to.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("shut down with exit code %d", int(e)) }

// grace is how long requests under way may take once the process is told to end.
const grace = 5 * time.Second

// runServe is `kkv serve`: one cache on one topic.
func runServe(ctx context.Context, cmd *config.Command, s *config.Serve, logger *slog.Logger) error {
	service, err := serviceTargets(s, logger)
	if err != nil {
		return err
	}
	k, err := kafkaConfig(s.Kafka, logger)
	if err != nil {
		return err
	}
	l, err := listen("listen", s.Listen)
	if err != nil {
		return err
	}
	maxBytes, err := memoryLimit(s.MaxBytes, os.ReadFile)
	if err != nil {
		return err
	}
	secrets, err := webhookSecrets(s)
	if err != nil {
		return err
	}
	n, err := node.New(node.Options{Kafka: k, Topic: s.Topic, Listener: l, Writable: s.Writable, ReadUncommitted: s.Isolation == "read_uncommitted",
		PushHistory: s.OnUpdateAfterOffset == "earliest", Targets: s.Targets(), Service: service, Backoff: s.DispatcherRetryBackoff,
		WebhookV2: s.WebhookBody == "v2", WebhookSecrets: secrets, WebhookLookback: s.WebhookLookback, WebhookResume: s.WebhookResume,
		MaxBytes: maxBytes, UnreadyAtLimit: s.UnreadyAtLimit, UnreadyWhenAway: s.WhenKafkaAway == "unready", Fresh: s.Consistency == "fresh",
		ListTimeout: s.ListTimeout, MaxWatchers: s.MaxWatchers, Drain: s.Drain, Logger: logger})
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { tuneMemory(gctx); return nil })
	g.Go(func() error {
		if n.Cache().Listable(gctx) == nil {
			debug.FreeOSMemory() // what loading and sorting took beyond what is kept
		}
		return nil
	})
	logger.Info("loading", "topic", s.Topic, "address", l.Addr().String())
	if s.ManagementListen != "" {
		ml, err := listen("management-listen", s.ManagementListen)
		if err != nil {
			return err
		}
		codes := make(chan int, 1)
		h := httpapi.Management(func(code int) {
			select {
			case codes <- code:
			default: // shutting down already
			}
		}, func(w io.Writer) error { return cmd.Print(w) })
		g.Go(func() error { return node.ServeHTTP(gctx, ml, httpapi.LoopbackOnly(ml.Addr(), h), logger, time.Second) })
		g.Go(func() error {
			select {
			case code := <-codes:
				return exitCode(code)
			case <-gctx.Done():
				return nil
			}
		})
		logger.Info("management", "address", ml.Addr().String())
	}
	if s.CreateTopic {
		g.Go(func() error {
			err := createTopic(gctx, k, s.Topic, s.CreateTopicPartitions, s.CreateTopicReplication, logger)
			if gctx.Err() != nil {
				return nil
			}
			return err
		})
	}
	g.Go(func() error { return n.Run(gctx, grace) })
	return g.Wait()
}

// serviceTargets are the pods of --target-service-name, or nil if there is none.
func serviceTargets(s *config.Serve, logger *slog.Logger) (*node.Service, error) {
	if s.TargetServiceName == "" {
		return nil, nil
	}
	account, err := kube.InPod(os.Getenv, s.KubeAccountDir)
	if err != nil {
		return nil, fmt.Errorf("--target-service-name, TARGET_SERVICE_NAME: %w; outside Kubernetes name the receivers by --webhook-target or TARGET_STATIC_HOST", err)
	}
	namespace := cmp.Or(s.TargetServiceNamespace, account.Namespace)
	if namespace == "" {
		return nil, fmt.Errorf("--target-service-name, TARGET_SERVICE_NAME: there is no file namespace in %s: set --target-service-namespace", s.KubeAccountDir)
	}
	w := kube.New(kube.Options{Account: account, Namespace: namespace, Service: s.TargetServiceName, Resync: s.InformerResyncPeriod, Logger: logger})
	return &node.Service{Endpoints: w, URL: s.EndpointURL}, nil
}

// webhookSecrets are those that sign webhooks; none if none is set.
func webhookSecrets(s *config.Serve) ([]webhook.Secret, error) {
	text := s.WebhookSecret
	if s.WebhookSecretFile != "" {
		b, err := os.ReadFile(s.WebhookSecretFile)
		if err != nil {
			return nil, fmt.Errorf("--webhook-secret-file: %w", err)
		}
		text = string(b)
	} else if text == "" {
		return nil, nil
	}
	secrets, err := webhook.ParseSecrets(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cmp.Or(s.WebhookSecretFile, "--webhook-secret"), err)
	}
	return secrets, nil
}

// runGateway is `kkv gateway`: an HTTP door to Kafka.
func runGateway(ctx context.Context, s *config.Gateway, logger *slog.Logger) error {
	k, err := kafkaConfig(s.Kafka, logger)
	if err != nil {
		return err
	}
	k.Partitioner = s.Partitioner
	l, err := listen("listen", s.Listen)
	if err != nil {
		return err
	}
	logger.Info("gateway", "address", l.Addr().String())
	return node.Gateway(ctx, node.GatewayOptions{Kafka: k, Cluster: s.Cluster, Listener: l, Logger: logger}, grace)
}
