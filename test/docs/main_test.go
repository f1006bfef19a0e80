// Package docs holds the pages against what they describe: every command that a page tells to run is run, and every file that
// it links to is there.
package docs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kkv-project/kkv/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// A page is a Markdown file of the repository.
type page struct {
	name string // path from the root of the repository
	text string
}

// pages returns the pages for readers; docs/design holds the notes that the project began with.
func pages(t *testing.T) []page {
	t.Helper()
	var all []page
	for _, pattern := range []string{"*.md", "docs/*.md", "clients/*/*.md", "examples/*/*.md", "tools/*/*.md"} {
		files, err := filepath.Glob(filepath.Join(harness.Root(), pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("no pages %s: %v", pattern, err)
		}
		for _, file := range files {
			name, err := filepath.Rel(harness.Root(), file)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, page{filepath.ToSlash(name), read(t, name)})
		}
	}
	return all
}

// read returns a file of the repository as text.
func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(harness.Root(), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A block is one ```sh block of a page: what a reader pastes into one terminal.
type block struct {
	line  int      // of the page, where the fence is
	lines []string // without empty ones and comments
}

// blocks returns the page's ```sh blocks, and the rest of the page.
func (p page) blocks(t *testing.T) (all []block, prose string) {
	t.Helper()
	var rest strings.Builder
	var open *block
	fence := ""
	for i, line := range strings.Split(p.text, "\n") {
		line = strings.TrimSpace(line)
		switch {
		case fence != "" && line == "```":
			if fence == "```sh" {
				all = append(all, *open)
			}
			fence = ""
		case fence == "" && strings.HasPrefix(line, "```"):
			fence, open = line, &block{line: i + 1}
		case fence == "":
			rest.WriteString(line + "\n")
		case line != "" && line[0] != '#':
			open.lines = append(open.lines, line)
		}
	}
	if fence != "" {
		t.Fatalf("%s: the fence in line %d is never closed", p.name, open.line)
	}
	return all, rest.String()
}
