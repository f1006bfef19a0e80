// Package nodejs runs examples/nodejs, an app on the unchanged npm client of the original, against `kkv dev`.
package nodejs

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kkv-project/kkv/test/apachekafka"
	"github.com/kkv-project/kkv/test/harness"
	"github.com/kkv-project/kkv/test/port"
	"github.com/kkv-project/kkv/test/process"
	"github.com/kkv-project/kkv/test/require"
)

func TestMain(m *testing.M) { harness.Main(m) }

// TestNodeJS runs the app's own tests on the embedded broker.
func TestNodeJS(t *testing.T) {
	require.Need(t, require.NPM)
	run(t, "")
}

// TestNodeJSOnApacheKafka runs them on Apache Kafka.
func TestNodeJSOnApacheKafka(t *testing.T) {
	require.Need(t, require.NPM)
	run(t, apachekafka.Start(t).Bootstrap)
}

func run(t *testing.T, bootstrap string) {
	dir := filepath.Join(harness.Root(), "examples", "nodejs")
	harness.InstallNPM(t, dir)

	app := port.Free(t, 1)[0]
	args := []string{"--webhook-target", fmt.Sprintf("http://127.0.0.1:%d/kafka-keyvalue/v1/updates", app)}
	if bootstrap != "" {
		args = append(args, "--kafka-bootstrap", bootstrap)
	}
	d := harness.StartDev(t, "sidecar-demo", nil, args...)
	if bootstrap == "" {
		bootstrap = d.Kafka
	}
	node := process.Start(t, process.Options{
		Name: "node --test", Path: "npm", Args: []string{"test"}, Dir: dir,
		Env: []string{
			"CACHE_HOST=" + d.Cache, "PIXY_HOST=" + d.Gateway, "TOPIC_NAME=" + d.Topic, fmt.Sprintf("PORT=%d", app),
			"PRODUCE_URL=" + produceServer(t, bootstrap, d.Topic),
		},
	})
	if code := node.WaitEnd(t, 3*time.Minute); code != 0 {
		t.Fatalf("the app's tests failed (its output is below); kkv dev's last lines:\n%s", d.Tail(20))
	}
	if strings.Contains(node.Output(), "# SKIP") {
		t.Errorf("a test of the app was skipped:\n%s", node.Output())
	}
	t.Logf("%s", node.Tail(8))
}

// produceServer writes records for the app's tests: see produce in examples/nodejs/test/support.js. It returns its URL.
func produceServer(t *testing.T, bootstrap, topic string) string {
	producer := harness.NewProducer(t, bootstrap, topic)
	type offset struct {
		Offset int64 `json:"offset"`
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var ask []struct {
			Partition int32
			Key       string
			Value     json.RawMessage
		}
		if err := json.NewDecoder(r.Body).Decode(&ask); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		var records []*kgo.Record
		for _, a := range ask {
			var value []byte
			if string(a.Value) != "null" {
				value = a.Value
			}
			records = append(records, harness.Record(a.Partition, []byte(a.Key), value))
		}
		if err := producer.Send(r.Context(), records...); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		answer := make([]offset, len(records))
		for i, r := range records {
			answer[i].Offset = r.Offset
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	t.Cleanup(server.Close)
	return server.URL
}
