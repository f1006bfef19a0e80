package webhook

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// What is signed is verified by the library of those who wrote the specification.
func TestSignatures(t *testing.T) {
	const old, current, raw = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "plain"
	verifier := func(secret string) *standardwebhooks.Webhook {
		w, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	plain, err := standardwebhooks.NewWebhookRaw([]byte("plain"))
	if err != nil {
		t.Fatal(err)
	}
	for _, v2 := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			secrets, err := ParseSecrets(old + "\n" + current + "\n" + raw)
			if err != nil {
				t.Fatal(err)
			}
			c := newFakeCache(0)
			r := newRig(t, c, Options{V2: v2, Secrets: secrets}, "a")
			r.hosts["a"].set(answer(500))
			c.apply(mut{0, "k", "1"})
			pass(10 * time.Minute)
			calls := r.hosts["a"].take()
			// Verify holds the time against the clock, which stands where the last try was sent.
			last := calls[len(calls)-1]
			for _, w := range []*standardwebhooks.Webhook{verifier(old), verifier(current), plain} {
				if err := w.Verify([]byte(last.body), last.header); err != nil {
					t.Errorf("%v: %v", last.header, err)
				}
				if err := w.Verify([]byte(last.body+" "), last.header); err == nil {
					t.Error("another body is verified")
				}
			}
			if err := verifier("whsec_"+strings.Repeat("A", 32)).Verify([]byte(last.body), last.header); err == nil {
				t.Error("another secret verifies")
			}
			first := calls[0].header
			if first.Get("Webhook-Id") != last.header.Get("Webhook-Id") || first.Get("Webhook-Timestamp") == last.header.Get("Webhook-Timestamp") {
				t.Errorf("a try again has the id of the first and its own time, not\n%v\n%v", first, last.header)
			}
		})
	}
}

// v1 without a secret is the original's, which had no such headers.
func TestUnsigned(t *testing.T) {
	for _, v2 := range []bool{false, true} {
		h := http.Header{}
		d := New(Options{V2: v2, Source: newFakeCache(0)})
		d.sign(h, &post{id: "x"}, time.Unix(5, 0))
		if (h.Get("Webhook-Id") == "x") != v2 || (h.Get("Webhook-Timestamp") == "5") != v2 || h.Get("Webhook-Signature") != "" {
			t.Errorf("v2=%v: %v", v2, h)
		}
	}
}

func TestParseSecrets(t *testing.T) {
	for text, want := range map[string]string{
		"":               "empty",
		" \n":            "empty",
		"whsec_!":        "not base64",
		"whsec_c2hvcnQ=": "5 bytes",
	} {
		if _, err := ParseSecrets(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	got, err := ParseSecrets("whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz  raw\n")
	if err != nil || len(got) != 2 || string(got[0]) != "012345678901234567890123" || string(got[1]) != "raw" {
		t.Errorf("%q, %v", got, err)
	}
}
