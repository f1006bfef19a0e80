package kube

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/kkv-project/kkv/test/harness"
)

// mission holds the commands that set up the demo which kkv is there for, word for word.
//
//go:embed testdata/mission.sh
var mission string

// folders are all that kustomize can build, from the repository's root.
func folders(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"deploy/*", "variant-dev"} {
		found, err := filepath.Glob(filepath.Join(harness.Root(), pattern, "kustomization.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			folder, err := filepath.Rel(harness.Root(), filepath.Dir(f))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, folder)
		}
	}
	if len(all) < 9 {
		t.Fatalf("only %q can be built", all)
	}
	return all
}

// object is what the tests read of any manifest, by the API's names.
type object struct {
	Kind     string
	Metadata struct {
		Name, Namespace string
		Labels          map[string]string
	}
	Spec struct {
		Selector map[string]any
		Ports    []struct {
			Name       string
			Port       int
			TargetPort int
		}
		Template struct {
			Metadata struct{ Labels map[string]string }
			Spec     podSpec
		}
	}
	Data map[string]string // of a ConfigMap
}

type podSpec struct {
	ServiceAccountName string
	InitContainers     []container
	Containers         []container
}

type container struct {
	Name, Image   string
	Args          []string
	RestartPolicy string
	Env           []struct{ Name, Value string }
	EnvFrom       []struct{ ConfigMapRef struct{ Name string } }
	Ports         []struct {
		Name          string
		ContainerPort int
	}
	StartupProbe, ReadinessProbe, LivenessProbe *struct {
		HTTPGet struct{ Path, Port string }
	}
}

// objects reads a stream of manifests, such as kustomize prints.
func objects(t *testing.T, manifests string) []object {
	t.Helper()
	var all []object
	for text := range strings.SplitSeq(manifests, "\n---\n") {
		var generic map[string]any
		if err := yaml.Unmarshal([]byte(text), &generic); err != nil {
			t.Fatal(err)
		}
		asJSON, err := json.Marshal(generic)
		if err != nil {
			t.Fatal(err)
		}
		var o object
		if err := json.Unmarshal(asJSON, &o); err != nil {
			t.Fatalf("%v in:\n%s", err, text)
		}
		all = append(all, o)
	}
	return all
}

// Every folder builds, and what it builds is accepted by the API server: no unknown field, none that is wrong, nothing that the strictest
// of the Pod Security Standards warns of.
func TestManifestsAreAccepted(t *testing.T) {
	c := Get(t)
	c.Kubectl(t, crd(t), "apply", "--server-side", "-f", "-")
	c.Kubectl(t, "", "wait", "--for=condition=Established", "crd/servicemonitors.monitoring.coreos.com", "--timeout=60s")
	for _, folder := range folders(t) {
		t.Run(folder, func(t *testing.T) {
			rendered := c.Render(t, folder)
			args := []string{"apply", "--dry-run=server", "--validate=strict", "-f", "-"}
			if strings.Contains(rendered, "namespace: kkv-demo") {
				_, _ = c.Try(t.Context(), "POST", "/api/v1/namespaces", map[string]any{"metadata": map[string]any{"name": "kkv-demo"}}) // it may be there
				restrict(t, c, "kkv-demo")
			} else {
				namespace := c.Namespace(t)
				restrict(t, c, namespace)
				args = append(args, "-n", namespace)
			}
			if _, warnings := c.Kubectl(t, rendered, args...); warnings != "" {
				t.Errorf("the API server warns: %s", warnings)
			}
		})
	}
	t.Run("a typo is found", func(t *testing.T) { // so that the rest of this test says something
		typo := strings.Replace(c.Render(t, "deploy/pixy"), "periodSeconds:", "periodSecond:", 1)
		cmd := exec.Command(filepath.Join(c.bin, "kubectl"), "apply", "--dry-run=server", "--validate=strict", "-n", "default", "-f", "-")
		cmd.Env = append(os.Environ(), c.KubectlEnv()...)
		cmd.Stdin = strings.NewReader(typo)
		if out, err := cmd.CombinedOutput(); err == nil || !bytes.Contains(out, []byte(`unknown field "spec.template.spec.containers[0].livenessProbe.periodSecond"`)) {
			t.Errorf("%v: %s", err, out)
		}
	})
}

// restrict makes the server warn of what would be forbidden in the namespace under the standard "restricted".
func restrict(t *testing.T, c *Cluster, namespace string) {
	t.Helper()
	c.Kubectl(t, "", "label", "--overwrite", "namespace", namespace, "pod-security.kubernetes.io/warn=restricted")
}

// crd is the definition of ServiceMonitor, of the Prometheus operator.
func crd(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "mod", "download", "-json", "github.com/prometheus-operator/prometheus-operator@v0.85.0").Output()
	if err != nil {
		t.Fatalf("go mod download: %v\n%s", err, out)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(module.Dir, "example", "prometheus-operator-crd", "monitoring.coreos.com_servicemonitors.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// skaffold is a skaffold.yaml of version v4beta10, with those of its documented fields that ours needs.
type skaffold struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   struct{ Name string }
	Build      skaffoldBuild
	Manifests  skaffoldManifests
	Deploy     struct{ Kubectl *struct{} }
	Profiles   []struct {
		Name      string
		Build     skaffoldBuild
		Manifests skaffoldManifests
	}
}

type skaffoldBuild struct {
	Artifacts []struct {
		Image, Context string
		Docker         struct{ Dockerfile string }
	}
}

type skaffoldManifests struct {
	Kustomize struct{ Paths []string }
}

func readSkaffold(t *testing.T) skaffold {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(harness.Root(), "skaffold.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	strict := yaml.NewDecoder(bytes.NewReader(text))
	strict.KnownFields(true)
	var s skaffold
	if err := strict.Decode(&s); err != nil {
		t.Fatalf("skaffold.yaml: %v", err)
	}
	return s
}

// skaffold cannot be had through a package registry, so this is short of running it: skaffold.yaml has no field but documented ones, the
// files that it names are there, and it builds each of our images that its manifests run.
func TestSkaffold(t *testing.T) {
	c := Get(t)
	s := readSkaffold(t)
	if s.APIVersion != "skaffold/v4beta10" || s.Kind != "Config" || s.Deploy.Kubectl == nil {
		t.Errorf("apiVersion %q, kind %q, deploy.kubectl %v", s.APIVersion, s.Kind, s.Deploy.Kubectl)
	}
	check := func(name string, b skaffoldBuild, m skaffoldManifests) {
		var built, run []string
		for _, a := range b.Artifacts {
			built = append(built, a.Image)
			if _, err := os.Stat(filepath.Join(harness.Root(), a.Context, a.Docker.Dockerfile)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, path := range m.Kustomize.Paths {
			for _, o := range objects(t, c.Render(t, path)) {
				for _, container := range slices.Concat(o.Spec.Template.Spec.InitContainers, o.Spec.Template.Spec.Containers) {
					if !strings.Contains(container.Image, "/") {
						run = append(run, container.Image)
					}
				}
			}
		}
		slices.Sort(built)
		slices.Sort(run)
		if run = slices.Compact(run); !slices.Equal(built, run) {
			t.Errorf("%s: builds %q, runs %q", name, built, run)
		}
	}
	check("skaffold.yaml", s.Build, s.Manifests)
	for _, p := range s.Profiles {
		check("profile "+p.Name, p.Build, p.Manifests)
	}
}

// The mission's commands, in their order and as they stand but for the context. What kubelets would be needed for is checked as far as
// the API goes: skaffold's part is its render and apply; port-forward finds the service, and behind it a container with that port.
func TestMissionSetup(t *testing.T) {
	c := Get(t)
	const namespace = "kkv-demo"
	if _, err := c.Try(t.Context(), "GET", "/api/v1/namespaces/"+namespace, nil); err == nil { // of another test
		c.Kubectl(t, "", "delete", "namespace", namespace, "--wait=false")
		c.finalize(t, namespace)
	}
	var deployed []object
	done := 0
	for line := range strings.Lines(mission) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		done++
		words := strings.Fields(regexp.MustCompile(` --(kube-)?context ystack-k3s`).ReplaceAllString(line, ""))
		switch {
		case words[0] == "skaffold":
			if got := strings.Join(words[1:], " "); got != "dev -n "+namespace {
				t.Fatalf("skaffold %s", got)
			}
			for _, path := range readSkaffold(t).Manifests.Kustomize.Paths {
				rendered := c.Render(t, path)
				c.Kubectl(t, rendered, "apply", "--validate=strict", "-n", namespace, "-f", "-")
				deployed = append(deployed, objects(t, rendered)...)
			}
		case slices.Contains(words, "port-forward"):
			name, _ := strings.CutPrefix(words[len(words)-2], "svc/")
			forwards(t, c, namespace, name, words[len(words)-1], deployed)
		default:
			c.Kubectl(t, "", words[1:]...)
		}
	}
	if done != 4 {
		t.Fatalf("%d commands, want 4", done)
	}
	// The services that the demo's curl lines go to.
	forwards(t, c, namespace, "kafka-keyvalue-nodejs--sidecar-demo", "8091", deployed)
	forwards(t, c, namespace, "pixy", "80", deployed)
	// The development loop deletes what it has deployed, when it ends: not the services.
	for _, o := range deployed {
		if o.Kind == "Service" && o.Metadata.Name != "kafka" || o.Kind == "Namespace" {
			t.Errorf("%s %s is part of the development loop", o.Kind, o.Metadata.Name)
		}
	}
}

// finalize removes a namespace for good, as the namespace controller would, which does not run here.
func (c *Cluster) finalize(t *testing.T, namespace string) {
	t.Helper()
	for _, kind := range []string{"services", "deployments", "configmaps", "serviceaccounts"} {
		c.Kubectl(t, "", "-n", namespace, "delete", kind, "--all", "--wait=false")
	}
	c.Do(t, "PUT", "/api/v1/namespaces/"+namespace+"/finalize", map[string]any{"apiVersion": "v1", "kind": "Namespace",
		"metadata": map[string]any{"name": namespace}, "spec": map[string]any{"finalizers": []any{}}})
}

// forwards checks that the service has the port, and that one of the pods that it selects, of those deployed, has a container on it.
func forwards(t *testing.T, c *Cluster, namespace, name, port string, deployed []object) {
	t.Helper()
	var service object
	if err := json.Unmarshal(c.Do(t, "GET", "/api/v1/namespaces/"+namespace+"/services/"+name, nil), &service); err != nil {
		t.Fatal(err)
	}
	target := 0
	for _, p := range service.Spec.Ports {
		if fmt.Sprint(p.Port) == port {
			target = p.TargetPort
		}
	}
	for _, o := range deployed {
		selected := o.Kind == "Deployment"
		for key, value := range service.Spec.Selector {
			selected = selected && o.Spec.Template.Metadata.Labels[key] == value
		}
		if !selected {
			continue
		}
		for _, container := range slices.Concat(o.Spec.Template.Spec.InitContainers, o.Spec.Template.Spec.Containers) {
			for _, p := range container.Ports {
				if p.ContainerPort == target {
					return
				}
			}
		}
	}
	t.Errorf("nothing deployed stands behind port %s of service %s", port, name)
}

// The image of Apache Kafka is of the version that the tests run.
func TestKafkaVersion(t *testing.T) {
	pom, err := os.ReadFile(filepath.Join(harness.Root(), "test", "kafka", "pom.xml"))
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`<kafka.version>(.*)</kafka.version>`).FindSubmatch(pom)[1]
	for _, file := range []string{"deploy/kafka/kafka.yaml", "deploy/topic/job.yaml"} {
		text, err := os.ReadFile(filepath.Join(harness.Root(), file))
		if err != nil {
			t.Fatal(err)
		}
		if want := "image: apache/kafka:" + string(version) + "\n"; !strings.Contains(string(text), want) {
			t.Errorf("%s lacks %s", file, want)
		}
	}
}

// The Node.js app reads what its Deployment says: a variable that it does not know would change nothing, without a word.
func TestNodeAppKnowsItsSettings(t *testing.T) {
	c := Get(t)
	server, err := os.ReadFile(filepath.Join(harness.Root(), "examples", "nodejs", "server.js"))
	if err != nil {
		t.Fatal(err)
	}
	app := objectsOf(t, c.Render(t, "deploy/sidecar-demo"), "Deployment").Spec.Template.Spec.Containers[0]
	for _, e := range app.Env {
		if !strings.Contains(string(server), "  "+e.Name+" = ") {
			t.Errorf("server.js does not read %s", e.Name)
		}
	}
	if len(app.Env) == 0 {
		t.Error("no variables")
	}
}
