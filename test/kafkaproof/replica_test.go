package kafkaproof

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kkv-project/kkv/test/harness"
)

// A replica is a `kkv serve` on a topic.
type replica struct{ *harness.Serve }

// serve starts a replica and waits until it is ready.
func (k *kafka) serve(t testing.TB, topic string, args ...string) replica {
	t.Helper()
	r := k.start(t, topic, args...)
	r.AwaitReady(t)
	return r
}

// start does not wait.
func (k *kafka) start(t testing.TB, topic string, args ...string) replica {
	t.Helper()
	return replica{harness.StartServe(t, k.bootstrap, topic, nil, args...)}
}

// What a request may ask for.
const fresh = "Kkv-Consistency: fresh"

func atLeast(position string) string { return "Kkv-At-Least: " + position }

// get asks for a key.
func (r replica) get(t testing.TB, key string, headers ...string) *harness.Response {
	t.Helper()
	return harness.Do(t, r.URL, "GET", r.keyRoute(key), headers...)
}

func (r replica) keyRoute(key string) string {
	return "/v1/topics/" + r.Topic + "/keys/" + harness.EscapeAll(key)
}

// want fails the test unless the key has the value; "" is that there is none. It returns the answer's position.
func (r replica) want(t testing.TB, key, value string, headers ...string) (position string) {
	t.Helper()
	res := r.get(t, key, headers...)
	if value == "" && res.Status != 404 || value != "" && (res.Status != 200 || string(res.Body) != value) {
		t.Fatalf("%s is %s, want %q", key, res, value)
	}
	return res.Header.Get("Kkv-Position")
}

// problem fails the test unless the answer has the status and its body, a problem, the text.
func wantProblem(t testing.TB, what string, res *harness.Response, status int, text string) {
	t.Helper()
	if res.Status != status || !strings.Contains(string(res.Body), text) {
		t.Fatalf("%s: got %s, want %d with %q", what, res, status, text)
	}
}

// An event is a line of a list or a watch.
type event struct {
	Type      string
	Key       string
	Text      *string
	Value     json.RawMessage
	Partition int32
	Offset    int64
	Position  string
	Reason    string
}

func (e *event) value() string {
	if e.Text != nil {
		return *e.Text
	}
	return string(e.Value)
}

// list asks for all keys with their values.
func (r replica) list(t testing.TB, headers ...string) map[string]string {
	t.Helper()
	res := harness.Do(t, r.URL, "GET", "/v1/topics/"+r.Topic+"/keys?values=true", headers...)
	if res.Status != 200 {
		t.Fatalf("list: %s", res)
	}
	state := map[string]string{}
	for line := range bytes.Lines(res.Body) {
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("list: %v in %q", err, line)
		}
		state[e.Key] = e.value()
	}
	return state
}

// wantLog fails the test unless the replica's fresh state is what a plain consumer reads. Nobody may write meanwhile.
func (r replica) wantLog(t testing.TB, k *kafka) {
	t.Helper()
	got := r.list(t, fresh)
	if diff := cmp.Diff(fold(k.read(t, r.Topic)), got); diff != "" {
		t.Fatalf("the log's state and the cache's differ (-log +cache):\n%s", diff)
	}
}

// status is what the topic's route says of its partitions.
type status struct {
	Ready      bool
	Partitions []struct {
		Partition int32
		Position  int64
		End       *int64
		Behind    string
		LogStart  int64
		AgeMs     *int64
	}
}

func (r replica) status(t testing.TB) (s status) {
	t.Helper()
	res := harness.Do(t, r.URL, "GET", "/v1/topics/"+r.Topic)
	if err := json.Unmarshal(res.Body, &s); err != nil {
		t.Fatalf("status: %v in %s", err, res)
	}
	return s
}

// wantPositions waits until every partition's position, known to be its end, is the one wanted.
func (r replica) wantPositions(t testing.TB, want ...int64) {
	t.Helper()
	harness.Eventually(t, patience, r.Process, func() error {
		s := r.status(t)
		for i, p := range s.Partitions {
			if i >= len(want) || p.Position != want[i] || p.End == nil || *p.End != want[i] || p.AgeMs == nil {
				return fmt.Errorf("partition %d: %+v, want position and end %v, of known age", i, p, want)
			}
		}
		if len(s.Partitions) != len(want) {
			return fmt.Errorf("%d partitions, want %d", len(s.Partitions), len(want))
		}
		return nil
	})
}

// A watch is one stream of events with values. It ends with the test, or by stop.
type watch struct {
	t     testing.TB
	lines *bufio.Scanner
	stop  context.CancelFunc
}

// watch opens one; since may be "".
func (r replica) watch(t testing.TB, since string) *watch {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(stop)
	req, err := http.NewRequestWithContext(ctx, "GET", r.URL+"/v1/topics/"+r.Topic+"/watch?since="+url.QueryEscape(since), nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	if res.StatusCode != 200 {
		t.Fatalf("watch: %s", res.Status)
	}
	w := &watch{t, bufio.NewScanner(res.Body), stop}
	w.lines.Buffer(nil, 1<<20)
	return w
}

// next returns the next event; false when the stream has ended.
func (w *watch) next() (e event, ok bool) {
	if !w.lines.Scan() {
		return e, false
	}
	if err := json.Unmarshal(w.lines.Bytes(), &e); err != nil {
		w.t.Errorf("watch: %v in %q", err, w.lines.Bytes())
	}
	return e, true
}

// until reads up to the first event that is last, and returns all but progress.
func (w *watch) until(last func(event) bool) (seen []event) {
	w.t.Helper()
	defer time.AfterFunc(patience, w.stop).Stop()
	for {
		e, ok := w.next()
		if !ok {
			w.t.Fatalf("the watch ended (%v) after %+v", w.lines.Err(), seen)
		}
		if e.Type != "progress" {
			seen = append(seen, e)
		}
		if last(e) {
			return seen
		}
	}
}

func synced(e event) bool { return e.Type == "synced" }

func isKey(kind, key string) func(event) bool {
	return func(e event) bool { return e.Type == kind && e.Key == key }
}

// brief writes events as "put a=1", "delete b", "reset topic-recreated".
func brief(events []event) (list []string) {
	for _, e := range events {
		text := e.Type
		switch {
		case e.Type == "put":
			text += " " + e.Key + "=" + e.value()
		case e.Type == "delete" && e.Reason != "":
			text += " " + e.Key + " " + e.Reason
		case e.Type == "delete":
			text += " " + e.Key
		case e.Reason != "":
			text += " " + e.Reason
		}
		list = append(list, text)
	}
	return list
}
