package nodejs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/kkv-project/kkv/test/harness"
	"github.com/kkv-project/kkv/test/require"
)

// TestVerifyInDocs runs what docs/webhooks.md tells receivers to verify by, on what the library of Standard Webhooks has signed.
func TestVerifyInDocs(t *testing.T) {
	require.Need(t, require.NPM)
	page, err := os.ReadFile(filepath.Join(harness.Root(), "docs", "webhooks.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(page), "```js\n")
	block, _, ok := strings.Cut(block, "```")
	if !ok {
		t.Fatal("docs/webhooks.md has no block of JavaScript")
	}
	const secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", `{"v":2}`
	w, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	signature, err := w.Sign("kkv_1", now, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	old, err := w.Sign("kkv_1", now.Add(-time.Hour), []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	var calls strings.Builder
	for _, c := range []struct {
		signature, body string
		at              time.Time
	}{{"v1,AAAA " + signature, body, now}, {signature, body + " ", now}, {"v1,AAAA", body, now}, {old, body, now.Add(-time.Hour)}} {
		fmt.Fprintf(&calls, "console.log(verify({'webhook-id': 'kkv_1', 'webhook-timestamp': '%d', 'webhook-signature': %q}, Buffer.from(%q), %q))\n",
			c.at.Unix(), c.signature, c.body, secret)
	}
	script := filepath.Join(t.TempDir(), "verify.mjs")
	if err := os.WriteFile(script, []byte(block+calls.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("node", script).CombinedOutput()
	if want := "true\nfalse\nfalse\nfalse\n"; err != nil || string(out) != want {
		t.Errorf("%v\n%swant\n%s", err, out, want)
	}
}
