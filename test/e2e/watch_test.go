package e2e

import (
	"bufio"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/kkv-project/kkv/test/harness"
)

// testWatch reads the simple watch in both formats: the state, the mark that it is whole, then what is written.
func testWatch(t *testing.T, e env) {
	d := e.dev(t)
	put := func(key, value string) {
		wantStatus(t, "PUT", harness.DoBody(t, d.Cache, "PUT", native(d.Topic, key), []byte(value)), 200)
	}
	put("A", `{ "id": "A", "color": "red" }`)

	for accept, wants := range map[string][]string{
		"text/event-stream":    {"event: put", `"key":"A"`, "event: synced", "id: ", "event: put", `"key":"B"`, "event: delete", `"key":"B"`},
		"application/x-ndjson": {`"type":"put"`, `"type":"synced"`, `"key":"B"`, `"type":"delete"`},
	} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", d.Cache+"/v1/topics/"+d.Topic+"/watch", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", accept)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if got := res.Header.Get("Content-Type"); res.StatusCode != 200 || !strings.HasPrefix(got, accept) {
			t.Fatalf("watch: %s of %q, want 200 of %s", res.Status, got, accept)
		}
		lines := bufio.NewScanner(res.Body)
		for i, want := range wants {
			if i == len(wants)/2 {
				put("B", "not json")
				wantStatus(t, "DELETE", harness.Do(t, d.Cache, "DELETE", native(d.Topic, "B")), 200)
			}
			if err := scanFor(lines, want); err != nil {
				t.Fatalf("%s: %v", accept, err)
			}
		}
		res.Body.Close()
	}
}

// scanFor reads lines until one has the text in it.
func scanFor(lines *bufio.Scanner, text string) error {
	var seen []string
	for lines.Scan() {
		seen = append(seen, lines.Text())
		if strings.Contains(lines.Text(), text) {
			return nil
		}
	}
	return fmt.Errorf("the stream ended (%v) without %q after %q", lines.Err(), text, seen)
}
