package kube

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/kkv-project/kkv/test/harness"
)

// Every command of docs/kubernetes.md is run by a test of this package, or here; and the mission's stand there as they are but for the
// context.
func TestPage(t *testing.T) {
	c := Get(t)
	text, err := os.ReadFile(filepath.Join(harness.Root(), "docs", "kubernetes.md"))
	if err != nil {
		t.Fatal(err)
	}
	curl, err := os.ReadFile(filepath.Join(harness.Root(), "test", "e2e", "testdata", "mission.sh"))
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := map[string]bool{
		"skaffold dev -n kkv-demo -p laptop": true, // TestSkaffold, TestLaptopDemo
		"make build":                         true, // what buildKkv does
		"buildah build -f deploy/Dockerfile --target binary -t kkv .": true, // ImageRoot
	}
	var lines []string
	for line := range strings.Lines(regexp.MustCompile(` --(kube-)?context ystack-k3s`).ReplaceAllString(mission, "") + string(curl)) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		elsewhere[line] = true // TestMissionSetup, missionCurl
		lines = append(lines, line)
	}
	namespace := c.Namespace(t)
	// A pod takes a service account, which the controller would make.
	c.AccountDir(t, namespace, "default")
	ran := 0
	for _, m := range regexp.MustCompile("(?ms)^```sh\n(.*?)^```").FindAllSubmatch(text, -1) {
		for line := range strings.Lines(string(m[1])) {
			line = strings.TrimSpace(line)
			lines = slices.DeleteFunc(lines, func(l string) bool { return l == line })
			if line == "" || line[0] == '#' || elsewhere[line] {
				continue
			}
			args, ok := strings.CutPrefix(strings.Replace(line, "-n kkv-demo", "-n "+namespace, 1), "kubectl ")
			if !ok {
				t.Errorf("no test runs %s", line)
				continue
			}
			// To attach to a pod takes a kubelet: without it, as far as the server.
			args = strings.Replace(args, " -ti ", " --dry-run=server ", 1)
			c.Kubectl(t, "", strings.Fields(args)...)
			ran++
		}
	}
	if len(lines) > 0 || ran != 3 {
		t.Errorf("ran %d commands, want 3; the page lacks %q", ran, lines)
	}
}
