// Package mutations breaks kkv on purpose, in the ways that GUARANTEES rule 22 names, one at a time, and fails unless the
// suite finds each. A mutation is an edit of one source file, given to the compiler by go test's -overlay; the file
// itself stays as it is.
package mutations

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// mutation is one bug.
type mutation struct {
	name  string
	file  string // below the module's root
	edits []edit
	finds []find
}

// edit replaces a piece of the file, which must be there once.
type edit struct{ old, new string }

// find is tests of one package, all of which must fail.
type find struct {
	pkg   string
	tests []string
	args  []string // of the test binary
}

// seeds is the robustness test with enough seeds for what it must find: one seed finds these bugs in a third of all cases,
// or more often.
func seeds(n string) find {
	return find{"./test/robustness", []string{"TestPromises"}, []string{"-seeds", n}}
}

var mutations = []mutation{
	{
		name: "the position is published before the map", file: "internal/cache/cache.go",
		edits: []edit{{"import (\n", "import (\n\t\"runtime\"\n"}, {"	for i := range b.Records {\n", `
	for _, p := range b.Progress {
		st.progress(p)
	}
	st.mark.Store(nil)
	c.mu.Unlock()
	for range 100 {
		runtime.Gosched()
	}
	c.mu.Lock()
	for i := range b.Records {`}},
		finds: []find{seeds("6")},
	},
	{
		name: "ready at the last record", file: "internal/ingest/session.go",
		edits: []edit{
			{"			next = r.Offset + 1\n", "			if !r.Attrs.IsControl() {\n				next = r.Offset + 1\n			}\n"},
			{"			case n.Next > p.Next:\n", "			case false:\n"},
		},
		finds: []find{{pkg: "./internal/cache", tests: []string{"TestMarkersAndAbortedRecords"}}, {pkg: "./internal/ingest", tests: []string{"TestWhatNoPollShows"}}},
	},
	{
		name: "one offset across partitions", file: "internal/cache/fresh.go",
		edits: []edit{{`
	return int(partition) < len(st.parts) && st.parts[partition].reached(next)
`, `
	for i := range st.parts {
		if st.parts[i].reached(next) {
			return true
		}
	}
	return false
`}},
		finds: []find{seeds("2")},
	},
	{
		name: "fresh by the last stable offset", file: "internal/ingest/ends.go",
		edits: []edit{
			{"listOffsets(both, cl, *known, readUncommitted, latest)", "listOffsets(both, cl, *known, readCommitted, latest)"},
			{"	e.Offsets, err = listOffsets(ctx, cl, t, isolation, latest)\n", "	e.Offsets, err = listOffsets(ctx, cl, t, readCommitted, latest)\n"},
		},
		finds: []find{{pkg: "./internal/cache", tests: []string{"TestFreshBehindAnOpenTransaction"}}, seeds("2")},
	},
	{
		name: "a reader joins a barrier that was sent", file: "internal/cache/fresh.go",
		edits: []edit{
			{`
		q := b.next
		b.next = nil
		if q == nil {`, `
		q := b.next
		if q == nil {`},
			{`
		cancel()
		close(q.done)
`, `
		cancel()
		b.mu.Lock()
		b.next = nil
		b.mu.Unlock()
		close(q.done)
`},
		},
		finds: []find{{pkg: "./internal/cache", tests: []string{"TestFreshIsNotAnsweredByAnEarlierQuestion"}}, seeds("24")},
	},
	{
		name: "a resume that ignores rule 9", file: "internal/cache/resume.go",
		edits: []edit{{"		if s.Next < h.Next || s.LogStart < h.LogStart || !st.parts[i].knows(s, since.AsOf(), retention) {\n",
			"		if s.Next < 0 && h.Next < 0 {\n"}},
		finds: []find{{pkg: "./internal/cache", tests: []string{"TestResumeAfterARestart"}}},
	},
}

const root = "../.."

func TestEachIsFound(t *testing.T) {
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			overlay := m.overlay(t)
			for _, f := range m.finds {
				args := []string{"test", "-count=1", "-timeout=2m", "-overlay=" + overlay, "-run=^(" + strings.Join(f.tests, "|") + ")$", f.pkg}
				cmd := exec.Command("go", append(args, f.args...)...)
				cmd.Dir = root
				out, err := cmd.CombinedOutput()
				for _, test := range f.tests {
					if err == nil || !strings.Contains(string(out), "--- FAIL: "+test+" ") {
						t.Errorf("%s does not find it (%v):\n%.3000s", test, err, out)
					}
				}
			}
		})
	}
}

// overlay writes the mutated file and the overlay that has it compiled.
func (m *mutation) overlay(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(root, m.file))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for _, e := range m.edits {
		if n := strings.Count(text, e.old); n != 1 {
			t.Fatalf("%s has %d times what the mutation replaces: bring it up to date\n%s", m.file, n, e.old)
		}
		text = strings.Replace(text, e.old, e.new, 1)
	}
	dir := t.TempDir()
	mutated, overlay := filepath.Join(dir, "mutated.go"), filepath.Join(dir, "overlay.json")
	b, err = json.Marshal(map[string]any{"Replace": map[string]string{path: mutated}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{mutated: []byte(text), overlay: b} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return overlay
}
