package nodejs

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/kkv-project/kkv/test/harness"
	"github.com/kkv-project/kkv/test/port"
	"github.com/kkv-project/kkv/test/process"
	"github.com/kkv-project/kkv/test/require"
)

// TestReplicas: three replicas push to one app, so that it is told of each change three times, in whatever order theirs come.
func TestReplicas(t *testing.T) {
	require.Need(t, require.NPM)
	harness.InstallNPM(t, filepath.Join(harness.Root(), "examples", "nodejs"))
	app := port.Free(t, 1)[0]
	target := fmt.Sprintf("http://127.0.0.1:%d/kafka-keyvalue/v1/updates", app)
	d := harness.StartDev(t, "replicated", nil, "--webhook-target", target)
	for range 2 {
		harness.StartServe(t, d.Kafka, d.Topic, nil, "--webhook-target", target).AwaitReady(t)
	}
	seed := rand.Uint32()
	t.Logf("seed %d", seed)
	node := process.Start(t, process.Options{
		Name: "node --test", Path: "node", Args: []string{"--test", "replicas.test.js"}, Dir: filepath.Join(harness.Root(), "test", "nodejs"),
		Env: []string{
			"CACHE_HOST=" + d.Cache, "PIXY_HOST=" + d.Gateway, "TOPIC_NAME=" + d.Topic, fmt.Sprintf("PORT=%d", app), fmt.Sprintf("SEED=%d", seed),
			"PRODUCE_URL=" + produceServer(t, d.Kafka, d.Topic),
		},
	})
	if code := node.WaitEnd(t, 3*time.Minute); code != 0 {
		t.Fatalf("the app has not heard what it should (its output is below); kkv dev's last lines:\n%s", d.Tail(20))
	}
}
