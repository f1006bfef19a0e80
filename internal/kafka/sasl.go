package kafka

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// saslMechanism is how to authenticate; nil if security.protocol has no SASL.
// Credentials are read, with their files, each time a connection
// authenticates, so a rotated password is used from then on.
func (p properties) saslMechanism() (sasl.Mechanism, error) {
	_, useSASL, err := p.security()
	if err != nil || !useSASL {
		return nil, err
	}
	name, err := p.word("sasl.mechanism", "")
	if err != nil {
		return nil, err
	}
	switch name {
	case "PLAIN":
		if _, err := p.password(); err != nil {
			return nil, err
		}
		return plain.Plain(func(context.Context) (plain.Auth, error) {
			c, err := p.password()
			return plain.Auth{User: c.user, Pass: c.password}, err
		}), nil
	case "SCRAM-SHA-256", "SCRAM-SHA-512":
		if _, err := p.password(); err != nil {
			return nil, err
		}
		auth := func(context.Context) (scram.Auth, error) {
			c, err := p.password()
			return scram.Auth{User: c.user, Pass: c.password, IsToken: c.token}, err
		}
		if name == "SCRAM-SHA-256" {
			return scram.Sha256(auth), nil
		}
		return scram.Sha512(auth), nil
	case "OAUTHBEARER":
		source, err := newTokenSource(p)
		if err != nil {
			return nil, err
		}
		return oauth.Oauth(source.auth), nil
	case "":
		return nil, errors.New("Kafka property sasl.mechanism is missing: set it to PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER")
	}
	return nil, fmt.Errorf("Kafka property sasl.mechanism=%s is not supported by kkv: use PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER", name)
}

type credentials struct {
	user, password string
	token          bool // a delegation token (KIP-48)
}

// password finds the user and password: the options of sasl.jaas.config, or
// librdkafka's sasl.username and sasl.password, which are easier to keep in
// files.
func (p properties) password() (credentials, error) {
	var c credentials
	module, err := p.loginModule("PlainLoginModule", "ScramLoginModule")
	if err != nil {
		return c, err
	}
	c.user, c.password = module.options["username"], module.options["password"]
	c.token = module.options["tokenauth"] == "true"
	for name, to := range map[string]*string{"sasl.username": &c.user, "sasl.password": &c.password} {
		v, err := p.get(name)
		if err != nil {
			return c, err
		}
		if v != "" {
			*to = v
		}
	}
	if c.user == "" || c.password == "" {
		return c, errors.New("Kafka credentials are missing: set sasl.username and sasl.password, or sasl.jaas.config=" +
			`org.apache.kafka.common.security.plain.PlainLoginModule required username="…" password="…"; (ScramLoginModule for SCRAM)`)
	}
	return c, nil
}

// loginModule parses sasl.jaas.config, if it is set, and checks the module's
// class by its simple name, as distributions shade the package.
func (p properties) loginModule(allowed ...string) (jaasModule, error) {
	text, err := p.get("sasl.jaas.config")
	if err != nil || strings.TrimSpace(text) == "" {
		return jaasModule{}, err
	}
	module, err := parseJAAS(text)
	if err != nil {
		return module, fmt.Errorf("Kafka property sasl.jaas.config: %w", err)
	}
	simple := module.class[strings.LastIndexByte(module.class, '.')+1:]
	for _, a := range allowed {
		if simple == a {
			return module, nil
		}
	}
	return module, fmt.Errorf("Kafka property sasl.jaas.config: login module %s does not fit sasl.mechanism; expected %s",
		module.class, strings.Join(allowed, " or "))
}

type jaasModule struct {
	class   string
	options map[string]string
}

// parseJAAS reads one entry of a JAAS configuration as sasl.jaas.config has
// it (KIP-85): `class flag (name=value)*;` with quoted or bare values. Its
// errors never repeat the text, which holds a password.
func parseJAAS(text string) (jaasModule, error) {
	m := jaasModule{options: map[string]string{}}
	words, err := jaasWords(text)
	if err != nil {
		return m, err
	}
	if len(words) < 3 || words[len(words)-1] != ";" {
		return m, errors.New(`it must read: LoginModule required name="value" …; with a semicolon at the end`)
	}
	m.class = words[0]
	switch flag := strings.ToLower(words[1]); flag {
	case "required", "requisite", "sufficient", "optional":
	default:
		return m, errors.New("the word after the login module must be required")
	}
	rest := words[2 : len(words)-1]
	for len(rest) > 0 {
		if len(rest) < 3 || rest[1] != "=" {
			return m, errors.New(`its options must be name="value", and the only semicolon at the end`)
		}
		m.options[rest[0]] = rest[2]
		rest = rest[3:]
	}
	return m, nil
}

// jaasWords splits into words, quoted strings (without their quotes), = and ;.
func jaasWords(s string) ([]string, error) {
	var words []string
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
		case c == '=' || c == ';':
			words = append(words, s[i:i+1])
			i++
		case c == '"' || c == '\'':
			var b strings.Builder
			for i++; i < len(s) && s[i] != c; i++ {
				if s[i] == '\\' && i+1 < len(s) {
					i++
				}
				b.WriteByte(s[i])
			}
			if i == len(s) {
				return nil, errors.New("a quote is not closed")
			}
			words = append(words, b.String())
			i++
		default:
			start := i
			for i < len(s) && !strings.ContainsRune(" \t\r\n=;\"'", rune(s[i])) {
				i++
			}
			words = append(words, s[start:i])
		}
	}
	return words, nil
}
