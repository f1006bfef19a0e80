package e2e

import (
	_ "embed"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/kkv-project/kkv/test/harness"
	"github.com/kkv-project/kkv/test/require"
)

// missionScript holds the curl lines of the demo that kkv is there for, word for word.
//
//go:embed testdata/mission.sh
var missionScript string

// testMission pastes the demo script into a shell, with the two service names replaced by kkv dev's addresses.
func testMission(t *testing.T, e env) {
	require.Need(t, require.Curl)
	d := e.devOn(t, "sidecar-demo")
	quiet := d.Output()

	script := strings.NewReplacer(
		"http://pixy/", d.Gateway+"/",
		"http://kafka-keyvalue-nodejs--sidecar-demo:8091/", d.Cache+"/",
	).Replace(missionScript)
	// All lines in one shell, one right after the other: nothing that a read needs may still be on its way when the produce
	// before it has returned.
	const mark = "\n-- next --\n"
	var lines []string
	for line := range strings.Lines(script) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, strings.Replace(line, "curl ", "curl -sS ", 1), "printf '"+strings.ReplaceAll(mark, "\n", `\n`)+"'")
		}
	}
	cmd := exec.Command("bash", "-c", strings.Join(lines, "\n"))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("the script: %v\n%s", err, stderr.String())
	}
	got := strings.Split(strings.TrimSuffix(string(out), mark), mark)
	if len(got) != 5 {
		t.Fatalf("%d answers, want 5: %q", len(got), got)
	}
	red, blue := `{ "id": "A", "color": "red" }`, `{ "id": "B", "color": "blue" }`
	for i, want := range []string{"{}", "{}", "A\nB\n", red + "\n" + blue + "\n", red} {
		if !slices.Equal(sortedLines(got[i]), sortedLines(want)) {
			t.Errorf("answer %d is %q, want %q", i+1, got[i], want)
		}
	}
	if said := strings.TrimPrefix(d.Output(), quiet); said != "" {
		t.Errorf("kkv dev is not quiet after its start: %q", said)
	}
}

// TestCurlLinesThatDevPrints runs the lines that kkv dev offers to try: they must work as printed.
func TestCurlLinesThatDevPrints(t *testing.T) {
	require.Need(t, require.Curl)
	d := harness.StartDev(t, "sidecar-demo", nil)
	var lines []string
	// The lines follow the block of addresses.
	harness.Eventually(t, harness.StartTimeout, d.Process, func() error {
		lines = nil
		for line := range strings.Lines(d.Stdout()) {
			if line = strings.TrimSpace(line); strings.HasPrefix(line, "curl ") {
				lines = append(lines, line)
			}
		}
		if len(lines) != 6 {
			return fmt.Errorf("%d curl lines, want 6, on stdout:\n%s", len(lines), d.Stdout())
		}
		return nil
	})
	for _, line := range lines {
		watch := strings.Contains(line, " -N ")
		limit := "20"
		if watch {
			limit = "1" // it goes on until somebody ends it
		}
		out, err := exec.Command("bash", "-c", strings.Replace(line, "curl ", "curl -sS --fail --max-time "+limit+" ", 1)).CombinedOutput()
		if watch && strings.Contains(string(out), "synced") {
			continue
		}
		if err != nil {
			t.Errorf("%s\n%v: %s", line, err, out)
		}
	}
}

// sortedLines returns the lines of text in order; that of the cache's lists is not promised.
func sortedLines(text string) []string {
	return slices.Sorted(strings.Lines(text))
}
