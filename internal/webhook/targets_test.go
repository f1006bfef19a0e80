package webhook

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// IDs stand in logs and metrics: they have no password, and still tell receivers apart.
func TestStaticIDs(t *testing.T) {
	urls := []string{"http://a/x", "http://u:one@a/x", "http://u:two@a/x", "http://u:three@a/x", "http://u:two@a/x"}
	ctx, cancel := context.WithCancel(t.Context())
	var got []Target
	if err := Static(urls...).Run(ctx, func(list []Target) { got = list; cancel() }); err != nil {
		t.Fatal(err)
	}
	ids := []string{"http://a/x", "http://u:xxxxx@a/x", "http://u:xxxxx@a/x (2)", "http://u:xxxxx@a/x (3)", "http://u:xxxxx@a/x (2)"}
	var want []Target
	for i, id := range ids {
		want = append(want, Target{ID: id, URL: urls[i], Ready: true})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
