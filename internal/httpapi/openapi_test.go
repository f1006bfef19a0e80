package httpapi

import (
	"maps"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestOpenAPI holds api/openapi.yaml against the tables of the cache's and the management listener, both ways.
func TestOpenAPI(t *testing.T) {
	var spec struct {
		Paths      map[string]map[string]yaml.Node
		Components struct {
			Schemas map[string]struct {
				Properties map[string]struct{ Enum []string }
			}
		}
	}
	text, err := os.ReadFile("../../api/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &spec); err != nil {
		t.Fatal(err)
	}
	var described, served []string
	for path, item := range spec.Paths {
		for method, node := range item {
			var op struct{ Tags []string }
			if method == "parameters" || node.Decode(&op) != nil || slices.Contains(op.Tags, "gateway") { // that one's test is in its package
				continue
			}
			described = append(described, strings.ToUpper(method)+" "+path)
		}
	}
	for i := range routes {
		for _, m := range routes[i].methods {
			if m != http.MethodHead { // wherever GET is
				served = append(served, m+" "+routes[i].path)
			}
		}
	}
	for pattern := range managementRoutes {
		served = append(served, strings.ReplaceAll(pattern, "...}", "}"))
	}
	same(t, "routes", described, served)

	problem := slices.Clone(spec.Components.Schemas["Problem"].Properties["type"].Enum)
	for i := range problem {
		problem[i] = strings.TrimPrefix(problem[i], "/problems/")
	}
	same(t, "types of problem", problem, slices.Collect(maps.Keys(titles)))
	for name, of := range map[string]any{"Topic": topicJSON{}, "Memory": memoryJSON{}, "Replay": replayJSON{}, "Partition": partitionJSON{}, "Problem": problemBody{}} {
		var fields []string
		for f := range reflect.TypeOf(of).Fields() {
			tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			fields = append(fields, tag)
		}
		same(t, name, slices.Collect(maps.Keys(spec.Components.Schemas[name].Properties)), fields)
	}
}

func same(t *testing.T, what string, described, served []string) {
	t.Helper()
	for _, d := range described {
		if !slices.Contains(served, d) {
			t.Errorf("%s: api/openapi.yaml has %s, which there is not", what, d)
		}
	}
	for _, s := range served {
		if !slices.Contains(described, s) {
			t.Errorf("%s: api/openapi.yaml lacks %s", what, s)
		}
	}
	if len(served) == 0 || len(described) == 0 {
		t.Errorf("%s: nothing to compare", what)
	}
}
