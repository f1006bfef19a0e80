package httpapi

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kkv-project/kkv/internal/position"
)

func TestGetByKey(t *testing.T) {
	inBubble(t, func(t *testing.T, g *rig) {
		g.put(1, "A", []byte("red"), kgo.RecordHeader{Key: "content-type", Value: []byte("text/plain")}, kgo.RecordHeader{Key: "trace", Value: []byte("abc")})
		r := g.get("/v1/topics/fixture/keys/A")
		r.want(t, 200, "red")
		for name, want := range map[string]string{"Content-Type": "text/plain", "X-Kafka-Trace": "YWJj", "Kkv-Record": "1:0", "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox"} {
			if got := r.Header.Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		tag := r.Header.Get("ETag")
		if !strings.HasSuffix(tag, `-1-0-0"`) || r.Header.Get("Last-Modified") == "" {
			t.Errorf("headers %v", r.Header)
		}
		for _, m := range []string{tag, "W/" + tag, `"x", ` + tag, "*"} {
			if r := g.get("/v1/topics/fixture/keys/A", "If-None-Match", m); r.StatusCode != 304 || r.Header.Get("ETag") != tag || r.Header.Get("Kkv-Position") == "" {
				t.Errorf("If-None-Match %s: %d %v", m, r.StatusCode, r.Header)
			}
		}
		g.get("/v1/topics/fixture/keys/A", "If-None-Match", `"x"`).want(t, 200, "red")
		g.do("HEAD", "/v1/topics/fixture/keys/A", "").want(t, 200, "")
		r = g.get("/v1/topics/fixture/keys/B")
		r.wantProblem(t, 404, "not-found")
		if r.Header.Get("Kkv-Position") == "" {
			t.Error("a 404 has its position, too")
		}
		g.get("/v1/topics/other/keys/A").wantProblem(t, 404, "not-found")
		g.get("/v1/topics/fixture/nosuch").wantProblem(t, 404, "not-found")
		g.do("POST", "/v1/topics/fixture/keys/A", "x").wantProblem(t, 405, "bad-request")
	})
}

func TestWriteByKey(t *testing.T) {
	inBubble(t, func(t *testing.T, g *rig) {
		r := g.do("PUT", "/v1/topics/fixture/keys/A", `{"color":"red"}`, "Content-Type", "application/json", "X-Kafka-Trace", "YWJj")
		var ack struct{ Partition, Offset, Timestamp int64 }
		if err := json.Unmarshal([]byte(r.body), &ack); err != nil || r.StatusCode != 200 || ack.Timestamp == 0 {
			t.Fatalf("PUT: %d %s %v", r.StatusCode, r.body, err)
		}
		get := g.get("/v1/topics/fixture/keys/A")
		get.want(t, 200, `{"color":"red"}`)
		if get.Header.Get("Content-Type") != "application/json" || get.Header.Get("X-Kafka-Trace") != "YWJj" || get.Header.Get("ETag") != r.Header.Get("ETag") {
			t.Errorf("after PUT %v: %v", r.Header, get.Header)
		}
		wrote, err := position.Parse(r.Header.Get("Kkv-Position"))
		read, err2 := position.Parse(get.Header.Get("Kkv-Position"))
		if err != nil || err2 != nil || !read.Covers(wrote) || wrote.Partition(int32(ack.Partition)).Next != ack.Offset+1 {
			t.Errorf("PUT at %v, GET at %v", wrote, read)
		}
		g.do("PUT", "/v1/topics/fixture/keys/A", "")
		g.get("/v1/topics/fixture/keys/A").want(t, 200, "") // empty is a value
		g.do("DELETE", "/v1/topics/fixture/keys/A", "")
		g.get("/v1/topics/fixture/keys/A").wantProblem(t, 404, "not-found")

		// A key that some other producer put elsewhere than its hash says stays where it is, and a delete finds it.
		other := int32(1 - ack.Partition)
		g.put(other, "A", []byte("elsewhere"))
		if r := g.do("PUT", "/v1/topics/fixture/keys/A", "here"); !strings.Contains(r.body, `"partition":`+string(rune('0'+other))) {
			t.Errorf("PUT to a key that lives in partition %d: %s", other, r.body)
		}
		g.put(1-other, "A", []byte("both"))
		g.do("DELETE", "/v1/topics/fixture/keys/A", "")
		g.get("/v1/topics/fixture/keys/A").wantProblem(t, 404, "not-found")

		g.do("PUT", "/v1/topics/fixture/keys/A", "x", "If-Match", `"x"`).wantProblem(t, 400, "bad-request")
		g.do("PUT", "/v1/topics/fixture/keys/A", "x", "X-Kafka-Bad", "!").wantProblem(t, 400, "bad-request")
		g.do("PUT", "/v1/topics/fixture/keys/A?timeout=soon", "x").wantProblem(t, 400, "bad-request")
	})
}

func TestLargeValues(t *testing.T) {
	inBubble(t, func(t *testing.T, g *rig) {
		req := kmsg.NewPtrIncrementalAlterConfigsRequest()
		res := kmsg.NewIncrementalAlterConfigsRequestResource()
		res.ResourceType, res.ResourceName = kmsg.ConfigResourceTypeTopic, "fixture"
		c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		c.Name, c.Value = "max.message.bytes", kmsg.StringPtr("8000000")
		res.Configs = append(res.Configs, c)
		req.Resources = append(req.Resources, res)
		if resp, err := req.RequestWith(t.Context(), g.admin); err != nil || resp.Resources[0].ErrorCode != 0 {
			t.Fatal(err, resp)
		}
		five := strings.Repeat("0123456789", 500_000)
		if r := g.do("PUT", "/v1/topics/fixture/keys/five", five); r.StatusCode != 200 {
			t.Errorf("5 MB: %d %s", r.StatusCode, r.body)
		}
		if r := g.get("/v1/topics/fixture/keys/five"); r.body != five {
			t.Errorf("5 MB: got %d bytes", len(r.body))
		}
		r := g.do("PUT", "/v1/topics/fixture/keys/nine", five+five)
		r.wantProblem(t, 413, "too-large")
		if !strings.Contains(r.body, "max.message.bytes") {
			t.Errorf("9 MB: %s", r.body)
		}
	})
}

// TestWriteNotServedInTime: acknowledged but not served is 202, never an error, for clients would write it twice.
func TestWriteNotServedInTime(t *testing.T) {
	inBubble(t, func(t *testing.T, g *rig) {
		h := g.Fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.KafkaStorageError, Count: -1})
		r := g.do("PUT", "/v1/topics/fixture/keys/A?timeout=2s", "x")
		if r.StatusCode != 202 || !strings.Contains(r.body, `"offset":0`) || r.Header.Get("Kkv-Position") == "" {
			t.Errorf("%d %s %v", r.StatusCode, r.body, r.Header)
		}
		h.Remove()
	})
}

func TestWriteWithKafkaAway(t *testing.T) {
	inBubble(t, func(t *testing.T, g *rig) {
		g.Fake.Close()
		r := g.do("PUT", "/v1/topics/fixture/keys/A", "x", "Kkv-Timeout", "3s")
		if r.StatusCode != 503 && r.StatusCode != 504 {
			t.Errorf("%d %s", r.StatusCode, r.body)
		}
	})
}

func TestReadOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, func(o *Options) { o.Producer = nil })
		g.waitReady()
		r := g.do("PUT", "/v1/topics/fixture/keys/A", "x")
		r.wantProblem(t, 405, "read-only")
		if r.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("Allow: %s", r.Header.Get("Allow"))
		}
	})
}

func TestStatus(t *testing.T) {
	inBubble(t, func(t *testing.T, g *rig) {
		g.fixture()
		var got struct{ Topics []topicJSON }
		if err := json.Unmarshal([]byte(g.get("/v1/topics").body), &got); err != nil || len(got.Topics) != 1 {
			t.Fatal(err, got)
		}
		st := got.Topics[0]
		if st.Topic != "fixture" || !st.Ready || st.Keys != 5 || len(st.Partitions) != 2 || st.Partitions[0].Position != 3 || st.Partitions[1].AgeMs == nil {
			t.Errorf("%+v", st)
		}
		if st.Memory.Slabs < st.Bytes || st.Memory.Index == 0 || st.Replay != nil {
			t.Errorf("%+v", st)
		}
		if one := g.get("/v1/topics/fixture").body; !strings.Contains(one, `"topic": "fixture"`) {
			t.Errorf("%s", one)
		}
	})
}

func TestLoopbackOnly(t *testing.T) {
	ok := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	loop := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8091}
	for host, want := range map[string]int{"127.0.0.1:8091": 204, "localhost": 204, "[::1]:8091": 204, "pixy": 204, "kafka-keyvalue-nodejs--sidecar-demo:8091": 204,
		"x.localhost:8091": 204, "evil.example": 421, "127.0.0.1.evil.example:8091": 421, "10.0.0.1": 421, "localhost.": 204} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = host
		w := httptest.NewRecorder()
		LoopbackOnly(loop, ok).ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("Host %s on loopback: %d, want %d", host, w.Code, want)
		}
		w = httptest.NewRecorder()
		LoopbackOnly(&net.TCPAddr{IP: net.IPv4zero}, ok).ServeHTTP(w, r)
		if w.Code != 204 {
			t.Errorf("Host %s elsewhere: %d", host, w.Code)
		}
	}
}
