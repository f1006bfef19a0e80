package kafka

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// reach makes a client and asks for a topic's metadata, in the bubble's time.
func (f *fake) reach(props map[string]string) error {
	f.t.Helper()
	cl, err := NewClient(f.config(props))
	if err != nil {
		return err
	}
	defer cl.Close()
	_, err = Metadata(within(f.t, 5*time.Second), cl, "t")
	return err
}

func TestSASLPassword(t *testing.T) {
	module := map[string]string{"PLAIN": "plain.Plain", "SCRAM-SHA-256": "scram.Scram", "SCRAM-SHA-512": "scram.Scram"}
	for mechanism := range module {
		bubble(t, func(t *testing.T) {
			f := newFake(t, kfake.SeedTopics(1, "t"), kfake.EnableSASL(), kfake.Superuser(mechanism, "alice", `pa"ss=;`))
			base := map[string]string{"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": mechanism}
			jaas := maps.Clone(base)
			jaas["sasl.jaas.config"] = "org.apache.kafka.common.security." + module[mechanism] + `LoginModule required username="alice" password="pa\"ss=;";`
			if err := f.reach(jaas); err != nil {
				t.Errorf("%s by sasl.jaas.config: %v", mechanism, err)
			}
			file := filepath.Join(t.TempDir(), "password")
			writeFile(t, file, `pa"ss=;`+"\n")
			files := maps.Clone(base)
			files["sasl.username"], files["sasl.password"] = "alice", "${file:"+file+"}"
			if err := f.reach(files); err != nil {
				t.Errorf("%s by files: %v", mechanism, err)
			}
			// kfake drops the connection of a wrong password; Kafka answers.
			f.c.ControlKey(int16(kmsg.SASLAuthenticate), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
				f.c.KeepControl()
				resp := kreq.ResponseKind().(*kmsg.SASLAuthenticateResponse)
				resp.ErrorCode = kerr.SaslAuthenticationFailed.Code
				resp.ErrorMessage = kmsg.StringPtr("Authentication failed: Invalid username or password")
				return resp, nil, true
			})
			writeFile(t, file, "wrong")
			err := f.reach(files)
			if Classify(err) != Fatal || !strings.Contains(err.Error(), "Invalid username or password") || Hint(err) == "" {
				t.Errorf("%s with a wrong password: %v is %v", mechanism, err, Classify(err))
			}
		})
	}
}

// A password that is changed in its file is used by the next connection.
func TestSASLPasswordRotates(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(t, kfake.SeedTopics(1, "t"), kfake.EnableSASL(), kfake.Superuser("PLAIN", "alice", "new"))
		file := filepath.Join(t.TempDir(), "secrets.properties")
		writeFile(t, file, "kafka.password = old\n")
		cl, err := NewClient(f.config(map[string]string{
			"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN",
			"sasl.jaas.config": `org.apache.kafka.common.security.plain.PlainLoginModule required username="alice" password="${file:` + file + `:kafka.password}";`,
		}))
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		if _, err := Metadata(within(t, 3*time.Second), cl, "t"); err == nil || Classify(err) != Retry {
			t.Fatalf("with the old password: %v", err)
		}
		writeFile(t, file, "kafka.password = new\n")
		if _, err := Metadata(within(t, 3*time.Second), cl, "t"); err != nil {
			t.Errorf("with the new one: %v", err)
		}
	})
}

func TestSASLMissing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(t, kfake.SeedTopics(1, "t"), kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "alice", "secret"))
		if err := f.reach(nil); err == nil || Classify(err) != Retry || !strings.Contains(Hint(err), "security.protocol") {
			t.Errorf("no SASL where it is needed: %v (hint %q)", err, Hint(err))
		}
	})
}

// A connection that fails is for the caller to tell of, not for kgo to repeat in the log at every try.
func TestFailedConnectionsAreNotLogged(t *testing.T) {
	for _, key := range []kmsg.Key{kmsg.ApiVersions, kmsg.SASLAuthenticate} {
		bubble(t, func(t *testing.T) {
			f := newFake(t, kfake.SeedTopics(1, "t"), kfake.EnableSASL(), kfake.Superuser("PLAIN", "alice", "secret"))
			tries := 0
			f.c.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
				f.c.KeepControl()
				tries++
				return nil, errors.New("hang up"), true
			})
			var log bytes.Buffer
			c := f.config(map[string]string{"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "alice", "sasl.password": "secret"})
			c.Logger = slog.New(slog.NewTextHandler(&log, nil))
			cl, err := NewClient(c)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Metadata(within(t, 5*time.Second), cl, "t")
			cl.Close()
			if err == nil || tries == 0 || log.Len() > 0 {
				t.Errorf("%s fails: error %v after %d tries, and the log has\n%s", kmsg.NameForKey(int16(key)), err, tries, &log)
			}
		})
	}
}

func TestHint(t *testing.T) {
	_, refused := net.DialTimeout("tcp", "127.0.0.1:1", time.Second)
	for _, c := range []struct {
		err  error
		want string
	}{
		{refused, "--kafka-bootstrap"},
		{kerr.UnknownTopicOrPartition, "kkv serve --create-topic"},
		{io.EOF, "security.protocol"},
		{kerr.NotLeaderForPartition, ""},
		{nil, ""},
	} {
		if got := Hint(c.err); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("Hint(%v) = %q, want %q in it", c.err, got, c.want)
		}
		if got := Explain(c.err); !errors.Is(got, c.err) || got != nil && !strings.Contains(got.Error(), c.want) {
			t.Errorf("Explain(%v) = %v", c.err, got)
		}
	}
}

// authority makes certificates that are valid in the test's time.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	a.key = newKey(t)
	a.cert = a.sign(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, a.key)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) sign(c *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	a.t.Helper()
	parent := a.cert
	if parent == nil {
		parent = c
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	c.Subject = pkix.Name{CommonName: "test"}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return out
}

func (a *authority) leaf(name string) (keyPEM, certPEM string) {
	key := newKey(a.t)
	cert := a.sign(&x509.Certificate{DNSNames: []string{name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}, key)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return pemOf("PRIVATE KEY", der), pemOf("CERTIFICATE", cert.Raw)
}

func (a *authority) pem() string { return pemOf("CERTIFICATE", a.cert.Raw) }

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func (a *authority) server(name string) *tls.Config {
	key, cert := a.leaf(name)
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		a.t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}}
}

func pemOf(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestTLS(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, other := newAuthority(t), newAuthority(t)
		f := newFake(t, kfake.SeedTopics(1, "t"), kfake.TLS(ca.server("localhost")))
		oneLine := strings.ReplaceAll(strings.TrimSpace(ca.pem()), "\n", " ")
		good := map[string]map[string]string{
			"file":     {"ssl.truststore.type": "PEM", "ssl.truststore.location": writeFile(t, filepath.Join(t.TempDir(), "ca.pem"), ca.pem())},
			"sniffed":  {"ssl.truststore.location": writeFile(t, filepath.Join(t.TempDir(), "ca"), ca.pem())},
			"inline":   {"ssl.truststore.type": "PEM", "ssl.truststore.certificates": ca.pem()},
			"one line": {"ssl.truststore.type": "PEM", "ssl.truststore.certificates": oneLine},
			"1.3 only": {"ssl.truststore.certificates": ca.pem(), "ssl.enabled.protocols": "TLSv1.3"},
		}
		for name, props := range good {
			props["security.protocol"] = "SSL"
			if err := f.reach(props); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		err := f.reach(map[string]string{"security.protocol": "SSL", "ssl.truststore.certificates": other.pem()})
		if Classify(err) != Fatal || !strings.Contains(Hint(err), "ssl.truststore") {
			t.Errorf("another authority: %v is %v", err, Classify(err))
		}
		err = f.reach(map[string]string{"security.protocol": "SSL", "ssl.truststore.certificates": other.pem(), "ssl.endpoint.identification.algorithm": ""})
		if Classify(err) != Fatal {
			t.Errorf("another authority, any host name: %v is %v", err, Classify(err))
		}
	})
}

func TestTLSHostName(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca := newAuthority(t)
		f := newFake(t, kfake.SeedTopics(1, "t"), kfake.TLS(ca.server("elsewhere")))
		props := map[string]string{"security.protocol": "SSL", "ssl.truststore.certificates": ca.pem()}
		if err := f.reach(props); Classify(err) != Fatal {
			t.Errorf("wrong host name: %v is %v", err, Classify(err))
		}
		props["ssl.endpoint.identification.algorithm"] = ""
		if err := f.reach(props); err != nil {
			t.Errorf("any host name: %v", err)
		}
	})
}

func TestMutualTLSWithSASL(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca := newAuthority(t)
		server := ca.server("localhost")
		server.ClientAuth, server.ClientCAs = tls.RequireAndVerifyClientCert, ca.pool()
		f := newFake(t, kfake.SeedTopics(1, "t"), kfake.TLS(server), kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-512", "alice", "secret"))
		base := map[string]string{
			"security.protocol": "SASL_SSL", "ssl.truststore.certificates": ca.pem(),
			"sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "alice", "sasl.password": "secret",
		}
		with := func(more map[string]string) map[string]string {
			out := maps.Clone(base)
			maps.Copy(out, more)
			return out
		}
		key, cert := ca.leaf("client")
		file := writeFile(t, filepath.Join(t.TempDir(), "client.pem"), key+cert)
		if err := f.reach(with(map[string]string{"ssl.keystore.type": "PEM", "ssl.keystore.location": file})); err != nil {
			t.Errorf("key store file: %v", err)
		}
		if err := f.reach(with(map[string]string{"ssl.keystore.key": key, "ssl.keystore.certificate.chain": cert})); err != nil {
			t.Errorf("key store inline: %v", err)
		}
	})
}

// In TLS 1.3 a client hears only after its handshake that its certificate is
// refused. That needs a network which buffers, so this test uses loopback.
func TestMutualTLSRefused(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	server := ca.server("localhost")
	server.ClientAuth, server.ClientCAs = tls.RequireAndVerifyClientCert, ca.pool()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "t"), kfake.TLS(server))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	key, cert := other.leaf("client")
	for name, props := range map[string]map[string]string{
		"no certificate":                 {},
		"another authority's":            {"ssl.keystore.key": key, "ssl.keystore.certificate.chain": cert},
		"another authority's in TLS 1.2": {"ssl.keystore.key": key, "ssl.keystore.certificate.chain": cert, "ssl.enabled.protocols": "TLSv1.2"},
	} {
		maps.Copy(props, map[string]string{
			"security.protocol": "SSL", "ssl.truststore.certificates": ca.pem(), "ssl.endpoint.identification.algorithm": "",
		})
		cl, err := NewClient(Config{Bootstrap: c.ListenAddrs(), Properties: props})
		if err != nil {
			t.Fatal(err)
		}
		_, err = Metadata(within(t, 20*time.Second), cl, "t")
		cl.Close()
		if Classify(err) != Fatal {
			t.Errorf("%s: %v is %v", name, err, Classify(err))
		}
	}
}

func TestPlaintextAgainstTLS(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca := newAuthority(t)
		f := newFake(t, kfake.SeedTopics(1, "t"))
		err := f.reach(map[string]string{"security.protocol": "SSL", "ssl.truststore.certificates": ca.pem()})
		if err == nil || Classify(err) != Retry {
			t.Errorf("TLS to a plain port: %v is %v", err, Classify(err))
		}
	})
}

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		err  error
		want Action
	}{
		{nil, Retry},
		{errors.New("anything"), Retry},
		{context.DeadlineExceeded, Retry},
		{kerr.SaslAuthenticationFailed, Fatal},
		{fmt.Errorf("ingest: %w", kerr.SaslAuthenticationFailed), Fatal},
		{kerr.UnsupportedSaslMechanism, Fatal},
		{kerr.TopicAuthorizationFailed, Fatal},
		{kerr.GroupAuthorizationFailed, Fatal},
		{kerr.ClusterAuthorizationFailed, Fatal},
		{kerr.UnsupportedVersion, Fatal},
		{kerr.InvalidTopicException, Fatal},
		{fmt.Errorf("dial: %w", &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}), Fatal},
		{tls.AlertError(48), Fatal},
		{tls.AlertError(40), Retry}, // handshake failure may be a broker that starts
		{kerr.UnknownTopicID, Reopen},
		{kerr.InconsistentTopicID, Reopen},
		{kerr.OffsetOutOfRange, Reopen},
		{fmt.Errorf("poll: %w", &kgo.ErrDataLoss{Topic: "t"}), Reopen},
		{kerr.UnknownTopicOrPartition, Retry}, // it may be created
		{kerr.NotLeaderForPartition, Retry},
		{kerr.LeaderNotAvailable, Retry},
		{kerr.OffsetNotAvailable, Retry},
		{kerr.KafkaStorageError, Retry},
		{kerr.CorruptMessage, Retry},
		{kerr.RequestTimedOut, Retry},
		{kgo.ErrClientClosed, Retry},
	} {
		if got := Classify(c.err); got != c.want {
			t.Errorf("Classify(%v) = %v, want %v", c.err, got, c.want)
		}
	}
}

func TestClassifyBrokerTooOld(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(t)
		cl, err := NewClient(f.config(nil), kgo.RequestRetries(0))
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		f.c.ControlKey(int16(kmsg.ApiVersions), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
			resp := kreq.ResponseKind().(*kmsg.ApiVersionsResponse)
			key := kmsg.NewApiVersionsResponseApiKey()
			key.ApiKey, key.MinVersion, key.MaxVersion = int16(kmsg.Metadata), 100, 101
			resp.ApiKeys = append(resp.ApiKeys, key)
			return resp, nil, true
		})
		if _, err := Topics(within(t, time.Second), cl); Classify(err) != Fatal {
			t.Errorf("a broker with another Metadata: %v is %v", err, Classify(err))
		}
	})
}

func TestMetadata(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(t, kfake.SeedTopics(3, "t"))
		cl, err := NewClient(f.config(nil))
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		ctx := within(t, time.Minute)
		got, err := Metadata(ctx, cl, "t")
		if err != nil || got.Name != "t" || len(got.Partitions) != 3 || got.ID == [16]byte{} || got.Internal {
			t.Errorf("t: %+v, %v", got, err)
		}
		for i, p := range got.Partitions {
			if p.ID != int32(i) || p.Leader != 0 || len(p.Replicas) == 0 || len(p.ISR) == 0 || p.Err != nil {
				t.Errorf("partition %d: %+v", i, p)
			}
		}
		if _, err := Metadata(ctx, cl, "u"); !errors.Is(err, kerr.UnknownTopicOrPartition) {
			t.Errorf("u: %v", err)
		}
		if err := CreateTopic(ctx, cl, "u", 2, -1, map[string]string{"cleanup.policy": "compact"}); err != nil {
			t.Fatal(err)
		}
		if err := CreateTopic(ctx, cl, "u", 5, -1, nil); err != nil {
			t.Errorf("it exists already: %v", err)
		}
		if err := CreateTopic(ctx, cl, "a/b", 1, -1, nil); !errors.Is(err, kerr.InvalidTopicException) {
			t.Errorf("illegal name: %v", err)
		}
		// Not cached: the topic is seen at once, also when made anew.
		first, err := Metadata(ctx, cl, "u")
		if err != nil || len(first.Partitions) != 2 {
			t.Errorf("u: %+v, %v", first, err)
		}
		f.c.DeleteTopic("u")
		f.c.CreateTopic("u", 1, map[string]string{"cleanup.policy": "compact"})
		if second, err := Metadata(ctx, cl, "u"); err != nil || second.ID == first.ID || len(second.Partitions) != 1 {
			t.Errorf("u made anew: %+v, %v", second, err)
		}
		all, err := Topics(ctx, cl)
		if err != nil || len(all) != 2 || all[0].Name != "t" || all[1].Name != "u" {
			t.Errorf("all: %+v, %v", all, err)
		}
		configs, err := TopicConfigs(ctx, cl, []string{"t", "u"})
		if err != nil || configs["u"]["cleanup.policy"] != (TopicConfig{"compact", true}) || configs["t"]["cleanup.policy"].Set {
			t.Errorf("configs: %v, %v", configs["u"]["cleanup.policy"], err)
		}
	})
}

func TestLoggerSilentByDefault(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(t, kfake.SeedTopics(1, "t"))
		var log bytes.Buffer
		c := f.config(nil)
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		p, err := NewProducer(c)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if _, err := p.Produce(within(t, time.Second), Message{Topic: "t", Partition: -1}); err != nil {
				t.Error(err)
			}
		}
		if err := p.Close(t.Context()); err != nil || log.Len() > 0 {
			t.Errorf("%v; normal operation logged:\n%s", err, log.String())
		}
	})
}
