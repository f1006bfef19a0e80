package kafka

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func oauthProperties(endpoint string) properties {
	return properties{
		"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "OAUTHBEARER",
		"sasl.oauthbearer.token.endpoint.url": endpoint,
		"sasl.jaas.config": `org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required ` +
			`clientId="id:1" clientSecret="s&t" scope="kafka.read kafka.write" extension_logicalCluster="lc";`,
	}
}

func TestOAuthTokenEndpoint(t *testing.T) {
	var calls atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, secret, _ := r.BasicAuth()
		if id != "id%3A1" || secret != "s%26t" || r.PostFormValue("grant_type") != "client_credentials" || r.PostFormValue("scope") != "kafka.read kafka.write" {
			w.WriteHeader(http.StatusUnauthorized)
			w.Write([]byte(`{"error":"invalid_client"}`))
			return
		}
		calls.Add(1)
		json.NewEncoder(w).Encode(map[string]any{"access_token": "tok", "expires_in": 100})
	}))
	defer server.Close()
	s, err := newTokenSource(oauthProperties(server.URL))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		a, err := s.auth(t.Context())
		if err != nil || a.Token != "tok" || a.Extensions["logicalCluster"] != "lc" {
			t.Errorf("got %+v, %v", a, err)
		}
	}
	if calls.Load() != 1 {
		t.Errorf("%d calls for a token that lives 100 s", calls.Load())
	}
	s.expires = time.Now().Add(-time.Second)
	if _, err := s.auth(t.Context()); err != nil || calls.Load() != 2 {
		t.Errorf("after it expired: %d calls, %v", calls.Load(), err)
	}
	bad := oauthProperties(server.URL)
	bad["sasl.oauthbearer.client.credentials.client.secret"] = "hunter2"
	if s, err = newTokenSource(bad); err != nil {
		t.Fatal(err)
	}
	if _, err := s.auth(t.Context()); err == nil || !strings.Contains(err.Error(), "401 Unauthorized invalid_client") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("wrong secret: %v", err)
	}
}

// kfake has no OAUTHBEARER, so the test plays the broker's part of it and
// looks at the bytes (RFC 7628 section 3.1).
func TestOAuthOnTheWire(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(t, kfake.SeedTopics(1, "t"))
		var sent atomic.Value
		f.c.ControlKey(int16(kmsg.SASLHandshake), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
			f.c.KeepControl()
			if m := kreq.(*kmsg.SASLHandshakeRequest).Mechanism; m != "OAUTHBEARER" {
				return nil, errors.New(m), true
			}
			return kreq.ResponseKind(), nil, true
		})
		f.c.ControlKey(int16(kmsg.SASLAuthenticate), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
			f.c.KeepControl()
			sent.Store(string(kreq.(*kmsg.SASLAuthenticateRequest).SASLAuthBytes))
			return kreq.ResponseKind(), nil, true
		})
		file := writeFile(t, filepath.Join(t.TempDir(), "token"), "file-token\n")
		if err := f.reach(oauthProperties("file://" + file)); err != nil {
			t.Fatal(err)
		}
		if want := "n,,\x01auth=Bearer file-token\x01logicalCluster=lc\x01\x01"; sent.Load() != want {
			t.Errorf("sent %q, want %q", sent.Load(), want)
		}
		writeFile(t, file, "")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s, err := newTokenSource(oauthProperties("file://" + file))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.auth(ctx); err == nil || !strings.Contains(err.Error(), "is empty") {
			t.Errorf("empty token file: %v", err)
		}
	})
}
