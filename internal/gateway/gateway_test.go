package gateway

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kkv-project/kkv/internal/kafka"
	"github.com/kkv-project/kkv/internal/kafkatest"
	"github.com/kkv-project/kkv/internal/position"
)

// rig is a gateway on a fake broker, in a synctest bubble.
type rig struct {
	*Gateway
	t      *testing.T
	k      *kafkatest.Cluster
	c      *kfake.Cluster
	p      *kafka.Producer
	config kafka.Config
}

func newRig(t *testing.T, change func(*Options), opts ...kfake.Opt) *rig {
	t.Helper()
	r := &rig{t: t, k: kafkatest.Start(t, "t", 1, opts...)}
	r.c, r.config = r.k.Fake, r.k.Config()
	var err error
	if r.p, err = kafka.NewProducer(r.config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.p.Close(context.Background()) })
	o := Options{Producer: r.p, Admin: kafka.Admin{Client: r.p.Client()}}
	if change != nil {
		change(&o)
	}
	r.Gateway = New(o)
	return r
}

// call sends a request with headers given as name, value pairs.
func (r *rig) call(method, target, body string, header ...string) *httptest.ResponseRecorder {
	r.t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	req := httptest.NewRequest(method, target, reader)
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	return w
}

func (r *rig) consume(n int) []*kgo.Record {
	r.t.Helper()
	cl, err := kafka.NewClient(r.config, kgo.ConsumeTopics("t"), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		r.t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var got []*kgo.Record
	for len(got) < n {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			r.t.Fatalf("after %d of %d records: %v", len(got), n, err)
		}
		got = append(got, fetches.Records()...)
	}
	return got
}

func errorOf(w *httptest.ResponseRecorder) string {
	var body struct{ Error string }
	json.Unmarshal(w.Body.Bytes(), &body)
	return body.Error
}

func bubble(t *testing.T, f func(t *testing.T)) { synctest.Test(t, f) }

func TestKeysSurvive(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		keys := []string{
			"A", "a/b", "a//b", "..", ".", "?", "a?b=c", "%", "%2F", "100%", "+", "a b", "a&b", "a;b", "#", "åäö", "日本", "\x00\xff", `"`, "",
		}
		for _, k := range keys {
			w := r.call("POST", "/topics/t/messages?key="+url.QueryEscape(k)+"&sync", "v")
			if w.Code != 200 {
				t.Errorf("key %q: %d %s", k, w.Code, w.Body)
			}
		}
		for i, rec := range r.consume(len(keys)) {
			if string(rec.Key) != keys[i] || rec.Key == nil {
				t.Errorf("key %d is %q, want %q", i, rec.Key, keys[i])
			}
		}
	})
}

func TestUnescapedKeys(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		// As clients send that do not encode: a semicolon and a slash come
		// through; + is a space, as in the original.
		for i, c := range []struct{ query, key string }{{"key=a;b&sync", "a;b"}, {"sync&key=a/b/../c", "a/b/../c"}, {"key=a+b&sync=1", "a b"}, {"key=x&key=y&other=1&sync=false", "x"}} {
			if w := r.call("POST", "/topics/t/messages?"+c.query, "v"); w.Code != 200 || !strings.Contains(w.Body.String(), "offset") {
				t.Fatalf("%s: %d %s", c.query, w.Code, w.Body)
			}
			if got := r.consume(i + 1)[i]; string(got.Key) != c.key {
				t.Errorf("%s: key %q, want %q", c.query, got.Key, c.key)
			}
		}
		for _, q := range []string{"key=%", "key=%zz&sync", "k%ey=a"} {
			req := httptest.NewRequest("POST", "/topics/t/messages", strings.NewReader("v"))
			req.URL.RawQuery = q
			w := httptest.NewRecorder()
			if r.ServeHTTP(w, req); w.Code != 400 || !strings.Contains(errorOf(w), "percent-encoded") {
				t.Errorf("%s: %d %s", q, w.Code, w.Body)
			}
		}
	})
}

func TestValues(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		if err := r.c.DeleteTopic("t"); err != nil {
			t.Fatal(err)
		}
		if err := r.c.CreateTopic("t", 1, map[string]string{"max.message.bytes": "6000000"}); err != nil {
			t.Fatal(err)
		}
		large := strings.Repeat("0123456789", 500_000)
		type record struct {
			key, value []byte
			headers    []kgo.RecordHeader
		}
		for i, c := range []struct {
			method, query, body string
			header              []string
			want                record
		}{
			{"POST", "?key=a", "v", nil, record{[]byte("a"), []byte("v"), nil}},
			{"POST", "", "no key", nil, record{nil, []byte("no key"), nil}},
			{"POST", "?key=empty", "", []string{"Content-Length", "0"}, record{[]byte("empty"), []byte{}, nil}},
			{"DELETE", "?key=a", "", nil, record{[]byte("a"), nil, nil}},
			{"DELETE", "?key=", "a body is ignored", nil, record{[]byte{}, nil, nil}},
			{"POST", "?key=bin", "\x00\xff\r\n", []string{"Content-Type", "image/png"}, record{[]byte("bin"), []byte("\x00\xff\r\n"), nil}},
			{"POST", "?key=json", "{}", []string{"Content-Type", "application/json; charset=utf-8"}, record{[]byte("json"), []byte("{}"), nil}},
			{"POST", "?key=form", "x=1&msg=a+b%2Bc", []string{"Content-Type", "application/x-www-form-urlencoded; charset=utf-8"}, record{[]byte("form"), []byte("a b+c"), nil}},
			{"POST", "", "key=inform&msg=m", []string{"Content-Type", "application/x-www-form-urlencoded"}, record{[]byte("inform"), []byte("m"), nil}},
			{"POST", "?key=large", large, nil, record{[]byte("large"), []byte(large), nil}},
			{"POST", "?key=h", "v", []string{"x-kafka-trace-id", "YWJj", "X-Kafka-B", "", "X-KAFKA-TRACE-ID", "/w=="}, record{[]byte("h"), []byte("v"),
				[]kgo.RecordHeader{{Key: "B", Value: []byte{}}, {Key: "Trace-Id", Value: []byte("abc")}, {Key: "Trace-Id", Value: []byte{0xff}}}}},
		} {
			q := "?sync"
			if c.query != "" {
				q = c.query + "&sync"
			}
			w := r.call(c.method, "/topics/t/messages"+q, c.body, c.header...)
			if want := fmt.Sprintf("{\n  \"partition\": 0,\n  \"offset\": %d\n}", i); w.Code != 200 || w.Body.String() != want {
				t.Fatalf("%s %s: %d %s", c.method, c.query, w.Code, w.Body)
			}
			got := r.consume(i + 1)[i]
			same := func(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }
			if !same(got.Key, c.want.key) || !same(got.Value, c.want.value) { // cmp.Diff takes seconds for 5 MB
				t.Errorf("%s %s: got %q with a value of %d bytes, nil: %v", c.method, c.query, got.Key, len(got.Value), got.Value == nil)
			}
			if diff := cmp.Diff(c.want.headers, got.Headers); diff != "" {
				t.Errorf("%s %s headers (-want +got):\n%s", c.method, c.query, diff)
			}

		}
		w := r.call("POST", "/topics/t/messages?key=toolarge&sync", strings.Repeat("x", 7_000_000))
		if w.Code != 413 || !strings.Contains(errorOf(w), "max.message.bytes=6000000") {
			t.Errorf("7 MB where 6 are allowed: %d %s", w.Code, w.Body)
		}
	})
}

func TestChunkedBody(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(o *Options) { o.MaxBody = 1000 })
		for _, c := range []struct{ size, status int }{{0, 200}, {1000, 200}, {1001, 413}, {1_000_000, 413}} {
			req := httptest.NewRequest("POST", "/topics/t/messages?key=k&sync", io.MultiReader(strings.NewReader(strings.Repeat("x", c.size))))
			req.ContentLength, req.TransferEncoding = -1, []string{"chunked"}
			w := httptest.NewRecorder()
			if r.ServeHTTP(w, req); w.Code != c.status {
				t.Errorf("%d bytes: %d %s", c.size, w.Code, w.Body)
			}
		}
		if w := r.call("POST", "/topics/t/messages?key=k", strings.Repeat("x", 1001)); w.Code != 413 || !strings.Contains(errorOf(w), "1000 bytes") {
			t.Errorf("too large by Content-Length: %d %s", w.Code, w.Body)
		}
	})
}

func TestBadCalls(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		start := time.Now()
		for _, c := range []struct {
			method, target, body string
			header               []string
			status               int
			want                 string
		}{
			{"POST", "/topics/nosuch/messages?key=k&sync", "v", nil, 404, "kafka-topics --create --topic nosuch"},
			{"POST", "/topics/nosuch/messages?key=k", "v", nil, 404, "does not exist"}, // async too: {} would be a lie
			{"DELETE", "/topics/nosuch/messages?key=k", "", nil, 404, "does not exist"},
			{"GET", "/topics/nosuch", "", nil, 404, "does not exist"},
			{"POST", "/topics/a%2Fb/messages?key=k", "v", nil, 400, `"a/b" is not a legal topic name`},
			{"POST", "/topics/../messages?key=k", "v", nil, 400, "not a legal topic name"},
			{"POST", "/topics//messages?key=k", "v", nil, 400, "not a legal topic name"},
			{"GET", "/topics/a%0Ab", "", nil, 400, "not a legal topic name"},
			{"DELETE", "/topics/t/messages", "", nil, 400, "?key="},
			{"POST", "/topics/t/messages?key=k", "v", []string{"X-Kafka-A", "no base64!"}, 400, "X-Kafka-A is not base64"},
			{"POST", "/topics/t/messages?key=k", "msg=%zz", []string{"Content-Type", "application/x-www-form-urlencoded"}, 400, "percent-encoded"},
			{"GET", "/topics/t/messages?group=g", "", nil, 501, "not available in this version"},
			{"POST", "/topics/t/acks?group=g&partition=0&offset=1", "", nil, 501, "not available"},
			{"GET", "/topics/t/offsets?group=g", "", nil, 501, "not available"},
			{"GET", "/topics/t/consumers", "", nil, 501, "not available"},
			{"GET", "/topics/t/offsets?group=g&group=h", "", nil, 400, "but 2 provided"},
			{"POST", "/clusters/x/topics/t/messages", "v", nil, 400, "proxy `x` does not exist"},
			{"POST", "/topics/t/messages?key=k", "v", []string{"Sec-Fetch-Site", "cross-site"}, 403, "another origin"},
			{"DELETE", "/topics/t/messages?key=k", "", []string{"Origin", "http://evil.example"}, 403, "another origin"},
		} {
			w := r.call(c.method, c.target, c.body, c.header...)
			if w.Code != c.status || !strings.Contains(errorOf(w), c.want) || w.Header().Get("Content-Type") != "application/json" {
				t.Errorf("%s %s: %d %s, want %d with %q", c.method, c.target, w.Code, w.Body, c.status, c.want)
			}
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("a missing topic takes %v", took)
		}
		if r.c.TopicInfo("nosuch") != nil {
			t.Error("a topic was created")
		}
		for _, target := range []string{"/", "/topics/", "/topics/t/", "/topics/t/messages/x", "/topics/t/nosuch", "/clusters", "/clusters/default", "//topics", "/_ping/"} {
			if w := r.call("GET", target, ""); w.Code != 404 {
				t.Errorf("GET %s: %d", target, w.Code)
			}
		}
		for target, want := range map[string]string{"/topics": "GET", "/_ping": "GET", "/topics/t/acks": "POST", "/topics/t/messages": "GET, POST, DELETE"} {
			if w := r.call("PATCH", target, ""); w.Code != 405 || w.Header().Get("Allow") != want {
				t.Errorf("PATCH %s: %d, Allow %q", target, w.Code, w.Header().Get("Allow"))
			}
		}
	})
}

func TestNullKeyOnCompactedTopic(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		if err := r.c.CreateTopic("c", 1, map[string]string{"cleanup.policy": "compact"}); err != nil {
			t.Fatal(err)
		}
		for _, target := range []string{"/topics/c/messages", "/topics/c/messages?sync"} {
			if w := r.call("POST", target, "v"); w.Code != 400 || !strings.Contains(errorOf(w), "compacted: add ?key=") {
				t.Errorf("%s: %d %s", target, w.Code, w.Body)
			}
		}
		// Where the topic's settings may not be seen, it is the broker that refuses.
		r.c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.InvalidRecord, Count: -1})
		if w := r.call("POST", "/topics/t/messages?sync", "v"); w.Code != 400 || !strings.Contains(errorOf(w), "compacted: add ?key=") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if w := r.call("POST", "/topics/t/messages?key=k&sync", "v"); w.Code != 400 || !strings.Contains(errorOf(w), "INVALID_RECORD") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}

func TestTopics(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		if err := r.c.CreateTopic("c", 1, map[string]string{"cleanup.policy": "compact"}); err != nil {
			t.Fatal(err)
		}
		config := `"config": {"version": 1, "config": {"cleanup.policy": "compact"}}`
		partitions := `"partitions": [{"partition": 0, "leader": 0, "replicas": [0], "isr": [0]}]`
		for target, want := range map[string]string{
			"/topics":                  `["c", "t"]`,
			"/topics?withConfig":       `{"c": {` + config + `}, "t": {"config": {"version": 1, "config": {}}}}`,
			"/topics/c":                `{}`,
			"/topics/c?withPartitions": `{` + partitions + `}`,
			"/topics/c?withPartitions=1&withConfig=1": `{` + config + `, ` + partitions + `}`,
			"/clusters/default/topics/c?withConfig":   `{` + config + `}`,
		} {
			var indented bytes.Buffer
			if err := json.Indent(&indented, []byte(want), "", "  "); err != nil {
				t.Fatal(err)
			}
			w := r.call("GET", target, "")
			if diff := cmp.Diff(indented.String(), w.Body.String()); w.Code != 200 || diff != "" {
				t.Errorf("%s: %d (-want +got):\n%s", target, w.Code, diff)
			}
		}
	})
}

func TestBrokerAway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.k.Away(true)
		for _, c := range [][2]string{{"POST", "/topics/t/messages?key=k&sync"}, {"POST", "/topics/t/messages?key=k"}, {"DELETE", "/topics/t/messages?key=k"}, {"GET", "/topics"}, {"GET", "/topics/t"}} {
			start := time.Now()
			w := r.call(c[0], c[1], "v")
			if took := time.Since(start); w.Code != 503 || took > 10*time.Second {
				t.Errorf("%s %s: %d after %v: %s", c[0], c[1], w.Code, took, w.Body)
			}
			if c[0] != "GET" && !strings.Contains(errorOf(w), "not written") {
				t.Errorf("%s %s does not say that nothing was written: %s", c[0], c[1], w.Body)
			}
		}
		if w := r.call("GET", "/_ping", ""); w.Code != 200 {
			t.Errorf("ping: %d", w.Code)
		}
		r.k.Away(false)
		if w := r.call("POST", "/topics/t/messages?key=k&sync", "v"); w.Code != 200 || !strings.Contains(w.Body.String(), `"offset": 0`) {
			t.Errorf("when it is back: %d %s", w.Code, w.Body)
		}
	})
}

func TestSlowBroker(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(o *Options) { o.Timeout = time.Second })
		if w := r.call("POST", "/topics/t/messages?key=k&sync", "v"); w.Code != 200 {
			t.Fatal(w.Body)
		}
		r.c.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
			r.c.DropControl()
			r.c.SleepControl(func() { time.Sleep(3 * time.Second) })
			return nil, nil, false
		})
		w := r.call("POST", "/topics/t/messages?key=k&sync", "v")
		if w.Code != 503 || !strings.Contains(errorOf(w), "outcome unknown") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		want := `
			# HELP kkv_gateway_produce_total Records that calls asked to produce, by mode (sync, async) and outcome: acknowledged by Kafka, certainly not written, or unknown.
			# TYPE kkv_gateway_produce_total counter
			kkv_gateway_produce_total{mode="async",outcome="acknowledged"} 0
			kkv_gateway_produce_total{mode="async",outcome="not_written"} 0
			kkv_gateway_produce_total{mode="async",outcome="unknown"} 0
			kkv_gateway_produce_total{mode="sync",outcome="acknowledged"} 1
			kkv_gateway_produce_total{mode="sync",outcome="not_written"} 0
			kkv_gateway_produce_total{mode="sync",outcome="unknown"} 1
		`
		registry := prometheus.NewRegistry()
		registry.MustRegister(r.Collectors()...)
		if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "kkv_gateway_produce_total"); err != nil {
			t.Error(err)
		}
	})
}

// The hook has returned before the answer is written, for async calls too.
func TestAckedHook(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var served atomic.Int64
		r := newRig(t, func(o *Options) {
			o.Acked = func(ctx context.Context, topic string, a kafka.Ack) {
				time.Sleep(time.Second) // fake time
				if topic == "t" && ctx.Err() == nil {
					served.Store(a.Offset + 1)
				}
			}
		})
		for i, target := range []string{"/topics/t/messages?key=k", "/topics/t/messages?key=k&sync"} {
			w := r.call("POST", target, "v")
			if w.Code != 200 || served.Load() != int64(i+1) {
				t.Errorf("%s: %d, served up to %d", target, w.Code, served.Load())
			}
			if i == 0 && w.Body.String() != "{}" {
				t.Errorf("async answered %s", w.Body)
			}
		}
		r.c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.TopicAuthorizationFailed, Count: -1})
		if w := r.call("POST", "/topics/t/messages?key=k", "v"); w.Code != 500 || !strings.Contains(errorOf(w), "kafka-acls") || served.Load() != 2 {
			t.Errorf("refused: %d %s", w.Code, w.Body)
		}
	})
}

func TestCloseKeepsPromises(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		slow := func() {
			r.c.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
				r.c.DropControl()
				r.c.SleepControl(func() { time.Sleep(2 * time.Second) })
				return nil, nil, false
			})
		}
		slow()
		start := time.Now()
		for i := range 50 {
			if w := r.call("POST", fmt.Sprintf("/topics/t/messages?key=%d", i), "v"); w.Code != 200 || w.Body.String() != "{}" {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("async calls waited %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := r.Close(ctx); err != nil || time.Since(start) < 2*time.Second {
			t.Errorf("close after %v: %v", time.Since(start), err)
		}
		if got := r.consume(50); len(got) != 50 {
			t.Errorf("%d records", len(got))
		}
		if w := r.call("POST", "/topics/t/messages?key=k&sync", "v"); w.Code != 503 || errorOf(w) != "shutting down" {
			t.Errorf("after close: %d %s", w.Code, w.Body)
		}
	})
}

func TestCloseGivesUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		if w := r.call("POST", "/topics/t/messages?key=a&sync", "v"); w.Code != 200 {
			t.Fatal(w.Body)
		}
		hold := r.c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotLeaderForPartition, Count: -1})
		r.call("POST", "/topics/t/messages?key=b", "v")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("close: %v", err)
		}
		hold.Remove()
	})
}

func TestLostAsyncIsLogged(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var log bytes.Buffer
		r := newRig(t, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		if w := r.call("POST", "/topics/t/messages?key=a", "v"); w.Code != 200 {
			t.Fatal(w.Body)
		}
		synctest.Wait()
		if log.Len() > 0 {
			t.Errorf("normal operation logged: %s", &log)
		}
		r.c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotLeaderForPartition, Count: -1})
		for range 5 {
			if w := r.call("POST", "/topics/t/messages?key=a", "v"); w.Code != 200 {
				t.Fatal(w.Body)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := r.Close(ctx); err != nil {
			t.Error(err)
		}
		if n := strings.Count(log.String(), "are lost"); n != 1 {
			t.Errorf("%d lines:\n%s", n, &log)
		}
		if got := testutil.ToFloat64(r.metrics.produced.WithLabelValues("async", notWritten)); got != 5 {
			t.Errorf("%v lost records counted", got)
		}
	})
}

func FuzzQuery(f *testing.F) {
	f.Add("key=a&sync")
	f.Fuzz(func(t *testing.T, key string) {
		q, err := parseQuery("sync&key=" + url.QueryEscape(key))
		if got, ok := q.get("key"); err != nil || !ok || got != key {
			t.Errorf("%q became %q, %v", key, got, err)
		}
		parseQuery(key)
	})
}

func TestHeaderOrder(t *testing.T) {
	h := http.Header{}
	for _, n := range []string{"X-Kafka-B", "X-Kafka-A", "X-Kafkaesque", "Content-Type"} {
		h.Set(n, base64.StdEncoding.EncodeToString([]byte(n)))
	}
	got, err := recordHeaders(h)
	want := []kafka.Header{{Key: "A", Value: []byte("X-Kafka-A")}, {Key: "B", Value: []byte("X-Kafka-B")}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

// TestProduceNamesItsPosition: the record of a synchronous call is in the position that comes back, on whichever replica.
func TestProduceNamesItsPosition(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		for range 2 {
			w := r.call("POST", "/topics/t/messages?key=k&sync", "v")
			var ack produced
			if err := json.Unmarshal(w.Body.Bytes(), &ack); err != nil {
				t.Fatal(err, w.Body)
			}
			p, err := position.Parse(w.Header().Get("Kkv-Position"))
			if err != nil || p.IsZero() || p.TopicID() == [16]byte{} || p.Partition(ack.Partition).Next != ack.Offset+1 {
				t.Errorf("%s: position %q, %v", w.Body, w.Header().Get("Kkv-Position"), err)
			}
		}
		if w := r.call("POST", "/topics/t/messages?key=k", "v"); w.Header().Get("Kkv-Position") != "" {
			t.Errorf("an asynchronous call names a position: %v", w.Header())
		}
	})
}
