package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/kkv-project/kkv/test/harness"
)

const webhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// A line is one change of a v2 push.
type line struct {
	Type, Key string
	Value     json.RawMessage
	Text      string
	Partition int32
	Offset    int64
	Epoch     *int32
}

// updateV2 is the body of a v2 push.
type updateV2 struct {
	V                          int
	ID, Topic, Reset, Position string
	Synced                     bool
	Changes                    []line
}

// told verifies what has come by the library of Standard Webhooks, and returns it as lines.
func (r *receiver) told(t *testing.T, topic string) (lines []string) {
	t.Helper()
	verifier, err := standardwebhooks.NewWebhook(webhookSecret)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range r.pushes() {
		var u updateV2
		if err := json.Unmarshal([]byte(p.body), &u); err != nil || u.V != 2 || u.Topic != topic || u.ID != p.header.Get("webhook-id") {
			t.Fatalf("pushed body %q: %v", p.body, err)
		}
		if err := verifier.Verify([]byte(p.body), p.header); err != nil {
			t.Errorf("%s: %v", p.body, err)
		}
		if u.Reset != "" {
			lines = append(lines, "reset")
		}
		for _, c := range u.Changes {
			if c.Epoch == nil {
				t.Errorf("no epoch in %s", p.body)
			}
			lines = append(lines, fmt.Sprintf("%s %s %s%s %d:%d", c.Type, c.Key, c.Value, c.Text, c.Partition, c.Offset))
		}
		if u.Synced {
			lines = append(lines, "synced")
		}
	}
	return lines
}

func (r *receiver) awaitTold(t *testing.T, s *harness.Serve, want ...string) {
	t.Helper()
	harness.Eventually(t, harness.StartTimeout, s.Process, func() error {
		if got := r.told(t, s.Topic); !slices.Equal(got, want) {
			return fmt.Errorf("pushed %q, want %q", got, want)
		}
		return nil
	})
}

// testWebhookV2: the state with a reset, then changes with values and deletes, all signed.
func testWebhookV2(t *testing.T, e env) {
	r := newReceiver(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(webhookSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	first, producer := e.serve(t, 2, nil)
	producer.MustSend(t, harness.Record(1, []byte("old"), []byte(`{"x": 1}`)))
	cursors := filepath.Join(t.TempDir(), "cursors.json")
	args := []string{"--webhook-body", "v2", "--webhook-secret-file", secret, "--webhook-resume", cursors}
	s := harness.StartServe(t, first.Bootstrap, first.Topic, r.env(), args...)
	s.AwaitReady(t)
	want := []string{"reset", `put old {"x": 1} 1:0`, "synced"}
	r.awaitTold(t, s, want...)
	for _, step := range []struct{ key, value, line string }{
		{"new", "text", "put new text 0:0"},
		{"new", "text", "put new text 0:1"}, // an equal value is pushed, too
		{"new", "", "delete new  0:2"},
	} {
		value := []byte(step.value)
		if step.value == "" {
			value = nil
		}
		producer.MustSend(t, harness.Record(0, []byte(step.key), value))
		want = append(want, step.line)
		r.awaitTold(t, s, want...)
	}
	wantMetric(t, s, fmt.Sprintf("kkv_webhook_pending_keys{target=%q}", r.URL+"/kafka-keyvalue/v1/updates"), 0)
	wantMetric(t, s, fmt.Sprintf("kkv_webhook_retries_total{target=%q}", r.URL+"/kafka-keyvalue/v1/updates"), 0)

	harness.Eventually(t, harness.StartTimeout, s.Process, func() error {
		var last updateV2
		ps := r.pushes()
		if err := json.Unmarshal([]byte(ps[len(ps)-1].body), &last); err != nil || last.Position == "" {
			t.Fatalf("%s: %v", ps[len(ps)-1].body, err)
		}
		b, err := os.ReadFile(cursors)
		if err == nil && !strings.Contains(string(b), `"`+last.Position+`"`) {
			err = fmt.Errorf("%s does not have %s", b, last.Position)
		}
		return err
	})
	// What happens while it is away it tells when it is back, deletes included, and no whole state.
	s.Kill()
	producer.MustSend(t, harness.Record(1, []byte("old"), nil), harness.Record(0, []byte("away"), []byte("1")))
	s = harness.StartServe(t, first.Bootstrap, first.Topic, r.env(), args...)
	harness.Eventually(t, harness.StartTimeout, s.Process, func() error {
		got := r.told(t, s.Topic)[len(want):]
		if !slices.Contains(got, "delete old  1:1") || !slices.Contains(got, "put away 1 0:3") || slices.Contains(got, "reset") {
			return fmt.Errorf("pushed %q after the restart", got)
		}
		return nil
	})
}
