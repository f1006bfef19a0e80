package config

import (
	"net/url"
	"regexp"
	"strings"
)

// masked stands for a secret wherever settings are shown.
const masked = "********"

// mask replaces what must not be shown and tells whether it did. It never fails open: a URL that cannot be parsed and
// holds an @ is taken to hold a password.
func (s setting) mask(v string) (string, bool) {
	if v == "" {
		return v, false
	}
	if s.has("secret") {
		return masked, true
	}
	if strings.Contains(s.tag.Get("check"), "property") {
		name, _, ok := strings.Cut(v, "=")
		if !ok {
			return masked, true // perhaps a secret whose name was forgotten
		}
		if secretProperty(name) {
			return name + "=" + masked, true
		}
	}
	if i := strings.LastIndex(v, "@"); i >= 0 && s.tag.Get("check") == "url" && !strings.Contains(v, "://") {
		return masked + v[i:], true // a URL whose scheme was forgotten
	}
	return maskURL(v)
}

// secretProperty tells whether the value of a Kafka property is a secret. It errs towards yes; but names of files, kinds
// and endpoints (ssl.keystore.location, ssl.keystore.type, sasl.oauthbearer.token.endpoint.url) are shown.
func secretProperty(name string) bool {
	name = strings.ToLower(strings.TrimSpace(name))
	for _, suffix := range []string{".location", ".type", ".url", ".class", ".path", ".file"} {
		if strings.HasSuffix(name, suffix) {
			return false
		}
	}
	for _, part := range []string{"password", "secret", "jaas", "key", "token", "credential", "user.info"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

var (
	authority   = regexp.MustCompile(`://[^/?#]*@`)
	greedyAt    = regexp.MustCompile(`(?s)://.*@`)
	secretQuery = regexp.MustCompile(`(?i)([?&][^=&#]*(?:password|secret|token|key|signature)[^=&#]*=)[^&#]+`)
)

// Redact is a URL without the secrets in it, to be shown.
func Redact(v string) string {
	v, _ = maskURL(v)
	return v
}

// maskURL masks user information and telling query parameters.
func maskURL(v string) (string, bool) {
	if !strings.Contains(v, "://") {
		return v, false
	}
	out := v
	if u, err := url.Parse(v); err != nil {
		out = greedyAt.ReplaceAllString(out, "://"+masked+"@")
	} else if u.User != nil {
		out = authority.ReplaceAllString(out, "://"+masked+"@")
	}
	out = secretQuery.ReplaceAllString(out, "${1}"+masked)
	return out, out != v
}
