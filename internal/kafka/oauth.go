package kafka

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/sasl/oauth"
)

// tokenSource gets OAUTHBEARER tokens (KIP-255, KIP-768): from a file if
// sasl.oauthbearer.token.endpoint.url is a file: URL, else from that HTTP
// endpoint by the client credentials grant (RFC 6749 section 4.4). A token is
// kept until shortly before it expires. Safe for concurrent use.
type tokenSource struct {
	p    properties
	http *http.Client

	mu      sync.Mutex
	token   string
	expires time.Time
}

func newTokenSource(p properties) (*tokenSource, error) {
	if handler, err := p.word("sasl.login.callback.handler.class", ""); err != nil {
		return nil, err
	} else if handler != "" && !strings.HasSuffix(handler, ".OAuthBearerLoginCallbackHandler") {
		return nil, fmt.Errorf("Kafka property sasl.login.callback.handler.class=%s: kkv runs no Java classes; "+
			"set sasl.oauthbearer.token.endpoint.url to an https: or file: URL instead", handler)
	}
	s := &tokenSource{p: p, http: &http.Client{Timeout: 10 * time.Second}}
	endpoint, err := s.endpoint()
	if err != nil {
		return nil, err
	}
	if endpoint.Scheme == "file" {
		return s, nil // it may be written later, by a sidecar
	}
	_, err = s.client()
	return s, err
}

func (s *tokenSource) endpoint() (*url.URL, error) {
	text, err := s.p.word("sasl.oauthbearer.token.endpoint.url", "")
	if err != nil {
		return nil, err
	}
	if text == "" {
		return nil, errors.New("Kafka property sasl.oauthbearer.token.endpoint.url is missing: " +
			"set it to the token endpoint (https://…), or to a file that holds a token (file:///path)")
	}
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http" && u.Scheme != "file") {
		return nil, errors.New("Kafka property sasl.oauthbearer.token.endpoint.url must be an https:, http: or file: URL")
	}
	return u, nil
}

type oauthClient struct{ id, secret, scope string }

// client finds the credentials under the names of KIP-768 (JAAS options) and
// of KIP-1139 (properties), of which the latter win.
func (s *tokenSource) client() (oauthClient, error) {
	var c oauthClient
	module, err := s.p.loginModule("OAuthBearerLoginModule")
	if err != nil {
		return c, err
	}
	c = oauthClient{module.options["clientId"], module.options["clientSecret"], module.options["scope"]}
	for name, to := range map[string]*string{
		"sasl.oauthbearer.client.credentials.client.id":     &c.id,
		"sasl.oauthbearer.client.credentials.client.secret": &c.secret,
		"sasl.oauthbearer.scope":                            &c.scope,
	} {
		v, err := s.p.get(name)
		if err != nil {
			return c, err
		}
		if v != "" {
			*to = v
		}
	}
	if c.id == "" || c.secret == "" {
		return c, errors.New("Kafka OAUTHBEARER credentials are missing: set clientId and clientSecret in sasl.jaas.config=" +
			`org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required clientId="…" clientSecret="…";`)
	}
	return c, nil
}

// auth is called by the Kafka client for each authentication.
func (s *tokenSource) auth(ctx context.Context) (oauth.Auth, error) {
	token, err := s.get(ctx)
	if err != nil {
		return oauth.Auth{}, fmt.Errorf("get an OAUTHBEARER token: %w", err)
	}
	module, err := s.p.loginModule("OAuthBearerLoginModule")
	if err != nil {
		return oauth.Auth{}, err
	}
	extensions := map[string]string{}
	for name, value := range module.options {
		if e, ok := strings.CutPrefix(name, "extension_"); ok {
			extensions[e] = value
		}
	}
	return oauth.Auth{Token: token, Extensions: extensions}, nil
}

func (s *tokenSource) get(ctx context.Context) (string, error) {
	endpoint, err := s.endpoint()
	if err != nil {
		return "", err
	}
	if endpoint.Scheme == "file" {
		text, err := os.ReadFile(endpoint.Path)
		if token := strings.TrimSpace(string(text)); token != "" || err != nil {
			return token, err
		}
		return "", fmt.Errorf("%s is empty", endpoint.Path)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token != "" && time.Now().Before(s.expires) {
		return s.token, nil
	}
	token, life, err := s.fetch(ctx, endpoint)
	if err != nil {
		return "", err
	}
	// As Java's sasl.login.refresh.window.factor: renew at 80 % of its life.
	s.token, s.expires = token, time.Now().Add(life*8/10)
	return token, nil
}

func (s *tokenSource) fetch(ctx context.Context, endpoint *url.URL) (token string, life time.Duration, err error) {
	c, err := s.client()
	if err != nil {
		return "", 0, err
	}
	form := url.Values{"grant_type": {"client_credentials"}}
	if c.scope != "" {
		form.Set("scope", c.scope)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint.String(), strings.NewReader(form.Encode()))
	if err != nil {
		return "", 0, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	req.SetBasicAuth(url.QueryEscape(c.id), url.QueryEscape(c.secret)) // RFC 6749 section 2.3.1
	resp, err := s.http.Do(req)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return "", 0, err
	}
	var answer struct {
		AccessToken string  `json:"access_token"`
		ExpiresIn   float64 `json:"expires_in"` // seconds; optional
		Error       string  `json:"error"`
		Description string  `json:"error_description"`
	}
	parseErr := json.Unmarshal(body, &answer)
	if resp.StatusCode != http.StatusOK {
		return "", 0, fmt.Errorf("%s answered %s %s %s", endpoint.Redacted(), resp.Status, answer.Error, answer.Description)
	}
	if parseErr != nil || answer.AccessToken == "" {
		return "", 0, fmt.Errorf("%s answered no access_token", endpoint.Redacted())
	}
	return answer.AccessToken, time.Duration(answer.ExpiresIn * float64(time.Second)), nil
}
