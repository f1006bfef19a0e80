package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/kkv-project/kkv/test/apachekafka"
	"github.com/kkv-project/kkv/test/harness"
	"github.com/kkv-project/kkv/test/process"
)

// certificate makes a key and a certificate for 127.0.0.1, signed by the parent or, if that is nil, by itself.
func certificate(t *testing.T, parent *tls.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	signer, by := any(key), c
	if parent == nil {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
	} else {
		signer, by = parent.PrivateKey, parent.Leaf
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// pemFile writes the certificate, and its key if asked for, and returns the file's name.
func pemFile(t *testing.T, name string, c tls.Certificate, withKey bool) string {
	t.Helper()
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})
	if withKey {
		der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
	}
	return file(t, name, string(text))
}

func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestSecureKafka: every command that talks to Kafka does so with TLS, a certificate of its own and SASL, told by a
// client.properties file or by properties, the password in a file.
func TestSecureKafka(t *testing.T) {
	ca := certificate(t, nil)
	trusted := x509.NewCertPool()
	trusted.AddCert(ca.Leaf)
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-512", "alice", "wonder land"),
		kfake.TLS(&tls.Config{Certificates: []tls.Certificate{certificate(t, &ca)}, ClientCAs: trusted, ClientAuth: tls.RequireAndVerifyClientCert}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	bootstrap := c.ListenAddrs()[0]

	properties := []string{
		"security.protocol=SASL_SSL",
		"ssl.truststore.type=PEM", "ssl.truststore.location=" + pemFile(t, "ca.pem", ca, false),
		"ssl.keystore.type=PEM", "ssl.keystore.location=" + pemFile(t, "client.pem", certificate(t, &ca), true),
		"sasl.mechanism=SCRAM-SHA-512",
		`sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username="alice" password="${file:` +
			file(t, "password", "wonder land\n") + `}";`,
	}
	byFile := []string{"--kafka-config", file(t, "client.properties", strings.Join(properties, "\n"))}
	var byFlag []string
	for _, p := range properties {
		byFlag = append(byFlag, "--kafka-property", p)
	}

	d := harness.StartDev(t, "secure", nil, append([]string{"--kafka-bootstrap", bootstrap}, byFile...)...)
	wantStatus(t, "produce to kkv dev", harness.DoBody(t, d.Gateway, "POST", produceTo("secure", "a"), []byte("1")), 200)
	wantValue(t, "a from kkv dev", harness.Do(t, d.Cache, "GET", raw("a")), "1")
	s := harness.StartServe(t, bootstrap, "secure", nil, append([]string{"--writable"}, byFlag...)...)
	await(t, s, "a", "1")
	wantStatus(t, "PUT to kkv serve", harness.DoBody(t, s.URL, "PUT", native("secure", "b"), []byte("2")), 200)
	// The environment names them, one property a line, as a deployment does.
	g := harness.Kkv(t, []string{"KKV_KAFKA_PROPERTY=" + strings.Join(properties, "\n")}, "gateway", "--kafka-bootstrap", bootstrap, "--listen", "127.0.0.1:0")
	wantStatus(t, "produce to kkv gateway", harness.DoBody(t, listening(t, g), "POST", produceTo("secure", "c"), []byte("3")), 200)
	await(t, s, "c", "3")
	for _, p := range []*process.Process{d.Process, s.Process, g} {
		if strings.Contains(p.Output(), "wonder") {
			t.Errorf("%s printed the password:\n%s", p.Name, p.Output())
		}
	}
}

// TestApacheKafkaWrongPassword: what Kafka calls final ends kkv, with a message that says what to look at. A gateway, which
// connects only once it is asked, says it to those who ask.
func TestApacheKafkaWrongPassword(t *testing.T) {
	b := apachekafka.Start(t, apachekafka.WithUser("alice", "right"))
	b.CreateTopic("t", 1, map[string]string{"cleanup.policy": "compact"})
	login := func(password string) []string {
		return []string{
			"--kafka-bootstrap", b.SASLBootstrap,
			"--kafka-property", "security.protocol=SASL_PLAINTEXT", "--kafka-property", "sasl.mechanism=PLAIN",
			"--kafka-property", fmt.Sprintf(`sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required username="alice" password="%s";`, password),
		}
	}
	for _, args := range [][]string{
		append([]string{"serve", "--topic", "t", "--listen", "127.0.0.1:0"}, login("wrong")...),
		append([]string{"serve", "--topic", "new", "--create-topic", "--listen", "127.0.0.1:0"}, login("wrong")...),
		append(append([]string{"dev", "--topic", "t"}, harness.Loopback...), login("wrong")...),
	} {
		p := harness.Kkv(t, nil, args...)
		if code := p.WaitEnd(t, harness.StartTimeout); code != 1 {
			t.Errorf("%s: ended with %d, want 1", p.Name, code)
		}
		if out := p.Output(); !strings.Contains(out, "Authentication failed") || strings.Count(out, "sasl.jaas.config") != 1 || strings.Contains(out, "wrong") {
			t.Errorf("%s does not say what is wrong, once and without the password:\n%s", p.Name, out)
		}
	}
	base := listening(t, harness.Kkv(t, nil, append([]string{"gateway", "--listen", "127.0.0.1:0"}, login("wrong")...)...))
	res := harness.DoBody(t, base, "POST", produceTo("t", "k"), []byte("v"))
	if res.Status < 500 || !strings.Contains(string(res.Body), "sasl.jaas.config") {
		t.Errorf("produce with a wrong password: %s, want an error that says what to check", res)
	}

	base = listening(t, harness.Kkv(t, nil, append([]string{"gateway", "--listen", "127.0.0.1:0"}, login("right")...)...))
	wantStatus(t, "produce with the right password", harness.DoBody(t, base, "POST", produceTo("t", "k"), []byte("v")), 200)
	s := harness.StartServe(t, b.SASLBootstrap, "t", nil, login("right")[2:]...)
	await(t, s, "k", "v")
}
