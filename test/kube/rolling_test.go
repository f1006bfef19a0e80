package kube

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kkv-project/kkv/test/harness"
	"github.com/kkv-project/kkv/test/require"
)

// A service stands for a Kubernetes service and its readiness probes: it hands each request to the next replica that was ready when last
// asked, but for one that the request names in the header Not. It retries nothing.
type service struct {
	*httptest.Server
	mu    sync.Mutex
	all   []*url.URL
	ready []*url.URL
	next  int
}

func newService(t *testing.T) *service {
	s := &service{}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(s.pick(r.In.Header.Get("Not"))) },
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			w.Header().Set("Not", r.URL.Host)
			http.Error(w, err.Error(), http.StatusBadGateway)
		},
	}
	s.Server = httptest.NewServer(proxy)
	t.Cleanup(s.Close)
	ctx, stop := context.WithCancel(t.Context())
	probing := make(chan struct{})
	go func() {
		defer close(probing)
		for tick := time.NewTicker(50 * time.Millisecond); ; {
			select {
			case <-tick.C:
				s.probe(ctx)
			case <-ctx.Done():
				tick.Stop()
				return
			}
		}
	}()
	t.Cleanup(func() { stop(); <-probing })
	return s
}

var nobody = &url.URL{Scheme: "http", Host: "127.0.0.1:1"}

func (s *service) pick(not string) *url.URL {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range s.ready {
		s.next++
		if u := s.ready[s.next%len(s.ready)]; u.Host != not {
			return u
		}
	}
	return nobody
}

func (s *service) add(replica *harness.Serve) {
	u, _ := url.Parse(replica.URL)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, u)
}

func (s *service) probe(ctx context.Context) {
	s.mu.Lock()
	all := append([]*url.URL(nil), s.all...)
	s.mu.Unlock()
	var ready []*url.URL
	for _, u := range all {
		ask, cancel := context.WithTimeout(ctx, time.Second)
		req, err := http.NewRequestWithContext(ask, http.MethodGet, u.String()+"/q/health/ready", nil)
		if err == nil {
			var res *http.Response
			if res, err = http.DefaultClient.Do(req); err == nil {
				_ = res.Body.Close()
			}
			if err == nil && res.StatusCode == http.StatusOK {
				ready = append(ready, u)
			}
		}
		cancel()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready = ready
}

// awaitReady waits until n replicas get requests.
func (s *service) awaitReady(t *testing.T, n int) {
	t.Helper()
	harness.Eventually(t, harness.StartTimeout, nil, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.ready) != n {
			return fmt.Errorf("%d replicas are ready, want %d", len(s.ready), n)
		}
		return nil
	})
}

// A writer writes its own key through the service, and reads it at least as new as its write: from whatever replica comes next.
type writer struct {
	base    string
	client  *http.Client
	retries *atomic.Int64
}

// once sends a request, and once more to another replica if that failed.
func (w *writer) once(ctx context.Context, method, path, body, atLeast string) (string, http.Header, error) {
	var last error
	not := ""
	for try := range 2 {
		if try > 0 {
			w.retries.Add(1)
		}
		req, err := http.NewRequestWithContext(ctx, method, w.base+path, strings.NewReader(body))
		if err != nil {
			return "", nil, err
		}
		req.Header.Set("Not", not)
		if atLeast != "" {
			req.Header.Set("Kkv-At-Least", atLeast)
		}
		res, err := w.client.Do(req)
		if err != nil {
			last = err
			continue
		}
		text, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err == nil && res.StatusCode < 300 {
			return string(text), res.Header, nil
		}
		not = res.Header.Get("Not")
		last = fmt.Errorf("%s %s: %s: %s (%v)", method, path, res.Status, text, err)
	}
	return "", nil, fmt.Errorf("twice: %w", last)
}

// run goes on until ctx ends, and returns the first failure.
func (w *writer) run(ctx context.Context, key string, done *atomic.Int64) error {
	path := "/v1/topics/sidecar-demo/keys/" + key
	for n := 0; ctx.Err() == nil; n++ {
		value := fmt.Sprintf("%s-%d", key, n)
		_, header, err := w.once(context.WithoutCancel(ctx), "PUT", path, value, "")
		if err != nil {
			return err
		}
		got, _, err := w.once(context.WithoutCancel(ctx), "GET", path, "", header.Get("Kkv-Position"))
		if err != nil {
			return err
		}
		if got != value {
			return fmt.Errorf("read %q after writing %q at %s", got, value, header.Get("Kkv-Position"))
		}
		done.Add(1)
	}
	return nil
}

// Three replicas behind one service, all replaced under load, and then one lost with its node: no request fails of a client that tries
// once more elsewhere, and each reads its own write, by the position of its write, from whatever replica comes next.
func TestRollingUpdate(t *testing.T) {
	dev := harness.StartDev(t, "sidecar-demo", nil)
	svc := newService(t)
	start := func() *harness.Serve {
		s := harness.StartServe(t, dev.Kafka, "sidecar-demo", nil, "--writable", "--drain", "1s")
		svc.add(s)
		return s
	}
	var replicas []*harness.Serve
	for range 3 {
		replicas = append(replicas, start())
	}
	svc.awaitReady(t, 3)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var done, retries atomic.Int64
	transport := &http.Transport{MaxIdleConnsPerHost: 8}
	defer transport.CloseIdleConnections()
	load, loadCtx := errgroup.WithContext(ctx)
	for i := range 8 {
		w := &writer{svc.URL, &http.Client{Transport: transport, Timeout: 20 * time.Second}, &retries}
		load.Go(func() error { return w.run(loadCtx, fmt.Sprintf("key-%d", i), &done) })
	}
	goesOn := func() {
		t.Helper()
		until := done.Load() + 100
		harness.Eventually(t, harness.StartTimeout, nil, func() error {
			if loadCtx.Err() != nil || done.Load() >= until {
				return nil
			}
			return fmt.Errorf("%d writes, want %d", done.Load(), until)
		})
	}
	goesOn()
	for i, old := range replicas { // as a Deployment does with maxSurge 1 and maxUnavailable 0
		replicas[i] = start()
		svc.awaitReady(t, 4)
		old.Signal(syscall.SIGTERM)
		if code := old.WaitEnd(t, harness.StartTimeout); code != 0 {
			t.Errorf("exit code %d", code)
		}
		svc.awaitReady(t, 3)
		goesOn()
	}
	planned := retries.Load()
	replicas[0].Kill()
	goesOn()
	stop()
	if err := load.Wait(); err != nil {
		t.Error(err)
	}
	t.Logf("%d writes, each read back; tried again: %d during the update, %d as a replica was lost", done.Load(), planned, retries.Load()-planned)
	if planned > 0 {
		t.Errorf("%d requests failed during a planned update, for clients that do not try again", planned)
	}
}

// promtool finds nothing to say of the metrics of a cache under way, and of a gateway.
func TestMetricsAreWellFormed(t *testing.T) {
	require.Need(t, require.Promtool)
	dev := harness.StartDev(t, "metrics", nil, "--webhook-target", "http://127.0.0.1:1/")
	if res := harness.DoBody(t, dev.Cache, "PUT", "/v1/topics/metrics/keys/k", []byte("v")); res.Status != 200 {
		t.Fatal(res)
	}
	for name, base := range map[string]string{"cache": dev.Cache, "gateway": dev.Gateway} {
		res := harness.Do(t, base, "GET", "/metrics")
		if res.Status != 200 || !strings.Contains(string(res.Body), "\nkkv_") {
			t.Errorf("%s: %s", name, res)
		}
		cmd := exec.Command("promtool", "check", "metrics")
		cmd.Stdin = strings.NewReader(string(res.Body))
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: promtool: %v\n%s", name, err, out)
		}
	}
}
