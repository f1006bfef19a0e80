package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kkv-project/kkv/internal/kafkatest"
	"github.com/kkv-project/kkv/internal/position"
)

// putBehind produces without waiting for the cache.
func (g *rig) putBehind(partition int32, key, value string) {
	g.t.Helper()
	r := record(key, value)
	r.Partition = partition
	if err := g.admin.ProduceSync(g.t.Context(), r).FirstErr(); err != nil {
		g.t.Fatal(err)
	}
}

func TestFreshReads(t *testing.T) {
	inBubble(t, func(t *testing.T, g *rig) {
		for i, target := range []string{"/v1/topics/fixture/keys/k?consistency=fresh", "/v1/topics/fixture/keys/k", "/cache/v1/raw/k", "/v1/topics/fixture/keys/k?maxStale=0s"} {
			g.putBehind(0, "k", fmt.Sprint(i))
			var header []string
			if !strings.Contains(target, "?") {
				header = []string{"Kkv-Consistency", "fresh"}
			}
			g.get(target, header...).want(t, 200, fmt.Sprint(i))
		}
		g.putBehind(0, "k2", "1")
		if r := g.get("/v1/topics/fixture/keys?consistency=fresh&values=true"); !strings.Contains(r.body, `"key":"k2"`) {
			t.Errorf("list: %s", r.body)
		}
		g.putBehind(0, "k2", "2")
		if r := g.do("POST", "/v1/topics/fixture/keys:batchGet?consistency=fresh", `{"keys":["k2"]}`); !strings.Contains(r.body, `"value":2`) {
			t.Errorf("batch get: %s", r.body)
		}
		g.get("/v1/topics/fixture/keys/k?consistency=strong").wantProblem(t, 400, "bad-request")
		g.get("/v1/topics/fixture/keys/k?maxStale=soon").wantProblem(t, 400, "bad-request")
		g.get("/v1/topics/fixture/keys/k?atLeast=x").wantProblem(t, 400, "bad-position")
		g.get("/v1/topics/fixture/keys/k?atLeast=0:x").wantProblem(t, 400, "bad-position")
		g.get("/v1/topics/fixture/keys/k?atLeast=0:9223372036854775807").wantProblem(t, 400, "bad-position")
	})
}

func TestReadAtLeast(t *testing.T) {
	inBubble(t, func(t *testing.T, g *rig) {
		g.putBehind(0, "k", "1")
		g.get("/v1/topics/fixture/keys/k", "Kkv-At-Least", "0:0").want(t, 200, "1")
		at := g.do("PUT", "/v1/topics/fixture/keys/k", "2").Header.Get("Kkv-Position")
		r := g.get("/v1/topics/fixture/keys/k?atLeast=" + at + ",0:1")
		r.want(t, 200, "2")
		asked, err := position.Parse(at)
		got, err2 := position.Parse(r.Header.Get("Kkv-Position"))
		if err != nil || err2 != nil || !got.Covers(asked) || got.Partition(0).Next < 2 {
			t.Errorf("asked for %v, answered at %v", asked, got)
		}
		r = g.get("/v1/topics/fixture/keys/k?atLeast=1:7&timeout=1s")
		r.wantProblem(t, 504, "behind")
		var b behindBody
		if err := json.Unmarshal([]byte(r.body), &b); err != nil || b.Partition != 1 || b.Wanted != 8 || b.Have != 0 || b.Reason != "behind" {
			t.Errorf("%s", r.body)
		}
		other := strings.Repeat("A", 21) + "A~1~1"
		g.get("/v1/topics/fixture/keys/k", "Kkv-At-Least", other).wantProblem(t, http.StatusConflict, "position-from-another-topic")
	})
}

func TestFreshByDefaultAndKafkaAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, func(o *Options) { o.Fresh = true })
		g.waitReady()
		g.putBehind(0, "k", "1")
		g.get("/cache/v1/raw/k").want(t, 200, "1")
		h := g.Fake.Fault(kfake.Fault{Err: kerr.BrokerNotAvailable, Count: -1, Keys: []kmsg.Key{kmsg.Fetch, kmsg.Metadata, kmsg.ListOffsets}})
		<-time.After(5 * time.Second)
		r := g.get("/cache/v1/raw/k", "Kkv-Timeout", "1s")
		r.wantProblem(t, 504, "behind") // never a silent local answer
		if !strings.Contains(r.body, `"reason":"no-leader"`) {
			t.Errorf("%s", r.body)
		}
		g.get("/cache/v1/raw/k", "Kkv-Consistency", "local").want(t, 200, "1")
		g.get("/cache/v1/raw/k", "Kkv-Max-Stale", "1h").want(t, 200, "1")
		stale := g.get("/cache/v1/raw/k", "Kkv-Max-Stale", "1s", "Kkv-Timeout", "1s")
		stale.wantProblem(t, 503, "too-stale")
		if stale.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		h.Remove()
		<-time.After(5 * time.Second)
		g.get("/cache/v1/raw/k").want(t, 200, "1")
	})
}

// TestFreshGetsShareOneQuestion: however many fresh GETs there are, at most one question to the leaders is under way, and
// all those that waited for it to be sent are answered by it.
func TestFreshGetsShareOneQuestion(t *testing.T) {
	inBubble(t, func(t *testing.T, g *rig) {
		g.put(0, "k", []byte("1"))
		const answer, readers = 10 * time.Millisecond, 50
		var asked, underWay, most, reads atomic.Int64
		g.Fake.ControlKey(int16(kmsg.ListOffsets), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
			g.Fake.KeepControl()
			// A question for a fresh read goes by the leader's epoch; what is asked every 500 ms does not.
			if kreq.(*kmsg.ListOffsetsRequest).Topics[0].Partitions[0].CurrentLeaderEpoch >= 0 {
				asked.Add(1)
				most.Store(max(most.Load(), underWay.Add(1)))
				g.Fake.SleepControl(func() { kafkatest.Pass(answer) })
				underWay.Add(-1)
			}
			return nil, nil, false
		})
		began := time.Now()
		var wg sync.WaitGroup
		for range readers {
			wg.Go(func() {
				for time.Since(began) < time.Second {
					g.get("/v1/topics/fixture/keys/k", "Kkv-Consistency", "fresh").want(t, 200, "1")
					reads.Add(1)
				}
			})
		}
		wg.Wait()
		took := time.Since(began)
		t.Logf("%d fresh reads, %d questions in %v", reads.Load(), asked.Load(), took)
		if most.Load() != 1 || asked.Load() > int64(took/answer)+1 {
			t.Errorf("%d questions in %v, up to %d at a time", asked.Load(), took, most.Load())
		}
		if reads.Load() < asked.Load()*readers/3 {
			t.Errorf("%d reads for %d questions: they are not shared", reads.Load(), asked.Load())
		}
	})
}
