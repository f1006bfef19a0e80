package docs

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/kkv-project/kkv/test/harness"
	"github.com/kkv-project/kkv/test/port"
	"github.com/kkv-project/kkv/test/process"
	"github.com/kkv-project/kkv/test/require"
)

// blockTimeout bounds one block; npm ci is the longest.
const blockTimeout = 3 * time.Minute

// answers holds what some commands print, as patterns for all that one prints.
var answers = map[string]string{
	`curl http://127.0.0.1:8091/cache/v1/keys`:                                        `^A\nB\n$`,
	`curl http://127.0.0.1:8091/cache/v1/values`:                                      `^\{ "id": "A", "color": "red" \}\n\{ "id": "B", "color": "blue" \}\n$`,
	`curl http://127.0.0.1:8091/cache/v1/raw/A`:                                       `^\{ "id": "A", "color": "red" \}$`,
	`go run ./cmd/kkv get C --fresh`:                                                  `^\{ "id": "C", "color": "gold" \}$`,
	`curl http://localhost:8093/A`:                                                    `background-color: ?green.*Hello Kafka!`,
	`curl -H 'Kkv-At-Least: 1:1' http://127.0.0.1:8091/v1/topics/sidecar-demo/keys/A`: `green`,
}

// TestCommands pastes every block of every page into a shell, in the order of the page, one terminal for each.
func TestCommands(t *testing.T) {
	for _, p := range pages(t) {
		all, _ := p.blocks(t)
		if len(all) == 0 || p.name == "docs/kubernetes.md" { // that page is test/kube's
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			require.Need(t, require.Curl)
			if strings.Contains(p.text, "\nnpm ci\n") {
				require.Need(t, require.NPM)
			}
			s := newSession(t)
			for _, b := range all {
				s.run(t, p, b)
			}
		})
	}
}

// TestMissionInREADME: the demo that kkv is there for stands in README, its two service names replaced by addresses.
func TestMissionInREADME(t *testing.T) {
	readme := read(t, "README.md")
	mission := strings.NewReplacer("http://pixy/", "http://127.0.0.1:8092/", "http://kafka-keyvalue-nodejs--sidecar-demo:8091/", "http://127.0.0.1:8091/").
		Replace(read(t, "test/e2e/testdata/mission.sh"))
	for line := range strings.Lines(mission) {
		if line = strings.TrimSpace(line); !strings.Contains(readme, "\n"+line+"\n") {
			t.Errorf("README.md lacks %s", line)
		}
	}
}

// A session is a reader who follows one page.
type session struct {
	env     []string
	rewrite *strings.Replacer
	dev     string // arguments for kkv dev
}

// newSession says in what the commands that are run differ from those on the page: nothing but where things are. Defaults may be
// taken on the machine that tests.
func newSession(t *testing.T) *session {
	binary, dir := harness.Binary(t), t.TempDir()
	var s session
	// The page says ports, and the app's README localhost; the test has others.
	var pairs []string
	flags := map[int]string{8080: "--demo-listen", 8091: "--cache-listen", 8094: "--replica-listen", 8092: "--gateway-listen", 9092: "--kafka-listen"}
	addr := map[int]string{8080: "", 8091: "", 8092: "", 8093: "", 8094: "", 8095: "", 9092: ""}
	free := port.Free(t, len(addr))
	for p := range addr {
		addr[p], free = fmt.Sprintf("127.0.0.1:%d", free[0]), free[1:]
		pairs = append(pairs, fmt.Sprintf("127.0.0.1:%d", p), addr[p], fmt.Sprintf("localhost:%d", p), addr[p])
		if flag := flags[p]; flag != "" {
			s.dev += " " + flag + " " + addr[p]
		}
	}
	// What go run builds is built once. npm works on a copy, for other tests use that directory.
	example := filepath.Join(dir, "nodejs")
	copyDir(t, filepath.Join(harness.Root(), "examples", "nodejs"), example)
	s.rewrite = strings.NewReplacer(append(pairs, "go run ./cmd/kkv", binary, "cd examples/nodejs", "cd "+example)...)
	// The variables that the app's README names; curl that fails where the server refuses, and shows no progress.
	s.env = []string{
		"CACHE_HOST=http://" + addr[8091], "PIXY_HOST=http://" + addr[8092], "PORT=" + strings.TrimPrefix(addr[8093], "127.0.0.1:"),
		"CURL_HOME=" + dir, "KKV_SERVER=http://" + addr[8091],
	}
	if err := os.WriteFile(filepath.Join(dir, ".curlrc"), []byte("silent\nshow-error\nfail\nmax-time = 30\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return &s
}

var (
	goRun      = regexp.MustCompile(`go run \./cmd/kkv (dev|serve|gateway|demo)\b`)
	makeLine   = regexp.MustCompile(`^make ([a-z][a-z0-9-]*)`)
	benchLine  = regexp.MustCompile(`^(bench/\S+)`)
	othersLine = regexp.MustCompile(`^go run golang\.org/`)
)

// looked is for commands that are not run: this test is part of what make does, a benchmark takes minutes, and other people's tools
// come over the network. It reports whether the line is such a command, and fails the test if there is no such thing.
func looked(t *testing.T, where, line string) bool {
	t.Helper()
	if m := makeLine.FindStringSubmatch(line); m != nil {
		if !regexp.MustCompile(`(?m)^` + m[1] + `:`).MatchString(read(t, "Makefile")) {
			t.Errorf("%s: the Makefile has no target %s", where, m[1])
		}
		return true
	}
	if m := benchLine.FindStringSubmatch(line); m != nil {
		if _, err := os.Stat(filepath.Join(harness.Root(), m[1])); err != nil {
			t.Errorf("%s: %v", where, err)
		}
		return true
	}
	return othersLine.MatchString(line)
}

// run runs one block. What goes on for ever stands at a block's end; it is left running until the test ends.
func (s *session) run(t *testing.T, p page, b block) {
	t.Helper()
	where := fmt.Sprintf("%s:%d", p.name, b.line)
	script := []string{"set -e"}
	const mark = "(next)\n"
	until := ""
	var want []string
	for i, line := range b.lines {
		if looked(t, where, line) {
			continue
		}
		until = lasts(line)
		if until != "" && i != len(b.lines)-1 {
			t.Fatalf("%s: what follows %q in its block is never reached", where, line)
		}
		command := s.rewrite.Replace(line)
		if m := goRun.FindStringSubmatch(line); m != nil && m[1] == "dev" {
			command += s.dev
		}
		if until == "" {
			script, want = append(script, command, "echo '"+strings.TrimSpace(mark)+"'"), append(want, line)
		} else {
			// A group of its own, for npm ends without its child.
			script = append(script, "set -m", "trap 'kill -- -$!' TERM", command+" &", "wait $! || true", "wait")
		}
	}
	if len(script) == 1 {
		return
	}
	shell := process.Start(t, process.Options{
		Name: where, Path: "bash", Args: []string{"-c", strings.Join(script, "\n")}, Env: s.env, Dir: harness.Root(),
	})
	if until != "" {
		t.Cleanup(func() { _ = shell.Stop(10 * time.Second) })
		shell.WaitFor(t, until, blockTimeout)
		return
	}
	if code := shell.WaitEnd(t, blockTimeout); code != 0 {
		t.Fatalf("%s: ended with %d", where, code)
	}
	for i, got := range strings.Split(strings.TrimSuffix(shell.Stdout(), mark), mark) {
		if pattern := answers[want[i]]; !regexp.MustCompile(`(?s)` + pattern).MatchString(got) {
			t.Errorf("%s: %s\nprinted %q, want %s", where, want[i], got, pattern)
		}
	}
}

// lasts tells whether a command goes on until it is ended, by what it prints once it works; "" if not.
func lasts(line string) string {
	switch {
	case goRun.MatchString(line):
		return `is ready|msg=ready|address=`
	case line == "npm start":
		return `shows the colour`
	case strings.HasPrefix(line, "curl -N "):
		return `"type":"synced"`
	}
	return ""
}

// copyDir copies a directory of source files, without what npm has installed in it.
func copyDir(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		switch {
		case err != nil:
			return err
		case entry.IsDir() && entry.Name() == "node_modules":
			return filepath.SkipDir
		case entry.IsDir():
			return os.MkdirAll(filepath.Join(to, name), 0o700)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, name), text, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestGoRun: what the pages begin with builds and runs from the root of the repository.
func TestGoRun(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "run", "./cmd/kkv", "--version")
	cmd.Dir = harness.Root()
	if out, err := cmd.CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "kkv ") {
		t.Errorf("go run ./cmd/kkv --version: %v\n%s", err, out)
	}
}
