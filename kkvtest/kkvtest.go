// Package kkvtest runs a whole kkv inside a Go test: a Kafka broker and a cache of one topic on it, on loopback, ready
// within milliseconds and gone when the test ends. What is read and written goes the way that it goes in production, so
// that an application's own test can see a change arrive, and what the application does while Kafka is away:
//
//	func TestPalette(t *testing.T) {
//		s := kkvtest.New(t, "colors")
//		s.Put("sky", "blue")
//		app := palette.New(s.URL) // reads the cache; or s.Brokers, if it speaks Kafka itself
//		…
//		s.StopKafka()
//		… // what was read is still served
//		s.StartKafka()
//	}
//
// The broker is franz-go's kfake: one node, in memory, for tests only. Several Servers may run in one test process, and
// tests with one each may be parallel.
package kkvtest

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/kkv-project/kkv"
	"github.com/kkv-project/kkv/internal/devbroker"
	"github.com/kkv-project/kkv/internal/kafka"
	"github.com/kkv-project/kkv/internal/node"
)

// Partitions is how many the topic of a Server has: more than one, so that an application which takes offsets for
// comparable across partitions is found out.
const Partitions = 3

const (
	startTimeout = 30 * time.Second
	writeTimeout = 30 * time.Second
	grace        = 100 * time.Millisecond // for requests under way when the test ends
)

// Server is a broker with a cache on it. Its methods are safe for concurrent use, and end the test where they fail; so
// call them from the test's own goroutine (see [testing.T.FailNow]).
type Server struct {
	// URL is the cache's, as in [kkv.Options] Servers and KKV_SERVER; without a slash at the end. It takes writes.
	URL string
	// Brokers are Kafka's bootstrap servers, as host:port.
	Brokers []string
	// Topic is the one that New was given.
	Topic string

	t      testing.TB
	broker *devbroker.Broker
	client *kkv.Client
}

// New starts a Server with an empty compacted topic and waits until it is ready. It ends with the test. What the
// cache has to complain of is in the test's log.
func New(t testing.TB, topic string) *Server {
	t.Helper()
	s := &Server{Topic: topic, t: t}
	var err error
	if s.broker, err = devbroker.Start(devbroker.Options{Listen: "127.0.0.1:0"}); err != nil {
		t.Fatalf("kkvtest: %v", err)
	}
	t.Cleanup(func() {
		if err := s.broker.Close(); err != nil {
			t.Errorf("kkvtest: end the broker: %v", err)
		}
	})
	if err := s.broker.CreateTopic(topic, Partitions); err != nil {
		t.Fatalf("kkvtest: %v", err)
	}
	s.Brokers = []string{s.broker.Addr()}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("kkvtest: %v", err)
	}
	s.URL = "http://" + l.Addr().String()
	s.run(l)
	if s.client, err = kkv.NewClient(kkv.Options{Servers: []string{s.URL}, Topic: topic}); err != nil {
		t.Fatalf("kkvtest: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	if err := s.client.Ready(ctx); err != nil {
		t.Fatalf("kkvtest: %v", err)
	}
	return s
}

// run runs the cache until the test ends.
func (s *Server) run(l net.Listener) {
	log := slog.New(slog.NewTextHandler(s.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	n, err := node.New(node.Options{Kafka: kafka.Config{Bootstrap: s.Brokers, Logger: log}, Topic: s.Topic, Listener: l,
		Writable: true, Quiet: true, Logger: log})
	if err != nil {
		_ = l.Close() // nothing serves it
		s.t.Fatalf("kkvtest: %v", err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx, grace) }()
	s.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Errorf("kkvtest: run the cache: %v", err)
		}
	})
}

// Put writes value, which may be empty, and returns once the cache serves it; with a position for [kkv.AtLeast].
func (s *Server) Put(key, value string) kkv.Position {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), writeTimeout)
	defer cancel()
	pos, err := s.client.Put(ctx, key, []byte(value))
	if err != nil {
		s.t.Fatalf("kkvtest: %v", err)
	}
	return s.served(ctx, key, pos)
}

// Delete writes a tombstone for key and returns once the cache no longer shows it.
func (s *Server) Delete(key string) kkv.Position {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), writeTimeout)
	defer cancel()
	pos, err := s.client.Delete(ctx, key)
	if err != nil {
		s.t.Fatalf("kkvtest: %v", err)
	}
	return s.served(ctx, key, pos)
}

// served waits for what was acknowledged but not served in time.
func (s *Server) served(ctx context.Context, key string, pos kkv.Position) kkv.Position {
	s.t.Helper()
	if _, err := s.client.Get(ctx, key, kkv.AtLeast(pos)); err != nil && !errors.Is(err, kkv.ErrNotFound) {
		s.t.Fatalf("kkvtest: wait until the cache serves the write: %v", err)
	}
	return pos
}

// StopKafka makes the broker unreachable: connections are cut and new ones refused, for the cache as for everybody.
// The cache goes on serving what it has read, its age grows, and writes fail. Records stay.
func (s *Server) StopKafka() {
	s.t.Helper()
	if err := s.broker.Stop(); err != nil {
		s.t.Fatalf("kkvtest: %v", err)
	}
}

// StartKafka ends StopKafka. It does not wait until the cache has caught up: a fresh read, or Put, does.
func (s *Server) StartKafka() {
	s.t.Helper()
	if err := s.broker.Resume(); err != nil {
		s.t.Fatalf("kkvtest: %v", err)
	}
}
