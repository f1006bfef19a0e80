package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kkv-project/kkv/test/harness"
)

// A fact is one request and what the original answered; see the head of testdata/cache.http for the format.
type fact struct {
	line           int
	method, target string
	header         []string
	body           []byte // nil: none
	status         string
	wantHeader     []string
	wantBody       []byte // nil: not compared
}

// readFacts parses a file of facts, with {topic} replaced.
func readFacts(t *testing.T, file, topic string) []fact {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(strings.ReplaceAll(string(text), "{topic}", topic), "### ")
	line := 1 + strings.Count(head, "\n")
	var facts []fact
	for _, block := range strings.Split(rest, "\n### ") {
		request, answer, ok := strings.Cut(block, "\n--- ")
		if !ok {
			t.Fatalf("%s:%d: no line of dashes with a status", file, line)
		}
		f := fact{line: line}
		var first string
		first, f.header, f.body = splitMessage(request)
		f.method, f.target, _ = strings.Cut(first, " ")
		f.status, f.wantHeader, f.wantBody = splitMessage(answer)
		facts = append(facts, f)
		line += strings.Count(block, "\n") + 1
	}
	return facts
}

// splitMessage takes a first line, headers and, after an empty line, a body apart. One line break at the body's end belongs to the
// file.
func splitMessage(text string) (first string, header []string, body []byte) {
	head, rest, hasBody := strings.Cut(text, "\n\n")
	first, headers, _ := strings.Cut(head, "\n")
	for line := range strings.Lines(headers) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "Note:") {
			header = append(header, line)
		}
	}
	if hasBody && rest != "" {
		body = []byte(strings.TrimSuffix(rest, "\n"))
	}
	return first, header, body
}

// replay asks for each fact in turn and compares.
func replay(t *testing.T, base, file, topic string) {
	t.Helper()
	for _, f := range readFacts(t, file, topic) {
		res := harness.DoBody(t, base, f.method, f.target, f.body, f.header...)
		what := fmt.Sprintf("%s:%d: %s %s", file, f.line, f.method, f.target)
		if got := fmt.Sprint(res.Status); got != f.status {
			t.Errorf("%s: got %s, want status %s", what, res, f.status)
			continue
		}
		for _, h := range f.wantHeader {
			name, want, _ := strings.Cut(h, ":")
			if got := res.Header.Get(name); !sameHeader(got, want) {
				t.Errorf("%s: %s is %q, want %q", what, name, got, strings.TrimSpace(want))
			}
		}
		if want, ok := bytes.CutPrefix(f.wantBody, []byte("json ")); ok {
			if err := jsonIncludes(res.Body, want); err != nil {
				t.Errorf("%s: %v in %s", what, err, res.Body)
			}
		} else if f.wantBody != nil {
			if diff := cmp.Diff(string(f.wantBody), string(res.Body)); diff != "" {
				t.Errorf("%s: body (-want +got):\n%s", what, diff)
			}
		}
	}
}

// sameHeader compares without the case and spaces that media types may differ in.
func sameHeader(a, b string) bool {
	normal := func(s string) string { return strings.ToLower(strings.ReplaceAll(s, " ", "")) }
	return normal(a) == normal(b)
}

// jsonIncludes reports what of want is not in got: every field of an object must be there, arrays are as long, "<any>" is anything.
func jsonIncludes(got, want []byte) error {
	var g, w any
	if err := json.Unmarshal(want, &w); err != nil {
		return fmt.Errorf("the fact itself: %w", err)
	}
	if err := json.Unmarshal(got, &g); err != nil {
		return err
	}
	return includes(g, w, "")
}

func includes(got, want any, path string) error {
	switch want := want.(type) {
	case map[string]any:
		object, ok := got.(map[string]any)
		if !ok {
			return fmt.Errorf("%s is %v, want an object", path, got)
		}
		for name, value := range want {
			member, ok := object[name]
			if !ok {
				return fmt.Errorf("no %s.%s", path, name)
			}
			if err := includes(member, value, path+"."+name); err != nil {
				return err
			}
		}
		return nil
	case []any:
		array, ok := got.([]any)
		if !ok || len(array) != len(want) {
			return fmt.Errorf("%s is %v, want %d elements", path, got, len(want))
		}
		for i := range want {
			if err := includes(array[i], want[i], fmt.Sprintf("%s[%d]", path, i)); err != nil {
				return err
			}
		}
		return nil
	default:
		if want != "<any>" && got != want {
			return fmt.Errorf("%s is %v, want %v", path, got, want)
		}
		return nil
	}
}

// testCompatGateway holds the gateway against what the original answered.
func testCompatGateway(t *testing.T, e env) {
	d := e.dev(t, "--partitions", "1")
	replay(t, d.Gateway, "gateway.http", d.Topic)

	// The produced record's header arrived as a record header.
	res := harness.Do(t, d.Cache, "GET", native(d.Topic, "E"))
	if got := res.Header.Get("X-Kafka-Trace"); got != "YWJj" {
		t.Errorf("X-Kafka-trace of E is %q, want YWJj", got)
	}
	var topics []string
	res = harness.Do(t, d.Gateway, "GET", "/topics")
	if err := json.Unmarshal(res.Body, &topics); err != nil || !strings.Contains(string(res.Body), "\n  \""+d.Topic+"\"") {
		t.Errorf("GET /topics: %s (%v), want a list, indented by two spaces, with %s", res, err, d.Topic)
	}
	wantStatus(t, "topics/absent", harness.Do(t, d.Gateway, "GET", "/topics/"+d.Topic+"-absent"), 404)
	// The same under /clusters/{name}.
	res = harness.DoBody(t, d.Gateway, "POST", "/clusters/default/topics/"+d.Topic+"/messages?key=X&sync", []byte("x"))
	wantStatus(t, "produce under /clusters/default", res, 200)
	wantValue(t, "X", harness.Do(t, d.Cache, "GET", raw("X")), "x")
}

// testCompatCache holds the cache against what the original answered.
func testCompatCache(t *testing.T, e env) {
	d := e.dev(t, "--partitions", "1")
	for _, put := range []struct{ key, value string }{
		{"A", `{ "id": "A", "color": "red" }`}, {"B", `{ "id": "B", "color": "blue" }`}, {"C", "hello"}, {"D", "form-value"}, {"E", "{}"},
	} {
		wantStatus(t, "produce", harness.DoBody(t, d.Gateway, "POST", produceTo(d.Topic, put.key), []byte(put.value), "Content-Type: text/plain"), 200)
	}
	replay(t, d.Cache, "cache.http", d.Topic)
}

// testOffsetsHeader: every read of the old routes names, as JSON, the last offset seen of each partition that has one.
func testOffsetsHeader(t *testing.T, e env) {
	s, producer := e.serve(t, 3, nil)
	producer.MustSend(t,
		harness.Record(0, []byte("a"), []byte("1")), harness.Record(0, []byte("b"), []byte("2")),
		harness.Record(2, []byte("c"), []byte("3")), harness.Record(2, []byte("c"), []byte("4")), harness.Record(2, []byte("c"), []byte("5")),
	)
	type seen struct {
		Offset, Partition int
		Topic             string
	}
	want := []seen{{1, 0, s.Topic}, {2, 2, s.Topic}}
	for _, target := range []string{"/cache/v1/raw/a", "/cache/v1/keys", "/cache/v1/values"} {
		harness.Eventually(t, harness.StartTimeout, s.Process, func() error {
			res := harness.Do(t, s.URL, "GET", target)
			var got []seen
			if err := json.Unmarshal([]byte(res.Header.Get("x-kkv-last-seen-offsets")), &got); err != nil {
				return fmt.Errorf("%s: x-kkv-last-seen-offsets is %q: %w", target, res.Header.Get("x-kkv-last-seen-offsets"), err)
			}
			bySeen := func(a, b seen) bool { return a.Partition < b.Partition }
			if diff := cmp.Diff(want, got, sortSlices(bySeen)); diff != "" {
				return fmt.Errorf("%s: x-kkv-last-seen-offsets (-want +got):\n%s", target, diff)
			}
			return nil
		})
	}
	wantValue(t, "offset of 2", harness.Do(t, s.URL, "GET", "/cache/v1/offset/"+s.Topic+"/2"), "2")
	wantStatus(t, "offset of 1, never written", harness.Do(t, s.URL, "GET", "/cache/v1/offset/"+s.Topic+"/1"), 204)
}
