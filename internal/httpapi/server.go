// Package httpapi is the cache's HTTP door: the routes that users of kafka-keyvalue already call (compat.go), the
// native ones (native.go, watch.go), health and metrics; routes.go is their table, api/openapi.yaml what they take and answer.
//
// Routes are matched on the escaped path as it was sent, because keys are bytes: `a//b`, `%2F` or an empty key
// must reach their handler, and none may be redirected as http.ServeMux would.
package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/kkv-project/kkv/internal/cache"
	"github.com/kkv-project/kkv/internal/kafka"
)

// Producer writes records; *kafka.Producer is one.
type Producer interface {
	Produce(ctx context.Context, m kafka.Message) (kafka.Ack, error)
}

// Options of a Server.
type Options struct {
	Cache *cache.Cache
	// Producer serves PUT and DELETE; nil makes the server read-only.
	Producer Producer
	// Gatherer is what /metrics shows; nil: an empty registry.
	Gatherer prometheus.Gatherer
	// MaxBody bounds a PUT's value in bytes; 0: 32 MiB.
	MaxBody int64
	// Fresh makes fresh reads the default, for clients that cannot ask (--consistency).
	Fresh bool
	// UnreadyAtLimit makes health unready while the memory limit holds partitions back.
	UnreadyAtLimit bool
	// UnreadyWhenAway makes health unready while Kafka cannot be reached; what is held is served in either case.
	UnreadyWhenAway bool
	// ListTimeout bounds how long one list may take, and so how long it holds its snapshot; 0: a minute.
	ListTimeout time.Duration
	// MaxWatchers bounds the watches open at a time; 0: no bound.
	MaxWatchers int
	Logger      *slog.Logger
}

// Server is an http.Handler, safe for concurrent use.
type Server struct {
	o        Options
	cache    *cache.Cache
	topic    string
	log      *slog.Logger
	metrics  http.Handler
	offsets  offsetsHeader
	handler  http.Handler  // the routes, behind the protection from cross-origin writes
	draining chan struct{} // closed by Drain
	closing  chan struct{} // closed by EndStreams
	watchers atomic.Int64
	drain    sync.Once
	end      sync.Once
}

// New makes a Server. It starts nothing.
func New(o Options) *Server {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Gatherer == nil {
		o.Gatherer = prometheus.NewRegistry()
	}
	if o.MaxBody == 0 {
		o.MaxBody = 32 << 20
	}
	if o.ListTimeout == 0 {
		o.ListTimeout = time.Minute
	}
	s := &Server{o: o, cache: o.Cache, topic: o.Cache.Topic(), log: o.Logger, draining: make(chan struct{}), closing: make(chan struct{}),
		metrics: promhttp.HandlerFor(o.Gatherer, promhttp.HandlerOpts{})}
	cop := http.NewCrossOriginProtection()
	cop.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		problem(w, r, http.StatusForbidden, "cross-origin", "A page of another origin may not write here; call from your own server, or without a browser.")
	}))
	s.handler = cop.Handler(http.HandlerFunc(s.route))
	return s
}

// Drain makes health unready, so that callers are sent elsewhere, and refuses new watches. All else is answered as before,
// but every answer ends its connection.
func (s *Server) Drain() { s.drain.Do(func() { close(s.draining) }) }

// EndStreams drains, and ends the open watches, telling each when to come back.
func (s *Server) EndStreams() {
	s.Drain()
	s.end.Do(func() { close(s.closing) })
}

// isDraining reports whether Drain was called.
func (s *Server) isDraining() bool {
	select {
	case <-s.draining:
		return true
	default:
		return false
	}
}

// ServeHTTP routes by the escaped path as sent.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.isDraining() {
		w.Header()["Connection"] = connClose
	}
	s.handler.ServeHTTP(w, r)
}

func (s *Server) serveMetrics(w http.ResponseWriter, r *http.Request, _ [2]string) {
	s.metrics.ServeHTTP(w, r)
}

const (
	defaultTimeout = 5 * time.Second
	maxTimeout     = time.Minute
)

// timeout is what Kkv-Timeout or ?timeout= asks for, a Go duration; at most a minute.
func timeout(r *http.Request, q url.Values) (time.Duration, error) {
	text := r.Header.Get("Kkv-Timeout")
	if v := q.Get("timeout"); v != "" {
		text = v
	}
	if text == "" {
		return defaultTimeout, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, errors.New("The timeout " + strconv.Quote(text) + " is not a duration such as 500ms or 2s.") //nolint:staticcheck // a sentence for the client
	}
	return min(d, maxTimeout), nil
}

// LoopbackOnly refuses requests whose Host names a public machine, where the server listens on loopback: a page
// that rebinds its own name to 127.0.0.1 would otherwise be of the same origin. Names without a dot and those
// under .localhost pass, since nobody can own them in the public DNS. On other listeners it changes nothing.
func LoopbackOnly(listen net.Addr, h http.Handler) http.Handler {
	tcp, ok := listen.(*net.TCPAddr)
	if !ok || !tcp.IP.IsLoopback() {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		host = strings.TrimSuffix(strings.ToLower(strings.Trim(host, "[]")), ".")
		ip, err := netip.ParseAddr(host)
		local := err == nil && ip.IsLoopback() || err != nil && (!strings.Contains(host, ".") || strings.HasSuffix(host, ".localhost"))
		if !local {
			problem(w, r, http.StatusMisdirectedRequest, "foreign-host", "This server listens on loopback and answers only to local names; call it as http://"+listen.String()+".")
			return
		}
		h.ServeHTTP(w, r)
	})
}
