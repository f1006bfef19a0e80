package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Secret signs POSTs as Standard Webhooks have it (github.com/standard-webhooks/standard-webhooks, spec 1.0.0).
type Secret []byte

const (
	secretPrefix = "whsec_"
	secretLeast  = 24 // bytes: what the specification asks for
	secretMost   = 64
)

// ParseSecrets reads secrets separated by white space: of each the bytes that follow in base64 after "whsec_", else the
// text as it is. With several, each POST has a signature by each, so that a secret can be changed while receivers
// know the old one only. The error does not show the text.
func ParseSecrets(text string) ([]Secret, error) {
	var secrets []Secret
	for i, f := range strings.Fields(text) {
		s := Secret(f)
		if b64, ok := strings.CutPrefix(f, secretPrefix); ok {
			var err error
			if s, err = base64.StdEncoding.DecodeString(b64); err != nil {
				return nil, fmt.Errorf("webhook secret %d is not base64 after %s: %w", i+1, secretPrefix, err)
			}
			if len(s) < secretLeast || len(s) > secretMost {
				return nil, fmt.Errorf("webhook secret %d has %d bytes: Standard Webhooks ask for %d to %d; make one by: echo %s$(openssl rand -base64 32)",
					i+1, len(s), secretLeast, secretMost, secretPrefix)
			}
		}
		secrets = append(secrets, s)
	}
	if len(secrets) == 0 {
		return nil, errors.New("the webhook secret is empty")
	}
	return secrets, nil
}

// sign sets the headers of Standard Webhooks: for v2 always, for v1, whose receivers know nothing of them, with a
// secret. The time is that of this try; the id that of the body.
func (d *Dispatcher) sign(h http.Header, n *post, now time.Time) {
	if len(d.o.Secrets) == 0 && !d.o.V2 {
		return
	}
	at := strconv.FormatInt(now.Unix(), 10)
	h.Set("Webhook-Id", n.id)
	h.Set("Webhook-Timestamp", at)
	var signatures []string
	for _, s := range d.o.Secrets {
		mac := hmac.New(sha256.New, s)
		mac.Write([]byte(n.id + "." + at + "."))
		mac.Write(n.body)
		signatures = append(signatures, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	if len(signatures) > 0 {
		h.Set("Webhook-Signature", strings.Join(signatures, " "))
	}
}
