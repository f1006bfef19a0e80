package httpapi

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/kkv-project/kkv/internal/cache"
	"github.com/kkv-project/kkv/internal/kafkatest"
)

// fixture is the data behind the answers recorded from the original.
func (g *rig) fixture() {
	g.put(0, "A", []byte(`{ "id": "A", "color": "red" }`))
	g.put(1, "B", []byte(`{ "id": "B", "color": "blue" }`))
	g.put(0, "C", []byte("hello"))
	g.put(1, "D", []byte("form-value"))
	g.put(0, "E", []byte("{}"))
}

const fixtureOffsets = `[{"offset":1,"partition":1,"topic":"fixture"},{"offset":2,"partition":0,"topic":"fixture"}]`

// TestRecordedAnswers: status, headers and bytes as the original gave them on the same data.
func TestRecordedAnswers(t *testing.T) {
	inBubble(t, func(t *testing.T, g *rig) {
		g.fixture()
		for _, tc := range []struct {
			method, target string
			status         int
			contentType    string
			length         int64
			offsets        bool
			body           string
		}{
			{"GET", "/cache/v1/raw/A", 200, "application/octet-stream", 29, true, `{ "id": "A", "color": "red" }`},
			{"HEAD", "/cache/v1/raw/A", 200, "application/octet-stream", 29, true, ""},
			{"GET", "/cache/v1/raw/nokey", 404, "", 0, true, ""},
			{"GET", "/cache/v1/keys", 200, "application/octet-stream", 10, true, "A\nB\nC\nD\nE\n"},
			{"GET", "/cache/v1/values", 200, "text/plain;charset=UTF-8", 81, true,
				"{ \"id\": \"A\", \"color\": \"red\" }\n{ \"id\": \"B\", \"color\": \"blue\" }\nhello\nform-value\n{}\n"},
			{"GET", "/cache/v1/offset/fixture/0", 200, "text/plain;charset=UTF-8", 1, false, "2"},
			{"GET", "/cache/v1/offset/fixture/99", 204, "text/plain;charset=UTF-8", 0, false, ""},
			{"GET", "/cache/v1/offset/other/0", 204, "text/plain;charset=UTF-8", 0, false, ""},
			{"POST", "/cache/v1/raw/A", 405, "", 0, false, ""},
			{"GET", "/nosuch", 404, "", 0, false, ""},
		} {
			r := g.do(tc.method, tc.target, "")
			r.want(t, tc.status, tc.body)
			if ct := r.Header.Get("Content-Type"); ct != tc.contentType {
				t.Errorf("%s: Content-Type %q, want %q", tc.target, ct, tc.contentType)
			}
			if r.ContentLength != tc.length {
				t.Errorf("%s: Content-Length %d, want %d", tc.target, r.ContentLength, tc.length)
			}
			offsets := ""
			if tc.offsets {
				offsets = fixtureOffsets
				if r.Header.Get("Kkv-Position") == "" || r.Header.Get("Cache-Control") != "no-cache" {
					t.Errorf("%s: headers %v", tc.target, r.Header)
				}
			}
			if o := r.Header.Get("x-kkv-last-seen-offsets"); o != offsets {
				t.Errorf("%s: offsets %q, want %q", tc.target, o, offsets)
			}
		}
		g.put(0, "A", nil)
		g.get("/cache/v1/keys").want(t, 200, "B\nC\nD\nE\n")
		g.get("/cache/v1/raw/A").want(t, 404, "")
		g.get("/cache/v1/offset/fixture/0").want(t, 200, "3")
	})
}

func TestHealth(t *testing.T) {
	inBubble(t, func(t *testing.T, g *rig) {
		const up = `{"status":"UP","checks":[{"name":"consume-loop","status":"UP","data":{"stage":"Polling"}}]}` + "\n"
		for _, path := range []string{"/q/health/ready", "/health/ready", "/readyz", "/ready", "/q/health/live", "/health/live", "/livez", "/q/health", "/health"} {
			r := g.get(path)
			r.want(t, 200, up)
			if ct := r.Header.Get("Content-Type"); ct != "application/json; charset=UTF-8" {
				t.Errorf("%s: Content-Type %q", path, ct)
			}
		}
		g.server.Drain()
		if r := g.get("/q/health/ready"); r.StatusCode != 503 {
			t.Errorf("draining: %d", r.StatusCode)
		}
		g.get("/q/health/live").want(t, 200, up)
	})
}

// TestHealthTellsOfMemory: from 90 % of the limit on, before anything stands still (rule 19).
func TestHealthTellsOfMemory(t *testing.T) {
	var st cache.Status
	taken := st.Memory.Settled() // of nothing at all
	for limit, want := range map[int64]string{0: "", taken * 2: "", taken * 10 / 9: "90 % of --max-bytes is taken", taken: "100 % of --max-bytes is taken"} {
		st.MaxBytes = limit
		if got := findings(&st)["memory"]; got != want {
			t.Errorf("%d of %d bytes: %q, want %q", taken, limit, got, want)
		}
	}
	st.Held = []int32{2}
	if got := findings(&st)["held"]; !strings.Contains(got, "partitions [2] stand still") {
		t.Errorf("held: %q", got)
	}
}

// TestKafkaAway: with UnreadyWhenAway a cache whose Kafka is away is unready, and yet serves; a fresh read is refused.
func TestKafkaAway(t *testing.T) {
	for _, unready := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			g := newRig(t, func(o *Options) { o.UnreadyWhenAway = unready })
			g.waitReady()
			g.put(0, "A", []byte("1"))
			h := g.Fake.Fault(kfake.Fault{Err: kerr.KafkaStorageError, Count: -1})
			kafkatest.Pass(time.Second) // as long as an election
			if r := g.get("/readyz"); r.StatusCode != 200 {
				t.Errorf("after 1 s: %d %s", r.StatusCode, r.body)
			}
			kafkatest.Pass(9 * time.Second)
			r, want := g.get("/readyz"), 200
			if unready {
				want = 503
			}
			if r.StatusCode != want || !strings.Contains(r.body, `"trouble":`) {
				t.Errorf("after 10 s: %d %s", r.StatusCode, r.body)
			}
			g.get("/cache/v1/raw/A").want(t, 200, "1")
			g.get("/v1/topics/fixture/keys/A?consistency=fresh&timeout=1s").wantProblem(t, 504, "behind")
			h.Remove()
			kafkatest.Pass(10 * time.Second)
			if r := g.get("/readyz"); r.StatusCode != 200 {
				t.Errorf("back: %d %s", r.StatusCode, r.body)
			}
		})
	}
}

func TestBeforeReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := startRig(t, 0) // without the topic
		for _, target := range []string{"/cache/v1/raw/A", "/cache/v1/keys", "/cache/v1/values", "/q/health/ready", "/v1/topics/fixture/keys/A", "/v1/topics/fixture/watch"} {
			if r := g.get(target); r.StatusCode != 503 || r.body == "" {
				t.Errorf("%s: %d %q", target, r.StatusCode, r.body)
			}
		}
		g.get("/cache/v1/offset/fixture/0").want(t, 204, "")
		if r := g.get("/q/health/live"); r.StatusCode != 200 {
			t.Errorf("live: %d", r.StatusCode)
		}
	})
}

// TestHostileKeys: keys are bytes, percent-encoded once; the old route takes the query for part of the key.
func TestHostileKeys(t *testing.T) {
	inBubble(t, func(t *testing.T, g *rig) {
		for _, tc := range []struct{ key, raw, native string }{
			{"a/b", "a/b", "a%2Fb"},
			{"a//b", "a//b", "a//b"},
			{"/", "%2F", "/"},
			{"a?b=c&d", "a?b=c&d", "a%3Fb=c&d"},
			{"a?", "a?", "a%3F"},
			{"a b", "a%20b", "a%20b"},
			{"a+b", "a+b", "a+b"},
			{"100%", "100%25", "100%25"},
			{"%41", "%2541", "%2541"},
			{"åäö 世界", "%C3%A5%C3%A4%C3%B6%20%E4%B8%96%E7%95%8C", "%C3%A5%C3%A4%C3%B6%20%E4%B8%96%E7%95%8C"},
			{"\xff\x00\n", "%FF%00%0A", "%ff%00%0a"},
			{"", "", ""},
			{"..", "..", "Li4?keyEncoding=base64url"},
			{".", "%2E", "Lg?keyEncoding=base64url"},
			{"../../etc", "../../etc", "../../etc"},
			{"keys/x", "keys/x", "keys/x"},
		} {
			g.put(0, tc.key, []byte("value of "+tc.key))
			g.get("/cache/v1/raw/"+tc.raw).want(t, 200, "value of "+tc.key)
			g.get("/v1/topics/fixture/keys/"+tc.native).want(t, 200, "value of "+tc.key)
			if r := g.do("PUT", "/v1/topics/fixture/keys/"+tc.native, "new "+tc.key); r.StatusCode != 200 {
				t.Errorf("PUT %q: %d %s", tc.key, r.StatusCode, r.body)
			}
			g.get("/cache/v1/raw/"+tc.raw).want(t, 200, "new "+tc.key)
			if r := g.do("DELETE", "/v1/topics/fixture/keys/"+tc.native, ""); r.StatusCode != 200 {
				t.Errorf("DELETE %q: %d %s", tc.key, r.StatusCode, r.body)
			}
			g.get("/cache/v1/raw/"+tc.raw).want(t, 404, "")
		}
		if r := g.get("/v1/topics/fixture/keys/a?keyEncoding=hex"); r.StatusCode != 400 {
			t.Errorf("unknown encoding: %d", r.StatusCode)
		}
	})
}

func TestMetricsStartAtZero(t *testing.T) {
	inBubble(t, func(t *testing.T, g *rig) {
		body := g.get("/q/metrics").body
		for _, line := range []string{"kkv_stage 90", "kkv_cache_keys 0", "kkv_onupdate_dispatch_total 0", `kkv_onupdate_suppressed_total{suppress_reason="null_key"} 0`,
			`kkv_onupdate_suppressed_total{suppress_reason="value_deduplication"} 0`, "kkv_target_update_ok_total 0", "kkv_target_update_failure_total 0",
			"kkv_watcher_down 0", "kkv_watcher_event_total 0"} {
			if !strings.Contains(body, "\n"+line+"\n") {
				t.Errorf("/q/metrics lacks %q", line)
			}
		}
		g.fixture()
		if body := g.get("/metrics").body; !strings.Contains(body, "kkv_last_seen_offset{partition=\"0\",topic=\"fixture\"} 2\n") || !strings.Contains(body, "\nkkv_cache_keys 5\n") {
			t.Errorf("/metrics:\n%s", body)
		}
	})
}

func TestCrossOriginWritesAreRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, g *rig) {
		g.do("PUT", "/v1/topics/fixture/keys/a", "x", "Sec-Fetch-Site", "cross-site").wantProblem(t, http.StatusForbidden, "cross-origin")
		g.do("DELETE", "/v1/topics/fixture/keys/a", "", "Origin", "http://evil.example").wantProblem(t, http.StatusForbidden, "cross-origin")
		g.get("/cache/v1/keys", "Sec-Fetch-Site", "cross-site").want(t, 200, "")
	})
}
