package docs

import (
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/kkv-project/kkv/test/harness"
)

var (
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	inlined  = regexp.MustCompile("`[^`]*`")
	testName = regexp.MustCompile(`\bTest[A-Z]\w*`)
	heading  = regexp.MustCompile(`(?m)^#+ (.*)$`)
	// What GitHub leaves out of a heading's anchor.
	unanchored = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

// TestLinks: every relative link of a page leads to a file, and to a heading where it names one.
func TestLinks(t *testing.T) {
	for _, p := range pages(t) {
		_, prose := p.blocks(t)
		for _, m := range link.FindAllStringSubmatch(inlined.ReplaceAllString(prose, ""), -1) {
			u, err := url.Parse(m[1])
			if err != nil {
				t.Errorf("%s: link %s: %v", p.name, m[1], err)
				continue
			}
			if u.IsAbs() {
				continue
			}
			file := p.name
			if u.Path != "" {
				file = path.Join(path.Dir(p.name), u.Path)
			}
			if _, err := os.Stat(filepath.Join(harness.Root(), file)); err != nil {
				t.Errorf("%s: link %s: %v", p.name, m[1], err)
			} else if u.Fragment != "" && !slices.Contains(anchors(read(t, file)), u.Fragment) {
				t.Errorf("%s: link %s: %s has no such heading", p.name, m[1], file)
			}
		}
	}
}

// TestNamedTests: every test that a page names, as docs/guarantees.md does for each promise, is there.
func TestNamedTests(t *testing.T) {
	var code strings.Builder
	err := filepath.WalkDir(harness.Root(), func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == "node_modules" || entry.Name() == ".git" || entry.Name() == ".cache"):
			return filepath.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		code.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pages(t) {
		for _, name := range testName.FindAllString(p.text, -1) {
			if !strings.Contains(code.String(), "\nfunc "+name+"(") {
				t.Errorf("%s names %s: there is no such test", p.name, name)
			}
		}
	}
}

// anchors are those of a page's headings, as GitHub makes them.
func anchors(text string) []string {
	var all []string
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		all = append(all, strings.ReplaceAll(unanchored.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
	}
	return all
}

// private matches what is true on one machine only: paths in somebody's home, and settings that name a registry or a mirror.
var private = regexp.MustCompile(`(^|[^\w.$/-])/(home|root|Users|work)/\w` +
	`|"resolved":` + // in a lock file of npm: where each package was fetched from
	`|GOPROXY=\w|_authToken|(^|[^\w])registry *= *\w|--registry[ =]|<(repository|mirror|mirrorOf)>|index-url`)

// TestNothingPrivate: no tracked file names a path of the machine on which it was written, or the registry that it had.
func TestNothingPrivate(t *testing.T) {
	list := exec.CommandContext(t.Context(), "git", "ls-files", "-z")
	list.Dir = harness.Root()
	out, err := list.Output()
	if err != nil || len(out) == 0 {
		t.Skipf("not a git checkout: %v", err)
	}
	here := mine(t)
	for _, file := range strings.Split(strings.TrimRight(string(out), "\x00"), "\x00") {
		if file == "test/docs/links_test.go" {
			continue // the patterns themselves
		}
		text, err := os.ReadFile(filepath.Join(harness.Root(), file))
		if os.IsNotExist(err) {
			continue // deleted, and not committed yet
		} else if err != nil {
			t.Fatal(err)
		}
		n := 0
		for line := range strings.Lines(string(text)) {
			n++
			if m := private.FindString(line); m != "" {
				t.Errorf("%s:%d: %q is of one machine only", file, n, m)
			}
			for _, s := range here {
				if strings.Contains(line, s) {
					t.Errorf("%s:%d: %q is of this machine only", file, n, s)
				}
			}
		}
	}
}

// mine are the directory of this checkout, and the hosts of the registries that this machine is told to use, unless they are
// those that everybody has.
func mine(t *testing.T) []string {
	t.Helper()
	root, err := filepath.Abs(harness.Root())
	if err != nil {
		t.Fatal(err)
	}
	all := []string{}
	if strings.Count(root, string(filepath.Separator)) > 1 { // "/src" alone may well stand somewhere
		all = append(all, root)
	}
	settings := []string{os.Getenv("npm_config_registry"), os.Getenv("NPM_CONFIG_REGISTRY"), os.Getenv("HTTPS_PROXY"), os.Getenv("https_proxy")}
	if proxy, err := exec.CommandContext(t.Context(), "go", "env", "GOPROXY").Output(); err == nil {
		settings = append(settings, strings.FieldsFunc(string(proxy), func(r rune) bool { return strings.ContainsRune(",|\n", r) })...)
	}
	for _, s := range settings {
		u, err := url.Parse(s)
		if err == nil && strings.Contains(u.Hostname(), ".") && !slices.Contains([]string{"proxy.golang.org", "registry.npmjs.org", "127.0.0.1"}, u.Hostname()) {
			all = append(all, u.Hostname())
		}
	}
	return all
}
