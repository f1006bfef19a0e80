// Package kube runs a real Kubernetes API server for tests: kube-apiserver of the version that tools/go.mod pins, on Debian's etcd,
// with RBAC, on loopback, and kubectl of the same version.
//
// There are no controllers, no scheduler and no kubelets: whatever they would write (EndpointSlices, above all) the test writes, and
// what they would run (containers) the test starts as processes.
package kube

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kkv-project/kkv/test/harness"
	"github.com/kkv-project/kkv/test/port"
	"github.com/kkv-project/kkv/test/process"
	"github.com/kkv-project/kkv/test/require"
)

const adminToken = "admin-of-the-tests"

// startTimeout bounds a start, on a busy machine.
const startTimeout = 90 * time.Second

// A Cluster is a running API server. Its methods may be called from several tests at once; tests keep apart by namespaces.
type Cluster struct {
	Host, Port string // of the API server
	CA         []byte // PEM
	bin        string // directory with kubectl
	kubeconfig string
	client     *http.Client
}

var shared struct {
	sync.Mutex
	cluster *Cluster
	err     error
	dir     string
	stop    []*process.Process
}

// Get starts the package's one API server at its first call, which builds kube-apiserver if need be. The test is skipped if the
// machine lacks etcd. A package that calls it has a TestMain with Main.
func Get(t testing.TB) *Cluster {
	t.Helper()
	require.Need(t, require.Kube)
	shared.Lock()
	defer shared.Unlock()
	if shared.cluster == nil && shared.err == nil {
		shared.err = errors.New("the API server did not start in another test")
		shared.cluster = start(t)
		shared.err = nil
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.cluster
}

// Main is what TestMain calls: it runs the tests, and stops what Get has started.
func Main(m *testing.M) {
	harness.AtEnd(func() {
		for _, p := range shared.stop {
			p.Kill()
		}
		if shared.dir != "" {
			_ = os.RemoveAll(shared.dir)
		}
	})
	harness.Main(m)
}

// Binaries returns the directory of kube-apiserver and kubectl, built at the first call on a machine.
func Binaries(t testing.TB) string {
	t.Helper()
	_, file, _, _ := runtime.Caller(0)
	cmd := exec.Command(filepath.Join(filepath.Dir(file), "get"))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("test/kube/get: %v\n%s", err, stderr.Bytes())
	}
	return strings.TrimSpace(string(out))
}

func start(t testing.TB) *Cluster {
	t.Helper()
	bin := Binaries(t)
	dir, err := os.MkdirTemp("", "kkv-kube-")
	if err != nil {
		t.Fatal(err)
	}
	shared.dir = dir
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	run := func(name, path string, args ...string) *process.Process {
		p := process.Start(t, process.Options{Name: name, Path: path, Args: args, Dir: dir, Leave: true})
		shared.stop = append(shared.stop, p)
		return p
	}
	ports := port.Free(t, 3)
	etcd, peer := fmt.Sprintf("http://127.0.0.1:%d", ports[0]), fmt.Sprintf("http://127.0.0.1:%d", ports[1])
	run("etcd", require.Path(require.Kube), "--data-dir="+filepath.Join(dir, "etcd"), "--listen-client-urls="+etcd, "--advertise-client-urls="+etcd,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer)

	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	keyFile := write("sa.key", pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	tokens := write("tokens.csv", []byte(adminToken+",admin,admin,system:masters\n"))
	server := run("kube-apiserver", filepath.Join(bin, "kube-apiserver"), "--etcd-servers="+etcd, "--bind-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", ports[2]), "--cert-dir="+filepath.Join(dir, "certs"), // it makes a certificate of its own there
		"--authorization-mode=RBAC", "--token-auth-file="+tokens, "--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+keyFile, "--service-account-signing-key-file="+keyFile, "--service-cluster-ip-range=10.96.0.0/16",
		"--endpoint-reconciler-type=none", "--allow-privileged=false")
	c := &Cluster{Host: "127.0.0.1", Port: fmt.Sprint(ports[2]), bin: bin, kubeconfig: filepath.Join(dir, "kubeconfig")}
	harness.Eventually(t, startTimeout, server, func() error { return c.trust(filepath.Join(dir, "certs", "apiserver.crt")) })
	harness.Eventually(t, startTimeout, server, func() error {
		_, err := c.Try(t.Context(), "GET", "/readyz", nil)
		return err
	})
	config, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Config", "current-context": "test",
		"clusters": []any{map[string]any{"name": "test", "cluster": map[string]any{"server": c.URL(), "certificate-authority-data": c.CA}}},
		"users":    []any{map[string]any{"name": "admin", "user": map[string]any{"token": adminToken}}},
		"contexts": []any{map[string]any{"name": "test", "context": map[string]any{"cluster": "test", "user": "admin"}}}})
	if err != nil {
		t.Fatal(err)
	}
	write("kubeconfig", config)
	return c
}

// trust reads the certificate that the server has made, once it is there.
func (c *Cluster) trust(file string) error {
	ca, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return fmt.Errorf("%s is not whole yet", file)
	}
	c.CA = ca
	c.client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}}
	return nil
}

// URL returns the server's base URL.
func (c *Cluster) URL() string { return "https://" + net.JoinHostPort(c.Host, c.Port) }

// Try sends a request as an administrator, with body as JSON unless it is nil; an answer of 300 or more is an error. PATCH is a server-side
// apply.
func (c *Cluster) Try(ctx context.Context, method, path string, body any) ([]byte, error) {
	content, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	kind := "application/json"
	if method == http.MethodPatch {
		kind = "application/apply-patch+yaml"
		path += "?fieldManager=test&force=true&fieldValidation=Strict"
	}
	if body == nil {
		content = nil
	}
	req, err := http.NewRequestWithContext(ctx, method, c.URL()+path, bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+adminToken)
	req.Header.Set("Content-Type", kind)
	res, err := c.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, res.Status, answer)
	}
	return answer, err
}

// Do is Try that fails the test.
func (c *Cluster) Do(t testing.TB, method, path string, body any) []byte {
	t.Helper()
	answer, err := c.Try(t.Context(), method, path, body)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// KubectlEnv is the environment in which kubectl on PATH is that of the cluster, as an administrator.
func (c *Cluster) KubectlEnv() []string {
	return []string{"KUBECONFIG=" + c.kubeconfig, "PATH=" + c.bin + string(os.PathListSeparator) + os.Getenv("PATH")}
}

// Kubectl runs kubectl as an administrator, in the repository's root and with stdin, and returns what it printed on stdout and stderr.
func (c *Cluster) Kubectl(t testing.TB, stdin string, args ...string) (stdout, stderr string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(c.bin, "kubectl"), args...)
	cmd.Dir = harness.Root()
	cmd.Env = append(os.Environ(), c.KubectlEnv()...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, warnings strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &warnings
	if err := cmd.Run(); err != nil {
		t.Fatalf("kubectl %s: %v\n%s%s", strings.Join(args, " "), err, out.String(), warnings.String())
	}
	return out.String(), warnings.String()
}

// Render is kustomize's build of a folder of the repository.
func (c *Cluster) Render(t testing.TB, folder string) string {
	t.Helper()
	out, warnings := c.Kubectl(t, "", "kustomize", folder)
	if warnings != "" {
		t.Errorf("kustomize %s: %s", folder, warnings)
	}
	return out
}

// Namespace makes a namespace of the test's own and returns its name.
func (c *Cluster) Namespace(t testing.TB) string {
	t.Helper()
	var made struct{ Metadata struct{ Name string } }
	answer := c.Do(t, "POST", "/api/v1/namespaces", map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"generateName": "test-"}})
	if err := json.Unmarshal(answer, &made); err != nil {
		t.Fatal(err)
	}
	return made.Metadata.Name
}

// AccountDir makes the directory that Kubernetes would mount into a pod with that service account, token included, and makes the account
// if it is not there.
func (c *Cluster) AccountDir(t testing.TB, namespace, account string) string {
	t.Helper()
	path := "/api/v1/namespaces/" + namespace + "/serviceaccounts/" + account
	c.Do(t, "PATCH", path, map[string]any{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": map[string]any{"name": account}})
	dir := t.TempDir()
	for name, content := range map[string]string{"namespace": namespace, "ca.crt": string(c.CA), "token": c.Token(t, namespace, account)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Token returns a token of the service account that is good for an hour.
func (c *Cluster) Token(t testing.TB, namespace, account string) string {
	t.Helper()
	var made struct{ Status struct{ Token string } }
	answer := c.Do(t, "POST", "/api/v1/namespaces/"+namespace+"/serviceaccounts/"+account+"/token",
		map[string]any{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": map[string]any{"expirationSeconds": 3600}})
	if err := json.Unmarshal(answer, &made); err != nil {
		t.Fatal(err)
	}
	return made.Status.Token
}

// AllowEndpoints gives the service account the right to list and watch EndpointSlices in its namespace, and no other.
func (c *Cluster) AllowEndpoints(t testing.TB, namespace, account string) {
	t.Helper()
	const rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/"
	c.Do(t, "PATCH", rbac+namespace+"/roles/endpoints", map[string]any{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": map[string]any{"name": "endpoints"},
		"rules": []any{map[string]any{"apiGroups": []string{"discovery.k8s.io"}, "resources": []string{"endpointslices"}, "verbs": []string{"list", "watch"}}}})
	c.Do(t, "PATCH", rbac+namespace+"/rolebindings/endpoints-"+account, map[string]any{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
		"metadata": map[string]any{"name": "endpoints-" + account}, "roleRef": map[string]any{"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "endpoints"},
		"subjects": []any{map[string]any{"kind": "ServiceAccount", "name": account, "namespace": namespace}}})
}

// A Pod is an endpoint to be written into a slice.
type Pod struct {
	Name, UID, IP string
	Ready         bool
}

// PutSlice writes an EndpointSlice of the service as the controller would, with these endpoints, all of one address family.
func (c *Cluster) PutSlice(t testing.TB, namespace, name, service string, pods ...Pod) {
	t.Helper()
	family := "IPv4"
	endpoints := []any{}
	for _, p := range pods {
		if strings.Contains(p.IP, ":") {
			family = "IPv6"
		}
		endpoints = append(endpoints, map[string]any{"addresses": []string{p.IP}, "conditions": map[string]any{"ready": p.Ready, "serving": p.Ready, "terminating": false},
			"targetRef": map[string]any{"kind": "Pod", "namespace": namespace, "name": p.Name, "uid": p.UID}})
	}
	c.Do(t, "PATCH", slicePath(namespace, name), map[string]any{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family, "endpoints": endpoints,
		"metadata": map[string]any{"name": name, "labels": map[string]any{"kubernetes.io/service-name": service, "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}},
		"ports":    []any{map[string]any{"name": "", "port": 8080, "protocol": "TCP"}}})
}

// DeleteSlice removes one.
func (c *Cluster) DeleteSlice(t testing.TB, namespace, name string) {
	t.Helper()
	c.Do(t, "DELETE", slicePath(namespace, name), nil)
}

func slicePath(namespace, name string) string {
	return "/apis/discovery.k8s.io/v1/namespaces/" + namespace + "/endpointslices/" + name
}

// PodIPs returns n addresses of this machine that an EndpointSlice may hold, which those of loopback are not. It adds them to the loopback
// interface, of a range meant for tests (RFC 2544), which takes root; the tests of a machine use them one at a time.
func PodIPs(t testing.TB, n int) []string {
	t.Helper()
	ips := make([]string, n)
	for i := range ips {
		ips[i] = fmt.Sprintf("198.18.77.%d", i+1)
		if l, err := net.Listen("tcp", ips[i]+":0"); err == nil { // it stayed there
			_ = l.Close()
			continue
		}
		if out, err := exec.Command("ip", "address", "add", ips[i]+"/32", "dev", "lo").CombinedOutput(); err != nil {
			require.Fail(t, require.Kube, fmt.Sprintf("root, to give the loopback interface addresses for pods (ip address add: %v %s)", err, bytes.TrimSpace(out)))
		}
		t.Cleanup(func() { _ = exec.Command("ip", "address", "delete", ips[i]+"/32", "dev", "lo").Run() })
	}
	return ips
}
