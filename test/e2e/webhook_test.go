package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kkv-project/kkv/test/harness"
)

// A push is one webhook as it came.
type push struct {
	method, path, body string
	header             http.Header
}

// update is the body of a push.
type update struct {
	V       int
	Topic   string
	Offsets map[string]int64
	Updates map[string]struct{}
}

func (p push) update(t *testing.T) update {
	t.Helper()
	var u update
	if err := json.Unmarshal([]byte(p.body), &u); err != nil {
		t.Fatalf("pushed body %q: %v", p.body, err)
	}
	return u
}

// A receiver is an application that kkv pushes to. It answers 204 unless told otherwise.
type receiver struct {
	*httptest.Server
	mu   sync.Mutex
	got  []push
	fail int // answer 500 to so many more
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.got = append(r.got, push{req.Method, req.URL.Path, string(body), req.Header.Clone()})
		if r.fail > 0 {
			r.fail--
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(r.Close)
	return r
}

// pushes returns what has come so far.
func (r *receiver) pushes() []push {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

// keys returns the keys pushed so far, in order.
func (r *receiver) keys(t *testing.T) []string {
	var keys []string
	for _, p := range r.pushes() {
		for key := range p.update(t).Updates {
			keys = append(keys, key)
		}
	}
	return keys
}

// awaitKeys waits until all of the keys have been pushed.
func (r *receiver) awaitKeys(t *testing.T, s *harness.Serve, want ...string) {
	t.Helper()
	harness.Eventually(t, harness.StartTimeout, s.Process, func() error {
		got := r.keys(t)
		for _, key := range want {
			if !slices.Contains(got, key) {
				return fmt.Errorf("pushed %q, not %q", got, key)
			}
		}
		return nil
	})
}

// env returns the old environment variables that make the receiver kkv's static target.
func (r *receiver) env() []string {
	u, _ := url.Parse(r.URL)
	return []string{"TARGET_STATIC_HOST=" + u.Hostname(), "TARGET_STATIC_PORT=" + u.Port()}
}

// testWebhook holds pushes to a static target against what the original sent.
func testWebhook(t *testing.T, e env) {
	r := newReceiver(t)
	// Records from before the start are not pushed.
	first, producer := e.serve(t, 2, nil)
	producer.MustSend(t, harness.Record(0, []byte("old"), []byte("1")), harness.Record(1, []byte("old1"), []byte("1")))
	s := harness.StartServe(t, first.Bootstrap, first.Topic, r.env())
	s.AwaitReady(t)

	producer.MustSend(t, harness.Record(1, []byte("push-0"), []byte("v")))
	r.awaitKeys(t, s, "push-0")
	if keys := r.keys(t); len(keys) != 1 {
		t.Errorf("pushed %q, want push-0 alone", keys)
	}
	p := r.pushes()[0]
	if want := fmt.Sprintf(`{"v":1,"topic":%q,"offsets":{"1":1},"updates":{"push-0":{}}}`, s.Topic); p.body != want {
		t.Errorf("body %q, want %q", p.body, want)
	}
	if p.method != "POST" || p.path != "/kafka-keyvalue/v1/updates" {
		t.Errorf("%s %s, want POST /kafka-keyvalue/v1/updates", p.method, p.path)
	}
	for name, want := range map[string]string{"x-kkv-topic": s.Topic, "x-kkv-offsets": `{"1":1}`, "content-type": "application/json"} {
		if got := p.header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}

	// A value equal to the last one is not pushed, nor is a null key; a delete is, and so is a put after it.
	producer.MustSend(t, harness.Record(1, []byte("push-0"), []byte("v")), harness.Record(0, []byte("push-1"), []byte("v")))
	r.awaitKeys(t, s, "push-1")
	wantMetric(t, s, `kkv_onupdate_suppressed_total{suppress_reason="value_deduplication"}`, 1)
	producer.MustSend(t, harness.Record(1, []byte("push-0"), nil))
	harness.Eventually(t, harness.StartTimeout, s.Process, func() error {
		if diff := cmp.Diff([]string{"push-0", "push-1", "push-0"}, r.keys(t)); diff != "" {
			return fmt.Errorf("pushed keys (-want +got):\n%s", diff)
		}
		return nil
	})
	for _, p := range r.pushes() {
		if u := p.update(t); len(u.Offsets) != 1 {
			t.Errorf("offsets of %d partitions in one push: %s", len(u.Offsets), p.body)
		}
	}
	wantMetric(t, s, "kkv_target_update_failure_total", 0)
	// The last one counts when its answer is in, a little after it was received.
	harness.Eventually(t, harness.StartTimeout, s.Process, func() error {
		if ok := metric(t, s, "kkv_target_update_ok_total"); ok < 3 {
			return fmt.Errorf("kkv_target_update_ok_total %v, want 3 or more", ok)
		}
		return nil
	})
}

// testWebhookRetries: a target that fails for a while gets every key in the end, and never an older offset after a newer one.
func testWebhookRetries(t *testing.T, e env) {
	r := newReceiver(t)
	r.fail = 2
	s, producer := e.serve(t, 1, append(r.env(), "DISPATCHER_RETRY_TIMES=1", "DISPATCHER_RETRY_BACKOFF_SECONDS=1"))
	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprint("key-", i))
		producer.MustSend(t, harness.Record(0, []byte(want[i]), []byte("v")))
	}
	r.awaitKeys(t, s, want...)
	if failed := metric(t, s, "kkv_target_update_failure_total"); failed < 2 {
		t.Errorf("kkv_target_update_failure_total %v, want 2 or more", failed)
	}
	last := int64(-1)
	for _, p := range r.pushes() {
		offset := p.update(t).Offsets["0"]
		if offset < last {
			t.Errorf("offset %d pushed after %d", offset, last)
		}
		last = offset
	}
}
