package kube

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kkv-project/kkv/test/harness"
	"github.com/kkv-project/kkv/test/port"
)

func TestMain(m *testing.M) {
	harness.AtEnd(removeImage)
	Main(m)
}

// An app is what runs in a pod: a receiver of updates that counts how often it heard of each key.
type app struct {
	Pod
	mu    sync.Mutex
	heard map[string]int
}

// startApp listens on the pod's address, whether or not the cluster knows of the pod.
func startApp(t *testing.T, pod Pod, port int) *app {
	t.Helper()
	a := &app{Pod: pod, heard: map[string]int{}}
	l, err := net.Listen("tcp", net.JoinHostPort(pod.IP, fmt.Sprint(port)))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var update struct{ Updates map[string]struct{} }
		body, _ := io.ReadAll(r.Body)
		if err := json.Unmarshal(body, &update); err != nil || r.URL.Path != "/kafka-keyvalue/v1/updates" {
			http.Error(w, fmt.Sprintf("%s: %v", r.URL.Path, err), http.StatusBadRequest)
			return
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		for key := range update.Updates {
			a.heard[key]++
		}
		w.WriteHeader(http.StatusNoContent)
	})}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	return a
}

// hears waits until the app has heard of each of the keys, and of no others.
func (a *app) hears(t *testing.T, s *harness.Serve, keys ...string) {
	t.Helper()
	harness.Eventually(t, 20*time.Second, s.Process, func() error {
		a.mu.Lock()
		defer a.mu.Unlock()
		got := []string{}
		for key := range a.heard {
			got = append(got, key)
		}
		if diff := cmp.Diff(keys, got, cmpopts.SortSlices(strings.Compare), cmpopts.EquateEmpty()); diff != "" {
			return fmt.Errorf("%s has heard of (-want +got):\n%s", a.Name, diff)
		}
		return nil
	})
}

// hearsOf waits until the app has heard of the key.
func (a *app) hearsOf(t *testing.T, s *harness.Serve, key string) {
	t.Helper()
	harness.Eventually(t, 20*time.Second, s.Process, func() error {
		if a.count(key) == 0 {
			return fmt.Errorf("%s has not heard of %s", a.Name, key)
		}
		return nil
	})
}

// count is how often the app has heard of the key.
func (a *app) count(key string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.heard[key]
}

// podEnv is what kkv finds in a pod.
func podEnv(c *Cluster, account string) []string {
	return []string{"KUBERNETES_SERVICE_HOST=" + c.Host, "KUBERNETES_SERVICE_PORT=" + c.Port, "KKV_KUBE_ACCOUNT_DIR=" + account}
}

func put(t *testing.T, s *harness.Serve, key, value string) {
	t.Helper()
	if res := harness.DoBody(t, s.URL, "PUT", "/v1/topics/"+s.Topic+"/keys/"+key, []byte(value)); res.Status != 200 {
		t.Fatalf("PUT %s: %s", key, res)
	}
}

func awaitMetric(t *testing.T, s *harness.Serve, line string) {
	t.Helper()
	harness.Eventually(t, 20*time.Second, s.Process, func() error {
		if res := harness.Do(t, s.URL, "GET", "/metrics"); !strings.Contains("\n"+string(res.Body), "\n"+line+"\n") {
			return fmt.Errorf("no %q in the metrics", line)
		}
		return nil
	})
}

// Ready pods get updates, a pod that is not ready gets what it missed as it turns ready, and a pod that is gone gets nothing.
func TestUpdatesFollowTheService(t *testing.T) {
	c := Get(t)
	namespace := c.Namespace(t)
	account := c.AccountDir(t, namespace, "kkv")
	c.AllowEndpoints(t, namespace, "kkv")
	ips := PodIPs(t, 3)
	at := port.Free(t, 1)[0]
	one := startApp(t, Pod{Name: "app-1", UID: "uid-1", IP: ips[0], Ready: true}, at)
	two := startApp(t, Pod{Name: "app-2", UID: "uid-2", IP: ips[1]}, at)
	three := startApp(t, Pod{Name: "app-3", UID: "uid-3", IP: ips[2], Ready: true}, at)
	other := Pod{Name: "other", UID: "uid-9", IP: ips[2], Ready: true}
	c.PutSlice(t, namespace, "app-a", "app", one.Pod, two.Pod)
	c.PutSlice(t, namespace, "other-a", "other", other)

	dev := harness.StartDev(t, "service", nil)
	s := harness.StartServe(t, dev.Kafka, "service", podEnv(c, account), "--writable", "--target-service-name", "app", "--target-service-port", fmt.Sprint(at))
	s.AwaitReady(t)
	awaitMetric(t, s, `kkv_webhook_pending_keys{target="app-1 http://`+ips[0]+`:`+fmt.Sprint(at)+`/kafka-keyvalue/v1/updates uid-1"} 0`)

	put(t, s, "k1", "v")
	one.hears(t, s, "k1")
	put(t, s, "k2", "v")
	put(t, s, "k2", "w")
	one.hears(t, s, "k1", "k2")
	two.hears(t, s)

	two.Ready = true
	c.PutSlice(t, namespace, "app-a", "app", one.Pod, two.Pod)
	two.hears(t, s, "k1", "k2")
	if n := two.count("k2"); n != 1 {
		t.Errorf("the pod that was not ready heard %d times of k2, which changed twice meanwhile", n)
	}
	awaitMetric(t, s, "kkv_watcher_event_total 1")

	// A second slice, while the first goes on without app-1, whose address answers still.
	c.PutSlice(t, namespace, "app-b", "app", three.Pod)
	c.PutSlice(t, namespace, "app-a", "app", two.Pod)
	awaitMetric(t, s, "kkv_watcher_event_total 3")
	put(t, s, "k3", "v")
	two.hears(t, s, "k1", "k2", "k3")
	three.hearsOf(t, s, "k3")
	one.hears(t, s, "k1", "k2")

	c.DeleteSlice(t, namespace, "app-a")
	awaitMetric(t, s, "kkv_watcher_event_total 4")
	awaitMetric(t, s, "kkv_watcher_down 0")
}

// Without a Role kkv comes up, serves, pushes to static targets, says what is missing, and follows the service once it may. The token is
// read anew.
func TestDeniedSaysWhichRole(t *testing.T) {
	c := Get(t)
	namespace := c.Namespace(t)
	account := c.AccountDir(t, namespace, "kkv")
	ips := PodIPs(t, 2)
	at := port.Free(t, 1)[0]
	static := startApp(t, Pod{Name: "static", IP: ips[0]}, at)
	pod := startApp(t, Pod{Name: "app-1", UID: "uid-1", IP: ips[1], Ready: true}, at)
	c.PutSlice(t, namespace, "app-a", "app", pod.Pod)

	dev := harness.StartDev(t, "denied", nil)
	s := harness.StartServe(t, dev.Kafka, "denied", append(podEnv(c, account), "TARGET_SERVICE_NAME=app", fmt.Sprint("TARGET_SERVICE_PORT=", at),
		"TARGET_STATIC_HOST="+ips[0], fmt.Sprint("TARGET_STATIC_PORT=", at)), "--writable")
	s.AwaitReady(t)
	s.WaitFor(t, `level=WARN .*watch of the service's endpoints fails.*User \\"system:serviceaccount:`+namespace+`:kkv\\" cannot list resource \\"endpointslices\\".*`+
		`Role in namespace \\"`+namespace+`\\" with apiGroups \[discovery.k8s.io\], resources \[endpointslices\], verbs \[list, watch\]`, harness.StartTimeout)
	awaitMetric(t, s, "kkv_watcher_down 1")
	put(t, s, "k1", "v")
	static.hears(t, s, "k1")

	if err := os.WriteFile(filepath.Join(account, "token"), []byte("no longer a token"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.AllowEndpoints(t, namespace, "kkv")
	s.WaitFor(t, `the API server answers 401.*it does not take the token`, 40*time.Second)
	if err := os.WriteFile(filepath.Join(account, "token"), []byte(c.Token(t, namespace, "kkv")), 0o600); err != nil {
		t.Fatal(err)
	}
	s.WaitFor(t, `watch of the service's endpoints works again`, 40*time.Second)
	awaitMetric(t, s, "kkv_watcher_down 0")
	put(t, s, "k2", "v")
	static.hears(t, s, "k1", "k2")
	pod.hearsOf(t, s, "k2")
}

// Outside a pod, kkv does not start, and says what to do.
func TestOutsideAPod(t *testing.T) {
	p := harness.Kkv(t, []string{"KUBERNETES_SERVICE_HOST=", "KUBERNETES_SERVICE_PORT="}, "serve", "--topic", "t", "--kafka-bootstrap", "127.0.0.1:1", "--target-service-name", "app")
	if code := p.WaitEnd(t, harness.StartTimeout); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if out := p.Output(); !strings.Contains(out, "no Kubernetes pod") || !strings.Contains(out, "--webhook-target") {
		t.Errorf("it says:\n%s", out)
	}
}
