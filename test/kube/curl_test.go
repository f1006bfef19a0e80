package kube

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kkv-project/kkv/test/harness"
	"github.com/kkv-project/kkv/test/require"
)

// missionCurl runs the mission's curl lines as they stand, where curl finds the services, as host:port, at these addresses instead of by
// the cluster's names.
func missionCurl(t *testing.T, services map[string]string) {
	t.Helper()
	require.Need(t, require.Curl)
	dir := t.TempDir()
	config := "silent\nshow-error\nfail\nmax-time = 30\n"
	for service, at := range services {
		config += fmt.Sprintf("connect-to = %q\n", service+":"+at)
	}
	if err := os.WriteFile(filepath.Join(dir, ".curlrc"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile(filepath.Join(harness.Root(), "test", "e2e", "testdata", "mission.sh"))
	if err != nil {
		t.Fatal(err)
	}
	var answers []string
	for line := range strings.Lines(string(script)) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		cmd := exec.Command("bash", "-c", line)
		cmd.Env = append(os.Environ(), "CURL_HOME="+dir)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
		answers = append(answers, string(out))
	}
	red, blue := `{ "id": "A", "color": "red" }`, `{ "id": "B", "color": "blue" }`
	want := []string{"{}", "{}", "A\nB\n", red + "\n" + blue + "\n", red}
	if len(answers) != len(want) {
		t.Fatalf("%d answers, want %d", len(answers), len(want))
	}
	for i, got := range answers {
		sorted := func(text string) string { // lists have no order
			lines := strings.Split(strings.TrimSpace(text), "\n")
			if len(lines) == 2 && lines[0] > lines[1] {
				lines[0], lines[1] = lines[1], lines[0]
			}
			return strings.Join(lines, "\n")
		}
		if sorted(got) != sorted(want[i]) {
			t.Errorf("answer %d is %q, want %q", i+1, got, want[i])
		}
	}
}
