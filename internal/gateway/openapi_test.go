package gateway

import (
	"os"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestOpenAPI holds api/openapi.yaml against the gateway's table, both ways.
func TestOpenAPI(t *testing.T) {
	var spec struct {
		Paths map[string]map[string]yaml.Node
	}
	text, err := os.ReadFile("../../api/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &spec); err != nil {
		t.Fatal(err)
	}
	var described []string
	for path, item := range spec.Paths {
		for method, node := range item {
			var op struct{ Tags []string }
			if method != "parameters" && node.Decode(&op) == nil && slices.Contains(op.Tags, "gateway") {
				described = append(described, strings.ToUpper(method)+" "+path)
			}
		}
	}
	served := []string{"GET /_ping"}
	for _, rt := range routes {
		for _, m := range rt.methods {
			path := "/" + strings.Join(rt.path, "/")
			served = append(served, m+" "+path, m+" /clusters/{cluster}"+path)
		}
	}
	slices.Sort(described)
	slices.Sort(served)
	if !slices.Equal(described, served) {
		t.Errorf("api/openapi.yaml has\n%s\nthe gateway\n%s", strings.Join(described, "\n"), strings.Join(served, "\n"))
	}
}
