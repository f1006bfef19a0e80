// Package gateway answers kafka-pixy's REST routes on top of a producer.
// Statuses, headers and JSON are those that were recorded from kafka-pixy,
// with its defects fixed; where an answer differs on purpose, the code says
// why.
//
// Routes, each also under /clusters/{cluster}:
//
//	POST   /topics/{topic}/messages?key=K[&sync]   produce
//	DELETE /topics/{topic}/messages?key=K[&sync]   produce a tombstone
//	GET    /topics[?withPartitions][&withConfig]
//	GET    /topics/{topic}[?withPartitions][&withConfig]
//	GET    /_ping
//
// The routes for consuming are known and answer 501 for now.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kkv-project/kkv/internal/kafka"
)

// Producer writes records; *kafka.Producer is one, and tells what its methods
// promise.
type Producer interface {
	Produce(ctx context.Context, m kafka.Message) (kafka.Ack, error)
	ProduceAsync(ctx context.Context, m kafka.Message, done func(kafka.Ack, error))
}

// Admin answers questions about topics; kafka.Admin is one.
type Admin interface {
	Topics(ctx context.Context) ([]kafka.Topic, error)
	Topic(ctx context.Context, name string) (kafka.Topic, error)
	Configs(ctx context.Context, topics ...string) (map[string]map[string]kafka.TopicConfig, error)
}

// Options configure a Gateway. Producer and Admin are required.
type Options struct {
	Producer Producer
	Admin    Admin
	// Cluster is the one name that /clusters/{name} takes; "default" if empty.
	Cluster string
	// Acked, if set, is called after each acknowledgement and before the
	// answer. An async produce then answers after it too, still with {}:
	// `kkv dev` waits here until the cache beside it serves the record. Its
	// ctx ends with the request or after Timeout.
	Acked func(ctx context.Context, topic string, a kafka.Ack)
	// Timeout bounds how long a call waits for Kafka; 10 s if zero.
	Timeout time.Duration
	// MaxBody is the largest request body in bytes; 32 MiB if zero.
	MaxBody int64
	// Logger hears of async records that were lost. Nil is silent.
	Logger *slog.Logger
}

// Gateway is the HTTP handler. It is safe for concurrent use.
type Gateway struct {
	o       Options
	origin  *http.CrossOriginProtection
	metrics metrics

	mu      sync.Mutex // guards closing, and open against Add after Wait
	closing bool
	open    sync.WaitGroup // calls, and async records that were promised

	lost lostLog
}

// New makes a Gateway; it starts nothing.
func New(o Options) *Gateway {
	if o.Cluster == "" {
		o.Cluster = "default"
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	if o.MaxBody == 0 {
		o.MaxBody = 32 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	g := &Gateway{o: o, origin: http.NewCrossOriginProtection(), metrics: newMetrics()}
	g.lost.log = o.Logger
	return g
}

// Collectors are the gateway's metrics, for the caller to register.
func (g *Gateway) Collectors() []prometheus.Collector { return g.metrics.collectors() }

// Close refuses new calls with 503 and waits until the calls under way have
// ended and every record that an async call promised has been acknowledged or
// lost, or until ctx ends. The producer must stay open until it has returned.
func (g *Gateway) Close(ctx context.Context) error {
	g.mu.Lock()
	g.closing = true
	g.mu.Unlock()
	done := make(chan struct{})
	go func() {
		g.open.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("gateway shut down with records under way: %w", ctx.Err())
	}
}

// begin counts a call; it is false once the gateway is closing.
func (g *Gateway) begin() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closing {
		return false
	}
	g.open.Add(1)
	return true
}

// ServeHTTP routes by the path as it was sent: nothing is cleaned and nobody
// is redirected, because a redirect would lose a POST's body.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	segments, err := pathSegments(r.URL)
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	if len(segments) == 1 && segments[0] == "_ping" {
		if allow(w, r, "GET") {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.Write([]byte("pong"))
		}
		return
	}
	cluster := g.o.Cluster
	if len(segments) > 1 && segments[0] == "clusters" {
		cluster, segments = segments[1], segments[2:]
	}
	handle, methods := g.route(segments)
	if handle == nil {
		http.NotFound(w, r)
		return
	}
	if !allow(w, r, methods...) {
		return
	}
	if cluster != g.o.Cluster {
		writeError(w, http.StatusBadRequest, "proxy `"+cluster+"` does not exist")
		return
	}
	// A browser must not be used to write from a page of another site.
	if err := g.origin.Check(r); err != nil {
		writeError(w, http.StatusForbidden, "refused a call from another origin: "+err.Error())
		return
	}
	if !g.begin() {
		writeError(w, http.StatusServiceUnavailable, "shutting down")
		return
	}
	defer g.open.Done()
	g.metrics.inflight.Inc()
	defer g.metrics.inflight.Dec()

	q, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), g.o.Timeout)
	defer cancel()
	handle(w, r.WithContext(ctx), q)
}

type handler func(w http.ResponseWriter, r *http.Request, q query)

// routes are those below a cluster, each part of a path as api/openapi.yaml has it.
var routes = []struct {
	path    []string
	methods []string
	serve   func(g *Gateway, topic string) handler
}{
	{[]string{"topics"}, []string{"GET"}, func(g *Gateway, _ string) handler { return g.listTopics }},
	{[]string{"topics", "{topic}"}, []string{"GET"}, func(g *Gateway, topic string) handler { return g.named(topic, g.describeTopic) }},
	{[]string{"topics", "{topic}", "messages"}, []string{"GET", "POST", "DELETE"}, func(g *Gateway, topic string) handler { return g.named(topic, g.messages) }},
	{[]string{"topics", "{topic}", "acks"}, []string{"POST"}, func(g *Gateway, topic string) handler { return g.named(topic, consuming(true)) }},
	{[]string{"topics", "{topic}", "offsets"}, []string{"GET", "POST"}, func(g *Gateway, topic string) handler { return g.named(topic, consuming(true)) }},
	{[]string{"topics", "{topic}", "consumers"}, []string{"GET"}, func(g *Gateway, topic string) handler { return g.named(topic, consuming(false)) }},
}

// route finds the handler for the path below a cluster; nil if there is none.
func (g *Gateway) route(segments []string) (handle handler, methods []string) {
	if len(segments) == 2 && segments[1] == "" { // "topics/" names none
		return nil, nil
	}
	for _, rt := range routes {
		if slices.EqualFunc(rt.path, segments, func(want, got string) bool { return want == got || want == "{topic}" }) {
			topic := ""
			if len(segments) > 1 {
				topic = segments[1]
			}
			return rt.serve(g, topic), rt.methods
		}
	}
	return nil, nil
}

type topicHandler func(w http.ResponseWriter, r *http.Request, topic string, q query)

// named refuses names that no topic can have, so that none of them reaches
// Kafka or a log line.
func (g *Gateway) named(topic string, h topicHandler) handler {
	return func(w http.ResponseWriter, r *http.Request, q query) {
		if !kafka.LegalTopicName(topic) {
			writeError(w, http.StatusBadRequest, fmt.Sprintf("%q is not a legal topic name: it has 1 to 249 of the characters a-z A-Z 0-9 . _ -", topic))
			return
		}
		h(w, r, topic, q)
	}
}

// consuming stands for the routes that read with a consumer group. A call
// without a group is wrong in any version, as recorded.
func consuming(groupRequired bool) topicHandler {
	return func(w http.ResponseWriter, r *http.Request, _ string, q query) {
		if n := q.count("group"); n > 1 || (n == 0 && groupRequired) {
			writeError(w, http.StatusBadRequest, fmt.Sprintf("one consumer group is expected, but %d provided", n))
			return
		}
		writeError(w, http.StatusNotImplemented, "consuming through the gateway is not available in this version of kkv")
	}
}

// allow answers 405 unless the method is one of those; HEAD goes with GET.
// The body is empty, as recorded; Allow is ours (RFC 9110 section 15.5.6).
func allow(w http.ResponseWriter, r *http.Request, methods ...string) bool {
	for _, m := range methods {
		if r.Method == m || (m == http.MethodGet && r.Method == http.MethodHead) {
			return true
		}
	}
	w.Header().Set("Allow", strings.Join(methods, ", "))
	w.WriteHeader(http.StatusMethodNotAllowed)
	return false
}

// pathSegments are the parts of the path between slashes, each
// percent-decoded once, so that an encoded slash stays in its part.
func pathSegments(u *url.URL) ([]string, error) {
	parts := strings.Split(strings.TrimPrefix(u.EscapedPath(), "/"), "/")
	for i, p := range parts {
		s, err := url.PathUnescape(p)
		if err != nil {
			return nil, errors.New("the path is not percent-encoded correctly")
		}
		parts[i] = s
	}
	return parts, nil
}

// query is a query string or form in the order it was sent.
type query []struct{ name, value string }

// parseQuery splits at & only, unlike url.ParseQuery, which drops whatever
// holds a semicolon or a stray % and so would turn a key into no key. As in
// any form, + is a space.
func parseQuery(raw string) (query, error) {
	var q query
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		n, err1 := url.QueryUnescape(name)
		v, err2 := url.QueryUnescape(value)
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("parameter %q is not percent-encoded correctly: write %% as %%25", part)
		}
		q = append(q, struct{ name, value string }{n, v})
	}
	return q, nil
}

func (q query) count(name string) (n int) {
	for _, p := range q {
		if p.name == name {
			n++
		}
	}
	return n
}

// get is the first value of a parameter, and whether it is there at all.
func (q query) get(name string) (string, bool) {
	for _, p := range q {
		if p.name == name {
			return p.value, true
		}
	}
	return "", false
}
