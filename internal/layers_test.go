// Package internal_test holds the direction of imports that ARCHITECTURE.md draws.
package internal_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/kkv-project/kkv"

// mayImport is the whole of each package's direct imports within the module. A new arrow is drawn here first.
var mayImport = map[string][]string{
	"":                   {"internal/position", "internal/wire"},
	"cmd/kkv":            {"*"},
	"internal/position":  {},
	"internal/wire":      {},
	"internal/config":    {},
	"internal/kafka":     {},
	"internal/ingest":    {"internal/kafka"},
	"internal/store":     {"internal/wire"},
	"internal/feed":      {"internal/position", "internal/wire"},
	"internal/cache":     {"internal/feed", "internal/ingest", "internal/position", "internal/store", "internal/wire"},
	"internal/httpapi":   {"internal/cache", "internal/feed", "internal/kafka", "internal/position", "internal/store", "internal/wire"},
	"internal/gateway":   {"internal/kafka", "internal/position"},
	"internal/webhook":   {"internal/feed", "internal/position", "internal/wire"},
	"internal/kube":      {},
	"internal/devbroker": {},
	"internal/node":      {"internal/cache", "internal/gateway", "internal/httpapi", "internal/ingest", "internal/kafka", "internal/kube", "internal/webhook"},
	"internal/demo":      {""},
	"internal/verify":    {"internal/position", "internal/wire"},
	"kkvtest":            {"", "internal/devbroker", "internal/kafka", "internal/node"},
	"internal/cachetest": {"internal/position", "internal/wire"}, // of the client's and the demo's tests
	"internal/kafkatest": {"internal/kafka"},                     // of the servers' tests
}

// mustNotReach are packages outside the module that a package may not reach by any way.
var mustNotReach = map[string][]string{
	"internal/store":    {"github.com/twmb/franz-go", "net/http"},
	"internal/feed":     {"github.com/twmb/franz-go", "net/http"},
	"internal/position": {"github.com/", "net/http"},
	"internal/wire":     {"github.com/", "net/http"},
	"":                  {"github.com/twmb", "github.com/prometheus", "golang.org/x"},
	"internal/gateway":  {module + "/internal/cache"},
	"internal/config":   {"github.com/twmb/franz-go", "net/http"},
}

type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func TestImportsPointOneWay(t *testing.T) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "./...")
	cmd.Dir = ".."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	seen := 0
	for dec := json.NewDecoder(bytes.NewReader(out)); ; seen++ {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		if name == "internal" || strings.HasPrefix(name, "test/") || strings.HasPrefix(name, "tools/") {
			continue
		}
		allowed, known := mayImport[name]
		if !known {
			t.Errorf("package %q has no line in mayImport: say what it may import", name)
		}
		for _, imp := range p.Imports {
			short, ours := strings.CutPrefix(imp, module)
			short = strings.TrimPrefix(short, "/")
			if ours && !slices.Contains(allowed, short) && !slices.Contains(allowed, "*") {
				t.Errorf("%s imports %s, an arrow that is not drawn", p.ImportPath, imp)
			}
		}
		for _, bad := range mustNotReach[name] {
			for _, dep := range p.Deps {
				if strings.HasPrefix(dep, bad) && !strings.HasPrefix(dep, module+"/internal/position") && !strings.HasPrefix(dep, module+"/internal/wire") {
					t.Errorf("%s reaches %s", p.ImportPath, dep)
				}
			}
		}
	}
	if seen < 10 {
		t.Errorf("go list named only %d packages", seen)
	}
}
