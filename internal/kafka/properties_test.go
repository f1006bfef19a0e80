package kafka

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseProperties(t *testing.T) {
	text := strings.Join([]string{
		"# comment", "  ! comment", "", "a=1", "b : 2", "c 3", "  d\t=\t4 ", "e", "f=", "g==x", "h=a=b:c",
		`i=one, \`, `   two, \`, `	three`, `j\ k\=l=v`, `m=\u00e5\uD83D\uDE00\t\\`, "n=crlf\r", `o=a\\`, `p=\q`, `# not continued \`, "r=5", "a=again", `z=end \`,
	}, "\n")
	want := map[string]string{
		"a": "again", "b": "2", "c": "3", "d": "4 ", "e": "", "f": "", "g": "=x", "h": "a=b:c", "i": "one, two, three", "j k=l": "v",
		"m": "å😀\t\\", "n": "crlf", "o": `a\`, "p": "q", "r": "5", "z": "end ",
	}
	got, err := parseProperties(text)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for _, bad := range []string{`a=\u12`, `a=\uzzzz`, "=x"} {
		if _, err := parseProperties(bad); err == nil || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzParseProperties(f *testing.F) {
	f.Add("a=1\nb\\\n c\\u0041")
	f.Fuzz(func(t *testing.T, text string) { parseProperties(text) })
}

func TestLoadProperties(t *testing.T) {
	file := writeFile(t, filepath.Join(t.TempDir(), "client.properties"), "client.id=a\nsecurity.protocol=SSL\n")
	got, err := LoadProperties(file, []string{"client.id=b", "sasl.jaas.config=x a=b;"})
	want := map[string]string{"client.id": "b", "security.protocol": "SSL", "sasl.jaas.config": "x a=b;"}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	if _, err := LoadProperties(file+"x", nil); err == nil {
		t.Error("no such file: no error")
	}
	for _, bad := range []string{"x", "=x", ""} {
		if _, err := LoadProperties("", []string{bad}); err == nil {
			t.Errorf("override %q was taken", bad)
		}
	}
}

func TestOptionsErrors(t *testing.T) {
	dir := t.TempDir()
	jks := writeFile(t, filepath.Join(dir, "x.jks"), "\xfe\xed\xfe\xed....")
	p12 := writeFile(t, filepath.Join(dir, "x.p12"), "\x30\x82....")
	encrypted := writeFile(t, filepath.Join(dir, "enc.pem"), "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
	sasl := func(more string) string {
		return "security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\n" + more
	}
	for _, c := range []struct{ properties, want string }{
		{"sasl.mechanizm=PLAIN", "sasl.mechanizm is not supported"},
		{"ssl.ca.location=/x", "ssl.truststore.location"},
		{"security.protocol=TLS", "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"},
		{"security.protocol=SASL_SSL", "sasl.mechanism is missing"},
		{"sasl.mechanism=PLAIN", "set security.protocol=SASL_SSL"},
		{"ssl.truststore.location=/x", "set security.protocol=SSL"},
		{"security.protocol=SASL_SSL\nsasl.mechanism=GSSAPI", "GSSAPI is not supported"},
		{sasl(""), "credentials are missing"},
		{sasl("sasl.username=a\nsasl.password=${file:" + dir + "/none}"), "none"},
		{sasl("sasl.username=a\nsasl.password=${file:" + encrypted + ":key}"), `no property "key"`},
		{sasl(`sasl.jaas.config=a.ScramLoginModule required username="hunter1" password="hunter2"`), "semicolon"},
		{sasl(`sasl.jaas.config=a.ScramLoginModule username="hunter1" password="hunter2";`), "required"},
		{sasl(`sasl.jaas.config=a.ScramLoginModule required username="hunter1 password=hunter2;`), "quote"},
		{sasl(`sasl.jaas.config=a.Krb5LoginModule required password=hunter2;`), "does not fit"},
		{"security.protocol=SSL\nssl.truststore.location=" + dir + "/none.pem", "no such file"},
		{"security.protocol=SSL\nssl.truststore.location=" + jks, "keytool -importkeystore"},
		{"security.protocol=SSL\nssl.truststore.type=PKCS12\nssl.truststore.location=" + p12, "openssl pkcs12"},
		{"security.protocol=SSL\nssl.keystore.type=PEM\nssl.keystore.location=" + encrypted, "openssl pkcs8"},
		{"security.protocol=SSL\nssl.truststore.certificates=nonsense", "no PEM certificate"},
		{"security.protocol=SSL\nssl.keystore.key=x", "ssl.keystore.certificate.chain"},
		{"security.protocol=SSL\nssl.enabled.protocols=SSLv3", "TLSv1.2"},
		{"security.protocol=SSL\nssl.endpoint.identification.algorithm=ldap", "https"},
		{"request.timeout.ms=soon", "milliseconds"},
		{"isolation.level=read_uncommitted", "read_committed"},
		{"security.protocol=SASL_SSL\nsasl.mechanism=OAUTHBEARER", "token.endpoint.url is missing"},
		{"security.protocol=SASL_SSL\nsasl.mechanism=OAUTHBEARER\nsasl.oauthbearer.token.endpoint.url=https://x/t", "clientId"},
		{"security.protocol=SASL_SSL\nsasl.mechanism=OAUTHBEARER\nsasl.oauthbearer.token.endpoint.url=ftp://x", "https:"},
		{"security.protocol=SASL_SSL\nsasl.mechanism=OAUTHBEARER\nsasl.login.callback.handler.class=software.amazon.msk.Iam", "no Java classes"},
	} {
		props, err := parseProperties(c.properties)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Config{Bootstrap: []string{"localhost:9092"}, Properties: props}.Options()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: got %v, want one with %q", c.properties, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter") {
			t.Errorf("an error tells the secret: %v", err)
		}
	}
}

func TestOptionsAccepted(t *testing.T) {
	props, err := parseProperties(`
bootstrap.servers = a:9092, b:9092
client.id = me
group.id = g
auto.offset.reset=earliest
isolation.level=read_committed
acks=1
key.serializer=org.apache.kafka.common.serialization.StringSerializer
request.timeout.ms=30000
connections.max.idle.ms=60000
metadata.max.age.ms=1000
`)
	if err != nil {
		t.Fatal(err)
	}
	cl, err := NewClient(Config{Properties: props})
	if err != nil {
		t.Fatal(err)
	}
	cl.Close()
	for _, bad := range [][]string{nil, {"localhost"}, {"localhost:kafka"}, {"a:1,b:2"}} {
		if _, err := (Config{Bootstrap: bad}).Options(); err == nil {
			t.Errorf("bootstrap %q was taken", bad)
		}
	}
}
