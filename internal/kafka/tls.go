package kafka

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

type dialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

// dialer opens connections, over TLS if security.protocol says so. setup
// bounds the connection and the handshake together. Certificates and keys are
// read anew for each connection, so that rotated files are picked up.
func (c Config) dialer(p properties, setup time.Duration) (dialFunc, error) {
	dial := c.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	useTLS, _, err := p.security()
	if err != nil {
		return nil, err
	}
	if useTLS {
		if _, err := p.tlsConfig(""); err != nil {
			return nil, err
		}
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if setup > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, setup)
			defer cancel()
		}
		conn, err := dial(ctx, network, addr)
		if err != nil || !useTLS {
			return conn, err
		}
		secured, err := handshake(ctx, p, conn, addr)
		if err != nil {
			conn.Close()
			return nil, fmt.Errorf("TLS with %s: %w", addr, err)
		}
		return secured, nil
	}, nil
}

func handshake(ctx context.Context, p properties, conn net.Conn, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	cfg, err := p.tlsConfig(host)
	if err != nil {
		return nil, err
	}
	secured := tls.Client(conn, cfg)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return secured, nil
}

// security reads security.protocol, whose default is PLAINTEXT.
func (p properties) security() (useTLS, useSASL bool, err error) {
	v, err := p.word("security.protocol", "PLAINTEXT")
	if err != nil {
		return false, false, err
	}
	switch strings.ToUpper(v) {
	case "PLAINTEXT":
	case "SSL":
		useTLS = true
	case "SASL_PLAINTEXT":
		useSASL = true
	case "SASL_SSL":
		useTLS, useSASL = true, true
	default:
		return false, false, fmt.Errorf("Kafka property security.protocol=%s: it must be PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL", v)
	}
	// Credentials that would never be sent are a mistake; Java is silent.
	if !useSASL && p.has("sasl.mechanism") {
		return false, false, errors.New("Kafka property sasl.mechanism is set but security.protocol does not use it: " +
			"set security.protocol=SASL_SSL (or SASL_PLAINTEXT)")
	}
	if !useTLS && (p.has("ssl.truststore.location") || p.has("ssl.truststore.certificates") || p.has("ssl.keystore.location") || p.has("ssl.keystore.key")) {
		return false, false, errors.New("Kafka properties ssl.truststore or ssl.keystore are set but security.protocol does not use TLS: " +
			"set security.protocol=SSL (or SASL_SSL)")
	}
	return useTLS, useSASL, nil
}

func (p properties) tlsConfig(host string) (*tls.Config, error) {
	cfg := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if err := p.tlsVersions(cfg); err != nil {
		return nil, err
	}
	roots, err := p.truststore()
	if err != nil {
		return nil, err
	}
	cfg.RootCAs = roots
	certificate, err := p.keystore()
	if err != nil {
		return nil, err
	}
	if certificate != nil {
		cfg.Certificates = []tls.Certificate{*certificate}
	}
	if algorithm, set := p["ssl.endpoint.identification.algorithm"]; set {
		switch strings.ToLower(strings.TrimSpace(algorithm)) {
		case "https":
		case "":
			verifyChainOnly(cfg)
		default:
			return nil, fmt.Errorf("Kafka property ssl.endpoint.identification.algorithm=%s: it must be https, or empty to accept any host name", algorithm)
		}
	}
	return cfg, nil
}

// verifyChainOnly verifies the server's certificate but not its host name
// (KIP-294: what an empty ssl.endpoint.identification.algorithm means).
func verifyChainOnly(cfg *tls.Config) {
	cfg.InsecureSkipVerify = true // replaced by the whole verification below, less the name
	cfg.VerifyConnection = func(s tls.ConnectionState) error {
		opts := x509.VerifyOptions{Roots: cfg.RootCAs, Intermediates: x509.NewCertPool()}
		for _, c := range s.PeerCertificates[1:] {
			opts.Intermediates.AddCert(c)
		}
		if _, err := s.PeerCertificates[0].Verify(opts); err != nil {
			return &tls.CertificateVerificationError{UnverifiedCertificates: s.PeerCertificates, Err: err}
		}
		return nil
	}
}

func (p properties) tlsVersions(cfg *tls.Config) error {
	enabled, err := p.word("ssl.enabled.protocols", "")
	if err != nil || enabled == "" {
		return err
	}
	lowest, highest := uint16(0), uint16(0)
	for name := range strings.SplitSeq(enabled, ",") {
		var v uint16
		switch name = strings.TrimSpace(name); name {
		case "TLSv1.2":
			v = tls.VersionTLS12
		case "TLSv1.3":
			v = tls.VersionTLS13
		default:
			return fmt.Errorf("Kafka property ssl.enabled.protocols: %s is not supported; use TLSv1.2 and TLSv1.3", name)
		}
		if lowest == 0 || v < lowest {
			lowest = v
		}
		highest = max(highest, v)
	}
	cfg.MinVersion, cfg.MaxVersion = lowest, highest
	return nil
}

// truststore is the set of authorities to trust; nil means the system's.
func (p properties) truststore() (*x509.CertPool, error) {
	text, from, err := p.store("ssl.truststore", "ssl.truststore.certificates")
	if err != nil || text == nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("Kafka property %s holds no PEM certificate (-----BEGIN CERTIFICATE-----)", from)
	}
	return pool, nil
}

// keystore is the certificate that we show to the broker; nil means none.
func (p properties) keystore() (*tls.Certificate, error) {
	text, from, err := p.store("ssl.keystore", "ssl.keystore.key")
	if err != nil {
		return nil, err
	}
	if from == "ssl.keystore.key" {
		chain, err := p.get("ssl.keystore.certificate.chain")
		if err != nil {
			return nil, err
		}
		if chain == "" {
			return nil, errors.New("Kafka property ssl.keystore.key needs ssl.keystore.certificate.chain beside it")
		}
		text = append(append(text, '\n'), oneLinePEM(chain)...)
	}
	if text == nil {
		return nil, nil
	}
	if bytes.Contains(text, []byte("BEGIN ENCRYPTED PRIVATE KEY")) || bytes.Contains(text, []byte("Proc-Type: 4,ENCRYPTED")) {
		return nil, fmt.Errorf("Kafka property %s: kkv cannot read an encrypted private key; decrypt it with "+
			"`openssl pkcs8 -in key.pem -out plain.pem` and protect the file instead (ssl.key.password is not needed then)", from)
	}
	cert, err := tls.X509KeyPair(text, text)
	if err != nil {
		return nil, fmt.Errorf("Kafka property %s: it must hold a PEM private key and its certificate chain: %w", from, err)
	}
	return &cert, nil
}

// store reads a PEM trust or key store from the property that holds it inline
// or from <prefix>.location, and says which of them it was.
func (p properties) store(prefix, inline string) (text []byte, from string, err error) {
	kind, err := p.word(prefix+".type", "")
	if err != nil {
		return nil, "", err
	}
	kind = strings.ToUpper(kind)
	location, err := p.word(prefix+".location", "")
	if err != nil {
		return nil, "", err
	}
	if value, err := p.get(inline); err != nil || strings.TrimSpace(value) != "" {
		if err == nil && location != "" {
			err = fmt.Errorf("Kafka properties %s and %s.location exclude each other: keep one", inline, prefix)
		}
		return oneLinePEM(value), inline, err
	}
	if location == "" {
		return nil, "", nil
	}
	if text, err = os.ReadFile(location); err != nil {
		return nil, "", fmt.Errorf("Kafka property %s.location: %w", prefix, err)
	}
	// Java's default type is JKS; a file that plainly is PEM is taken as such.
	block, _ := pem.Decode(text)
	if kind == "PEM" || (kind == "" && block != nil) {
		return text, prefix + ".location", nil
	}
	return nil, "", fmt.Errorf("Kafka property %s.location: kkv reads PEM stores only, and %s is not one; convert it: %s",
		prefix, location, conversion(prefix, text))
}

// conversion is the command that turns a Java or PKCS #12 store into PEM.
func conversion(prefix string, text []byte) string {
	jks := bytes.HasPrefix(text, []byte{0xfe, 0xed, 0xfe, 0xed})
	out := "`keytool -importkeystore -srckeystore STORE -destkeystore store.p12 -deststoretype PKCS12`, then "
	if !jks {
		out = ""
	}
	what := "-nokeys"
	if strings.HasSuffix(prefix, "keystore") {
		what = "-nodes"
	}
	in := "store.p12"
	if !jks {
		in = "STORE"
	}
	return out + "`openssl pkcs12 -in " + in + " " + what + " -out store.pem`, and set " + prefix + ".type=PEM"
}

// oneLinePEM repairs a PEM block whose line breaks became spaces, as happens
// to a property that is written on one line; Java accepts those (KIP-651).
func oneLinePEM(s string) []byte {
	s = strings.TrimSpace(s)
	if s == "" || strings.Contains(s, "\n") {
		return []byte(s)
	}
	for _, mark := range []string{"-----BEGIN ", "-----END "} {
		s = strings.ReplaceAll(s, mark, "\n"+mark)
	}
	var b strings.Builder
	for line := range strings.SplitSeq(s, "\n") {
		if rest, isBegin := strings.CutPrefix(line, "-----BEGIN "); isBegin {
			head, body, _ := strings.Cut(rest, "-----")
			line = "-----BEGIN " + head + "-----\n" + strings.Join(strings.Fields(body), "\n")
		}
		b.WriteString(strings.TrimSpace(line) + "\n")
	}
	return []byte(b.String())
}
