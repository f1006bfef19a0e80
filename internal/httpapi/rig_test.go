package httpapi

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kkv-project/kkv/internal/cache"
	"github.com/kkv-project/kkv/internal/ingest"
	"github.com/kkv-project/kkv/internal/kafka"
	"github.com/kkv-project/kkv/internal/kafkatest"
)

// rig is a server on a cache on kfake, all in one synctest bubble and on one virtual network.
type rig struct {
	*kafkatest.Cluster
	t      *testing.T
	cache  *cache.Cache
	server *Server
	admin  *kgo.Client
	client *http.Client
}

func inBubble(t *testing.T, f func(t *testing.T, g *rig)) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		g.waitReady()
		f(t, g)
	})
}

// newRig starts everything; the topic "fixture" has two partitions, as in the recorded answers.
func newRig(t *testing.T, change ...func(*Options)) *rig {
	return startRig(t, 2, change...)
}

// startRig starts all on a topic of so many partitions; none: it does not exist.
func startRig(t *testing.T, partitions int32, change ...func(*Options)) *rig {
	g := &rig{Cluster: kafkatest.Start(t, "fixture", partitions), t: t}
	conf := g.Config()
	g.admin = g.Client()
	g.cache = cache.New(cache.Options{Ingest: ingest.Options{Kafka: conf, Topic: "fixture"}})
	producer, err := kafka.NewProducer(conf)
	if err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(NewCollector(g.cache, nil))
	o := Options{Cache: g.cache, Producer: producer, Gatherer: reg}
	for _, f := range change {
		f(&o)
	}
	g.server = New(o)
	l, err := g.Net.Listen("tcp", "localhost:8091")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: g.server}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := g.cache.Run(ctx); err != nil {
			t.Errorf("cache: %v", err)
		}
	})
	wg.Go(func() { _ = srv.Serve(l) })
	tr := &http.Transport{DialContext: g.Net.DialContext}
	g.client = &http.Client{Transport: tr}
	t.Cleanup(func() {
		cancel()
		tr.CloseIdleConnections()
		_ = srv.Close()
		_ = producer.Close(context.Background())
		wg.Wait()
	})
	return g
}

func (g *rig) waitReady() {
	g.t.Helper()
	select {
	case <-g.cache.Ready():
	case <-time.After(time.Minute):
		g.t.Fatal("the cache does not become ready")
	}
}

// put produces; a nil value is a tombstone.
func (g *rig) put(partition int32, key string, value []byte, headers ...kgo.RecordHeader) {
	g.t.Helper()
	r := &kgo.Record{Topic: "fixture", Partition: partition, Key: []byte(key), Value: value, Headers: headers}
	if err := g.admin.ProduceSync(g.t.Context(), r).FirstErr(); err != nil {
		g.t.Fatal(err)
	}
	if err := g.cache.WaitFor(g.t.Context(), [16]byte{}, partition, r.Offset); err != nil {
		g.t.Fatal(err)
	}
}

// reply is an answer with its body read.
type reply struct {
	*http.Response
	body string
}

// do sends the request target as it stands, whatever url.Parse would make of it.
func (g *rig) do(method, target, body string, header ...string) reply {
	g.t.Helper()
	req, err := http.NewRequestWithContext(g.t.Context(), method, "http://localhost:8091/", strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	req.URL.Opaque = target
	if !strings.HasPrefix(target, "//") {
		req.URL.Opaque = target
	} else {
		req.URL.Opaque = "http://localhost:8091" + target
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := g.client.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	_ = resp.Body.Close()
	return reply{resp, string(b)}
}

func (g *rig) get(target string, header ...string) reply {
	g.t.Helper()
	return g.do("GET", target, "", header...)
}

// want checks status and body.
func (r reply) want(t *testing.T, status int, body string) {
	t.Helper()
	if r.StatusCode != status || r.body != body {
		t.Errorf("%s %s: %d %q, want %d %q", r.Request.Method, r.Request.URL.Opaque, r.StatusCode, r.body, status, body)
	}
}

func (r reply) wantProblem(t *testing.T, status int, kind string) {
	t.Helper()
	if r.StatusCode != status || r.Header.Get("Content-Type") != "application/problem+json" || !strings.Contains(r.body, `"/problems/`+kind+`"`) {
		t.Errorf("%s %s: %d %s, want %d %s", r.Request.Method, r.Request.URL.Opaque, r.StatusCode, r.body, status, kind)
	}
}

func record(key, value string) *kgo.Record {
	return &kgo.Record{Topic: "fixture", Key: []byte(key), Value: []byte(value)}
}
