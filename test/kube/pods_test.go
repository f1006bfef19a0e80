package kube

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kkv-project/kkv/test/harness"
	"github.com/kkv-project/kkv/test/port"
	"github.com/kkv-project/kkv/test/process"
)

// deployment reads a Deployment from the API server.
func (c *Cluster) deployment(t *testing.T, namespace, name string) object {
	t.Helper()
	var o object
	if err := json.Unmarshal(c.Do(t, "GET", "/apis/apps/v1/namespaces/"+namespace+"/deployments/"+name, nil), &o); err != nil {
		t.Fatal(err)
	}
	return o
}

// environment is what the kubelet would give the container: its own variables and those of ConfigMaps, with the ones replaced that say
// where things are.
func (c *Cluster) environment(t *testing.T, namespace string, of container, replace map[string]string) []string {
	t.Helper()
	env := map[string]string{}
	for _, from := range of.EnvFrom {
		var config object
		if err := json.Unmarshal(c.Do(t, "GET", "/api/v1/namespaces/"+namespace+"/configmaps/"+from.ConfigMapRef.Name, nil), &config); err != nil {
			t.Fatal(err)
		}
		for name, value := range config.Data {
			env[name] = value
		}
	}
	for _, e := range of.Env {
		env[e.Name] = e.Value
	}
	var list []string
	for name, value := range env {
		if at, ok := replace[name]; ok {
			value = at
		}
		list = append(list, name+"="+value)
	}
	return list
}

// startPod runs the container as our image would in a pod: from the image's root directory, as a user without rights, with the
// Deployment's arguments and environment.
func startPod(t *testing.T, o container, env []string, listen string) *harness.Serve {
	t.Helper()
	root := ImageRoot(t)
	s := &harness.Serve{URL: "http://" + listen, Topic: "sidecar-demo"}
	s.Process = process.Start(t, process.Options{Name: o.Name, Path: "chroot", Args: append([]string{"--userspec=65532:65532", root, "/kkv"}, o.Args...), Env: env})
	return s
}

// The Deployment "scaled" as it is rendered and stored, from the image, with the service account that is shipped with it: readiness of the
// application's pods decides who is pushed to.
func TestScaledDeployment(t *testing.T) {
	c := Get(t)
	root := ImageRoot(t)
	namespace := c.Namespace(t)
	c.Kubectl(t, c.Render(t, "deploy/scaled"), "apply", "--validate=strict", "-n", namespace, "-f", "-")
	kkv := c.deployment(t, namespace, "kkv")
	of := kkv.Spec.Template.Spec.Containers[0]

	// The kubelet's part: the service account's directory, at its place.
	account := filepath.Join(root, "var", "run", "secrets", "kubernetes.io", "serviceaccount")
	if err := os.MkdirAll(account, 0o755); err != nil {
		t.Fatal(err)
	}
	token := c.Token(t, namespace, kkv.Spec.Template.Spec.ServiceAccountName)
	for name, content := range map[string]string{"namespace": namespace, "ca.crt": string(c.CA), "token": token} {
		if err := os.WriteFile(filepath.Join(account, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	onlyEndpoints(t, c, namespace, token)

	service := objectsOf(t, c.Render(t, "deploy/scaled"), "ConfigMap").Data
	ips, at := PodIPs(t, 2), 0
	if _, err := fmt.Sscan(service["KKV_TARGET_SERVICE_PORT"], &at); err != nil {
		t.Fatal(err)
	}
	one := startApp(t, Pod{Name: "app-1", UID: "uid-1", IP: ips[0], Ready: true}, at)
	two := startApp(t, Pod{Name: "app-2", UID: "uid-2", IP: ips[1]}, at)
	slice := func() { c.PutSlice(t, namespace, "app-a", service["KKV_TARGET_SERVICE_NAME"], one.Pod, two.Pod) }
	slice()

	dev := harness.StartDev(t, "sidecar-demo", nil)
	listen := fmt.Sprintf("127.0.0.1:%d", port.Free(t, 1)[0])
	env := c.environment(t, namespace, of, map[string]string{"KKV_KAFKA_BOOTSTRAP": dev.Kafka})
	s := startPod(t, of, append(env, "KKV_LISTEN="+listen, "KUBERNETES_SERVICE_HOST="+c.Host, "KUBERNETES_SERVICE_PORT="+c.Port), listen)
	s.AwaitAnswer(t)
	for _, probe := range []string{of.StartupProbe.HTTPGet.Path, of.ReadinessProbe.HTTPGet.Path, of.LivenessProbe.HTTPGet.Path} {
		harness.Eventually(t, harness.StartTimeout, s.Process, func() error {
			if res := harness.Do(t, s.URL, "GET", probe); res.Status != 200 {
				return fmt.Errorf("probe %s: %s", probe, res)
			}
			return nil
		})
	}
	s.WaitFor(t, `(?m)^\{"time":.*"msg":"ready"`, harness.StartTimeout)
	awaitMetric(t, s, "kkv_watcher_down 0")
	harness.Eventually(t, harness.StartTimeout, s.Process, func() error {
		if n := strings.Count(string(harness.Do(t, s.URL, "GET", "/metrics").Body), "\nkkv_webhook_pending_keys{"); n != 2 {
			return fmt.Errorf("%d targets", n)
		}
		return nil
	})
	put(t, s, "k1", "v")
	one.hears(t, s, "k1")
	one.Ready, two.Ready = false, true
	slice()
	two.hears(t, s, "k1")
	put(t, s, "k2", "v")
	two.hears(t, s, "k1", "k2")
	one.hears(t, s, "k1")
	one.Ready = true
	slice()
	one.hears(t, s, "k1", "k2")
}

// onlyEndpoints checks that the token may do what kkv does, and nothing beyond it.
func onlyEndpoints(t *testing.T, c *Cluster, namespace, token string) {
	t.Helper()
	for path, want := range map[string]int{
		"/apis/discovery.k8s.io/v1/namespaces/" + namespace + "/endpointslices": 200,
		"/apis/discovery.k8s.io/v1/namespaces/default/endpointslices":           403,
		"/api/v1/namespaces/" + namespace + "/pods":                             403,
		"/api/v1/namespaces/" + namespace + "/secrets":                          403,
		"/api/v1/namespaces/" + namespace + "/configmaps":                       403,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.URL()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		res, err := c.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("GET %s with the service account: %d, want %d", path, res.StatusCode, want)
		}
	}
}

func objectsOf(t *testing.T, manifests, kind string) object {
	t.Helper()
	for _, o := range objects(t, manifests) {
		if o.Kind == kind {
			return o
		}
	}
	t.Fatalf("no %s in:\n%s", kind, manifests)
	return object{}
}

// The laptop's demo, all of its containers from the image, as they are stored: the mission's curl lines get their answers, each right after
// the produce before it.
func TestLaptopDemo(t *testing.T) {
	c := Get(t)
	namespace := c.Namespace(t)
	rendered := strings.ReplaceAll(c.Render(t, "deploy/laptop"), "namespace: kkv-demo", "namespace: "+namespace)
	c.Kubectl(t, rendered, "apply", "--validate=strict", "-f", "-")
	ports := port.Free(t, 7)
	at := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", ports[i]) }
	run := func(deployment string, init bool, replace map[string]string, more ...string) *harness.Serve {
		spec := c.deployment(t, namespace, deployment).Spec.Template.Spec
		of := spec.Containers[0]
		if init {
			of = spec.InitContainers[0]
		}
		listen := replace["KKV_LISTEN"]
		return startPod(t, of, append(c.environment(t, namespace, of, replace), more...), listen)
	}
	kafka, pixy, cache, app := at(0), at(1), at(2), at(3)
	broker := run("kafka", false, map[string]string{"KKV_KAFKA_LISTEN": kafka}, "KKV_DEMO_LISTEN="+at(4), "KKV_CACHE_LISTEN="+at(5), "KKV_GATEWAY_LISTEN="+at(6))
	broker.WaitFor(t, "kkv dev is ready", harness.StartTimeout)
	run("pixy", false, map[string]string{"KKV_KAFKA_BOOTSTRAP": kafka, "KKV_LISTEN": pixy})
	side := run("sidecar-demo", true, map[string]string{"KKV_KAFKA_BOOTSTRAP": kafka, "KKV_LISTEN": cache})
	side.AwaitAnswer(t)
	side.AwaitReady(t) // the startup probe, before which there is no app
	demo := run("sidecar-demo", false, map[string]string{"KKV_LISTEN": app, "KKV_SERVER": "http://" + cache})
	harness.Eventually(t, harness.StartTimeout, demo.Process, func() error {
		res, err := harness.Try(demo.URL, "GET", "/", nil, nil)
		if err == nil && res.Status != 200 {
			err = fmt.Errorf("%s", res)
		}
		return err
	})
	missionCurl(t, map[string]string{"pixy:80": pixy, "kafka-keyvalue-nodejs--sidecar-demo:8091": cache})
	topics := harness.Do(t, "http://"+cache, "GET", "/v1/topics/sidecar-demo")
	var status struct{ Partitions []struct{} }
	if err := json.Unmarshal(topics.Body, &status); err != nil || len(status.Partitions) != 50 {
		t.Errorf("the topic has %d partitions, want 50: %s", len(status.Partitions), topics)
	}
	stop(t, side)
}

// stop sends SIGTERM, as a kubelet does, and checks that the process ends well in a pod's usual time.
func stop(t *testing.T, s *harness.Serve) {
	t.Helper()
	s.Signal(os.Interrupt)
	if code := s.WaitEnd(t, harness.StartTimeout); code != 0 {
		t.Errorf("exit code %d; its last lines:\n%s", code, s.Tail(10))
	}
}
