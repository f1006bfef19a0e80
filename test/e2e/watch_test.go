package e2e

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

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

// TestWatchCommand: kkv watch goes on at another replica when its own ends, told each change once and nothing of what it knew.
func TestWatchCommand(t *testing.T) {
	d := harness.StartDev(t, "t", nil)
	put := func(value string) {
		t.Helper()
		wantStatus(t, "PUT", harness.DoBody(t, d.Cache, "PUT", native("t", "k"), []byte(value)), 200)
	}
	put("one")
	a, b := harness.StartServe(t, d.Kafka, "t", nil, "--drain", "0s"), harness.StartServe(t, d.Kafka, "t", nil)
	a.AwaitReady(t)
	b.AwaitReady(t)
	w := harness.Kkv(t, nil, "watch", "--server", a.URL+","+b.URL, "--output", "%e %k=%v\n")
	w.WaitFor(t, `(?m)^put k=one$`, harness.StartTimeout)
	put("two")
	w.WaitFor(t, `(?m)^put k=two$`, harness.StartTimeout)
	if err := a.Stop(harness.StartTimeout); err != nil {
		t.Fatal(err)
	}
	w.WaitFor(t, `the watch is back`, harness.StartTimeout)
	put("three")
	w.WaitFor(t, `(?m)^put k=three$`, harness.StartTimeout)
	wantEndWithin(t, w, os.Interrupt, time.Second)
	if got := w.Stdout(); got != "put k=one\nput k=two\nput k=three\n" {
		t.Errorf("printed %q", got)
	}
}
