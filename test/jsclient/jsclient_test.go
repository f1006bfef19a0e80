// Package jsclient runs the tests of clients/js, the JavaScript client, against `kkv dev` and a `kkv serve` that goes away and comes
// back.
package jsclient

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kkv-project/kkv/test/harness"
	"github.com/kkv-project/kkv/test/port"
	"github.com/kkv-project/kkv/test/process"
	"github.com/kkv-project/kkv/test/require"
)

func TestMain(m *testing.M) { harness.Main(m) }

// TestJSClient runs them all, the first example of its README.md included.
func TestJSClient(t *testing.T) {
	require.Need(t, require.NPM)
	dir := filepath.Join(harness.Root(), "clients", "js")
	harness.InstallNPM(t, dir)

	d := harness.StartDev(t, "sidecar-demo", nil)
	r := startReplica(t, d)
	node := process.Start(t, process.Options{
		Name: "npm test", Path: "npm", Args: []string{"test"}, Dir: dir,
		Env: []string{
			"CACHE_HOST=" + r.url, "WRITABLE_HOST=" + d.Cache, "PIXY_HOST=" + d.Gateway, "TOPIC_NAME=" + d.Topic, "CONTROL_URL=" + r.control,
		},
	})
	r.obey(node)
	if code := node.WaitEnd(t, time.Minute); code != 0 {
		t.Fatalf("the client's tests failed (their output is below); kkv dev's last lines:\n%s", d.Tail(20))
	}
	if strings.Contains(node.Output(), "# SKIP") {
		t.Errorf("a test was skipped:\n%s", node.Output())
	}
	t.Logf("%s", node.Tail(8))
}

// A replica is a `kkv serve` that keeps its address while it is stopped and started.
type replica struct {
	t        *testing.T
	args     []string
	url      string
	control  string // POST …/stop, …/kill and …/start
	commands chan command
	kkv      *process.Process
}

type command struct {
	name string
	done chan error
}

func startReplica(t *testing.T, d *harness.Dev) *replica {
	listen := fmt.Sprintf("127.0.0.1:%d", port.Free(t, 1)[0])
	r := &replica{t: t, url: "http://" + listen, commands: make(chan command),
		args: []string{"serve", "--kafka-bootstrap", d.Kafka, "--topic", d.Topic, "--listen", listen}}
	// What starts a process may fail the test, and so belongs into the test's own goroutine: obey.
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c := command{filepath.Base(req.URL.Path), make(chan error, 1)}
		select {
		case r.commands <- c:
		case <-req.Context().Done():
			return
		}
		if err := <-c.done; err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}))
	t.Cleanup(server.Close)
	r.control = server.URL
	r.start()
	return r
}

func (r *replica) start() {
	r.kkv = harness.Kkv(r.t, nil, r.args...)
	harness.Eventually(r.t, harness.StartTimeout, r.kkv, func() error {
		res, err := harness.Try(r.url, "GET", "/q/health/ready", nil, nil)
		if err == nil && res.Status != http.StatusOK {
			err = fmt.Errorf("%s", res)
		}
		return err
	})
}

// obey does what is asked for at control until the process ends or has taken too long.
func (r *replica) obey(p *process.Process) {
	limit := time.After(3 * time.Minute)
	for {
		select {
		case c := <-r.commands:
			switch c.name {
			case "start":
				r.start()
				c.done <- nil
			case "stop":
				c.done <- r.kkv.Stop(30 * time.Second)
			case "kill":
				r.kkv.Kill()
				c.done <- nil
			default:
				c.done <- fmt.Errorf("there is no command %q", c.name)
			}
		case <-p.Done():
			return
		case <-limit:
			return
		}
	}
}
