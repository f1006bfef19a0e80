package config

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// mustParse fails the test on an error.
func mustParse(t *testing.T, args []string, env ...string) *Command {
	t.Helper()
	cmd, err := Parse(args, env, io.Discard)
	if err != nil {
		t.Fatalf("Parse(%q, %q): %v", args, env, err)
	}
	return cmd
}

// wantError fails the test unless Parse refuses with a message that holds every part.
func wantError(t *testing.T, args, env []string, parts ...string) {
	t.Helper()
	_, err := Parse(args, env, io.Discard)
	var usage *UsageError
	if !errors.As(err, &usage) {
		t.Fatalf("Parse(%q, %q) = %v, want a *UsageError", args, env, err)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("Parse(%q, %q):\n%v\nlacks %q", args, env, err, part)
		}
	}
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kkv.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// words splits a command line on spaces.
func words(line string) []string { return strings.Fields(line) }

func TestParseBytes(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "1000000": 1e6, "500MB": 500e6, "500 mb": 500e6, "2GiB": 2 << 30, "1.5Gi": 3 << 29, "64k": 64e3, "7B": 7} {
		if got, err := ParseBytes(text); err != nil || got != want {
			t.Errorf("ParseBytes(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "MB", "-1", "1XB", "1e300", "NaN", "auto", "0x10"} {
		if got, err := ParseBytes(text); err == nil {
			t.Errorf("ParseBytes(%q) = %d", text, got)
		}
	}
}

func TestDefaults(t *testing.T) {
	got := mustParse(t, words("serve --topic orders --kafka-bootstrap kafka:9092"))
	want := &Serve{
		Kafka: Kafka{Bootstrap: []string{"kafka:9092"}}, Topic: "orders", Listen: ":8080",
		CreateTopicPartitions: 3, CreateTopicReplication: -1, Isolation: "read_committed", Consistency: "local", MaxBytes: "auto", WhenKafkaAway: "serve", ListTimeout: time.Minute, Drain: 5 * time.Second, OnUpdateAfterOffset: "latest",
		WebhookBody: "v1", WebhookLookback: time.Minute, OnUpdatePath: "/kafka-keyvalue/v1/updates", TargetStaticPort: 8080, TargetServicePort: 8080,
		InformerResyncPeriod: 5 * time.Minute, KubeAccountDir: "/var/run/secrets/kubernetes.io/serviceaccount", DispatcherRetryBackoff: time.Second, Log: Log{LogFormat: "text", LogLevel: "info"},
	}
	if diff := cmp.Diff(want, got.Settings); got.Name != "serve" || diff != "" {
		t.Errorf("%s: -want +got\n%s", got.Name, diff)
	}
	wantGateway := &Gateway{Kafka: Kafka{Bootstrap: []string{"kafka:9092"}}, Listen: ":19092", Cluster: "default", Partitioner: "murmur2", Log: want.Log}
	if diff := cmp.Diff(wantGateway, mustParse(t, words("gateway --kafka-bootstrap kafka:9092")).Settings); diff != "" {
		t.Errorf("gateway: -want +got\n%s", diff)
	}
	wantDev := &Dev{
		DemoListen: "127.0.0.1:8080", CacheListen: "127.0.0.1:8091", Replicas: 2, ReplicaListen: "127.0.0.1:8094", GatewayListen: "127.0.0.1:8092",
		KafkaListen: "127.0.0.1:9092", Topic: "sidecar-demo", Partitions: 3, Log: want.Log,
	}
	if diff := cmp.Diff(wantDev, mustParse(t, words("dev")).Settings); diff != "" {
		t.Errorf("dev: -want +got\n%s", diff)
	}
	wantDemo := &Demo{Listen: ":8080", Server: []string{"http://127.0.0.1:8091"}, Log: want.Log}
	if diff := cmp.Diff(wantDemo, mustParse(t, words("demo")).Settings); diff != "" {
		t.Errorf("demo: -want +got\n%s", diff)
	}
}

func TestPrecedence(t *testing.T) {
	path := writeFile(t, "topic: from-file\nkafka-bootstrap: [a:1, b:2]\n")
	file := []string{"serve", "--config", path}
	for _, tc := range []struct {
		args  []string
		env   []string
		topic string
		from  string
	}{
		{file, nil, "from-file", "file " + path + ":1"},
		{file, []string{"KKV_TOPIC="}, "from-file", "file " + path + ":1"},
		{file, []string{"KKV_TOPIC=from-env"}, "from-env", "environment KKV_TOPIC"},
		{file, []string{"topic=from-env"}, "from-env", "environment topic"},
		{append(file, "--topic=from-flag"), []string{"KKV_TOPIC=from-env"}, "from-flag", "flag --topic"},
		{append(file, "-Dtopic=from-property"), []string{"KKV_TOPIC=from-env"}, "from-property", "argument -Dtopic"},
		{[]string{"--config", path, "serve"}, nil, "from-file", "file " + path + ":1"},
		{[]string{"serve"}, []string{"KKV_CONFIG=" + path}, "from-file", "file " + path + ":1"},
		// A lower level is not looked at: its quarrels do no harm.
		{append(file, "--topic=from-flag"), []string{"KKV_TOPIC=a", "KAFKA_INCOMING_TOPIC=b"}, "from-flag", "flag --topic"},
	} {
		cmd := mustParse(t, tc.args, tc.env...)
		if got := cmd.Settings.(*Serve).Topic; got != tc.topic || cmd.Sources["topic"].String() != tc.from {
			t.Errorf("Parse(%q, %q): topic %q from %q, want %q from %q", tc.args, tc.env, got, cmd.Sources["topic"], tc.topic, tc.from)
		}
	}
}

// TestOldNames is the contract's list of names, each with a value that is not the default.
func TestOldNames(t *testing.T) {
	for _, tc := range []struct {
		env  string // several separated by spaces
		want func(*Serve)
	}{
		{"KAFKA_BOOTSTRAP=k:9092,l:9092", func(s *Serve) { s.Bootstrap = []string{"k:9092", "l:9092"} }},
		{"kafka_bootstrap=k:9092", func(s *Serve) { s.Bootstrap = []string{"k:9092"} }},
		{"KAFKA_INCOMING_TOPIC=t", func(s *Serve) { s.Topic = "t" }},
		{"topic=t", func(s *Serve) { s.Topic = "t" }},
		{"topic=t KKV_TOPIC=t KAFKA_INCOMING_TOPIC=t", func(s *Serve) { s.Topic = "t" }},
		{"KAFKA_GROUP_ID=g", func(s *Serve) { s.KafkaGroupID = "g" }},
		{"kafka_group_id=g", func(s *Serve) { s.KafkaGroupID = "g" }},
		{"kafka_max_poll_records=7", func(s *Serve) { s.KafkaMaxPollRecords = "7" }},
		{"ONUPDATE_AFTER_OFFSET=earliest", func(s *Serve) { s.OnUpdateAfterOffset = "earliest" }},
		{"kafka_offset_reset=earliest", func(s *Serve) { s.OnUpdateAfterOffset = "earliest" }},
		{"ON_UPDATE_PATH=/x", func(s *Serve) { s.OnUpdatePath = "/x" }},
		{"TARGET_SERVICE_NAME=app TARGET_SERVICE_PORT=81", func(s *Serve) { s.TargetServiceName, s.TargetServicePort = "app", 81 }},
		{"TARGET_SERVICE_PORT=81", func(*Serve) {}},                                             // Kubernetes, for a service named target
		{"TARGET_SERVICE_PORT=nonsense TARGET_PORT=tcp://10.0.0.1:80", func(*Serve) {}},         // the same
		{"TARGET_STATIC_PORT=tcp://10.0.0.1:80", func(*Serve) {}},                               // one named target-static
		{"TOPIC=x TARGET=http://x target_1=http://x targets=http://x Topic=x", func(*Serve) {}}, // names are exact
		{"TARGET_SERVICE_NAMESPACE=ns", func(s *Serve) { s.TargetServiceNamespace = "ns" }},
		{"INFORMER_RESYNC_PERIOD=PT1M30S", func(s *Serve) { s.InformerResyncPeriod = 90 * time.Second }},
		{"INFORMER_RESYNC_PERIOD=7m", func(s *Serve) { s.InformerResyncPeriod = 7 * time.Minute }},
		{"INFORMER_RESYNC_PERIOD=90", func(s *Serve) { s.InformerResyncPeriod = 90 * time.Second }},
		{"TARGET_STATIC_HOST=app TARGET_STATIC_PORT=82", func(s *Serve) { s.TargetStaticHost, s.TargetStaticPort = "app", 82 }},
		{"DISPATCHER_RETRY_BACKOFF_SECONDS=3", func(s *Serve) { s.DispatcherRetryBackoff = 3 * time.Second }},
		{"DISPATCHER_RETRY_TIMES=5", func(s *Serve) { s.DispatcherRetryTimes = "5" }},
		{"QUARKUS_HTTP_PORT=8091", func(s *Serve) { s.Listen = ":8091" }},
		{"QUARKUS_HTTP_PORT=8091 KKV_LISTEN=:8091", func(s *Serve) { s.Listen = ":8091" }},
		{"target10=http://c target=http://a/,b target2=http://b target3=", func(s *Serve) {
			s.WebhookTarget = []string{"http://a/,b", "http://b", "http://c"}
		}},
	} {
		want := mustParse(t, words("config serve")).Settings.(*Serve)
		tc.want(want)
		cmd := mustParse(t, words("config serve"), words(tc.env)...)
		if diff := cmp.Diff(want, cmd.Settings); diff != "" || len(cmd.Warnings) > 0 {
			t.Errorf("%s: warnings %q, -want +got\n%s", tc.env, cmd.Warnings, diff)
		}
	}
}

func TestOldNamesAreForServe(t *testing.T) {
	env := []string{"KAFKA_BOOTSTRAP=k:9092", "topic=t", "QUARKUS_HTTP_PORT=1", "target=http://x"}
	want := mustParse(t, words("dev")).Settings
	if diff := cmp.Diff(want, mustParse(t, words("dev"), env...).Settings); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	wantError(t, words("dev -Dquarkus.http.port=1"), nil, "-Dquarkus.http.port", "kkv serve alone")
}

func TestNoCommand(t *testing.T) {
	const kafka = "kafka_bootstrap=k:9092"
	cmd := mustParse(t, words("-Dquarkus.http.port=8091 -Xmx64m -Djava.awt.headless=true"), kafka, "topic=t")
	want := mustParse(t, words("serve --listen :8091 --topic t --kafka-bootstrap k:9092"))
	if diff := cmp.Diff(want.Settings, cmd.Settings); cmd.Name != "serve" || diff != "" {
		t.Errorf("%s: -want +got\n%s", cmd.Name, diff)
	}
	if diff := cmp.Diff([]string{"arguments for a Java virtual machine, ignored: -Xmx64m, -Djava.awt.headless"}, cmd.Warnings); diff != "" {
		t.Errorf("warnings: -want +got\n%s", diff)
	}
	if cmd := mustParse(t, nil, kafka, "KAFKA_INCOMING_TOPIC=t"); cmd.Name != "serve" {
		t.Errorf("KAFKA_INCOMING_TOPIC alone means %s", cmd.Name)
	}
	if cmd := mustParse(t, words("--listen :1"), kafka, "topic=t"); cmd.Settings.(*Serve).Listen != ":1" {
		t.Errorf("flags without a command: %+v", cmd.Settings)
	}
	// The environment of the original does not get in the way of another command.
	if cmd := mustParse(t, words("gateway --listen :1 --kafka-bootstrap k:1"), "topic=t"); cmd.Name != "gateway" {
		t.Errorf("gateway means %s", cmd.Name)
	}
	wantError(t, nil, nil, "Usage: kkv <command>")
	wantError(t, nil, []string{"KKV_TOPIC=t"}, "Usage: kkv <command>")
	wantError(t, words("srve"), []string{"topic=t"}, `unknown command "srve"`, `"serve"`)
}

func TestJavaProperties(t *testing.T) {
	cmd := mustParse(t, []string{"-Dkafka.bootstrap=k:9092", "-Dkafka-incoming-topic=t", "-Dtarget=http://a", "-Dtarget1=http://b",
		"-Dquarkus.http.port=1", "-Dquarkus.http.port=2", "-Dflag"})
	got := cmd.Settings.(*Serve)
	want := mustParse(t, words("serve --kafka-bootstrap k:9092 --topic t --webhook-target http://a,http://b --listen :2")).Settings
	if diff := cmp.Diff(want, cmd.Settings); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if len(cmd.Warnings) != 1 || !strings.HasSuffix(cmd.Warnings[0], ": -Dflag") {
		t.Errorf("warnings %q", cmd.Warnings)
	}
	if from := cmd.Sources["webhook-target"].String(); from != "argument -Dtarget,-Dtarget1" {
		t.Errorf("webhook-target %q from %q", got.WebhookTarget, from)
	}
}

func TestErrors(t *testing.T) {
	ok := words("serve --topic t --kafka-bootstrap k:1")
	serve := func(line string) []string { return append(ok[:len(ok):len(ok)], words(line)...) }
	for _, tc := range []struct {
		args  []string
		env   string
		parts []string
	}{
		{serve("--tpic x"), "", []string{"kkv serve: ", "--tpic", `"--topic"`, `"kkv serve --help"`}},
		{words("--topic x serve"), "", []string{"--topic belongs to a command"}},
		{words("sevre"), "", []string{`unknown command "sevre"`, `"serve"`}},
		{words("config gatewy"), "", []string{`unknown command "gatewy"`, `"gateway"`}},
		{serve("more"), "", []string{"unexpected argument more"}},
		{serve("--listen"), "", []string{"--listen: needs a value"}},
		{words("serve"), "", []string{
			"topic: is not set: set --topic, KKV_TOPIC or KAFKA_INCOMING_TOPIC to the topic to serve",
			"kafka-bootstrap: is not set: set --kafka-bootstrap, KKV_KAFKA_BOOTSTRAP or KAFKA_BOOTSTRAP",
		}},
		{words("gateway"), "", []string{"kafka-bootstrap: is not set: set --kafka-bootstrap or KKV_KAFKA_BOOTSTRAP to"}},
		{serve("--listen 8080"), "", []string{`listen (flag --listen): "8080" is not an address`, "or :port"}},
		{serve("--listen :99999"), "", []string{`"99999"`, "0 to 65535"}},
		{serve("--target-static-port x"), "", []string{`--target-static-port: "x" is not a whole number`}},
		{serve("--create-topic-replication=40000"), "", []string{"out of range"}},
		{serve("--create-topic-replication=0"), "", []string{"or -1"}},
		{serve("--informer-resync-period 5"), "", []string{`"5" is not a duration with a unit`}},
		{serve("--dispatcher-retry-backoff=-1s"), "", []string{"is negative"}},
		{serve("--on-update-path x"), "", []string{"does not start with /"}},
		{serve("--target-static-host http://app"), "", []string{"is not a host"}},
		{serve("--webhook-target ftp://x"), "", []string{"http:// or https://"}},
		{serve("--webhook-target http://x:0/"), "", []string{`port "0"`}},
		{serve("--webhook-target app:8080"), "", []string{"webhook-target"}},
		{serve("--isolation none"), "", []string{`"none" is unknown: use read_committed or read_uncommitted`}},
		{words("serve --topic a/b --kafka-bootstrap kafka"), "", []string{"not a legal topic name", "is not a broker's address"}},
		{words("serve --topic .. --kafka-bootstrap SSL://k:1"), "", []string{"not a legal topic name", "has a scheme", "security.protocol"}},
		{ok, "KKV_TARGET_STATIC_PORT=x KKV_LISTEN=y KKV_WRITABLE=maybe", []string{
			`target-static-port (environment KKV_TARGET_STATIC_PORT): "x"`, `listen (environment KKV_LISTEN): "y"`,
			`writable (environment KKV_WRITABLE): "maybe" is neither true nor false`, `"kkv config serve"`,
		}},
		{ok, "QUARKUS_HTTP_PORT=eighty", []string{`(environment QUARKUS_HTTP_PORT): "eighty" is not a port`}},
		{ok, "TARGET_SERVICE_NAME=app TARGET_SERVICE_PORT=http", []string{`target-service-port (environment TARGET_SERVICE_PORT): "http"`}},
		{words("serve --kafka-bootstrap k:1"), "KKV_TOPIC=a topic=b", []string{`KKV_TOPIC="a" and topic="b" differ`, "keep one"}},
		{ok, "target=http://a KKV_WEBHOOK_TARGET=http://b", []string{`KKV_WEBHOOK_TARGET="http://b" and target="http://a" differ`}},
		{serve("-Dtopic=u"), "", []string{`--topic="t" and -Dtopic="u" differ`}},
		{serve("--config /does/not/exist.yaml"), "", []string{"config (flag --config): open /does/not/exist.yaml", "readable YAML file"}},
		{ok, "KKV_CONFIG=/does/not/exist.yaml", []string{"config (environment KKV_CONFIG)"}},
	} {
		wantError(t, tc.args, words(tc.env), tc.parts...)
	}
	_, err := Parse(ok, []string{"KKV_LISTEN=x"}, io.Discard)
	var faults Faults
	if !errors.As(err, &faults) || len(faults) != 1 || faults[0].Setting != "listen" || faults[0].From.Kind != FromEnv {
		t.Errorf("faults as data: %#v", faults)
	}
}

func TestFileErrors(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"topci: x", `unknown key "topci" in FILE:1: did you mean topic?`},
		{"kafka_bootstrap: x:1", "did you mean kafka-bootstrap?"},
		{"topic: t\ncluster: x", `unknown key "cluster" in FILE:2: it belongs to kkv gateway`},
		{"kafka:\n  bootstrap: x", `unknown key "kafka"`},
		{"topic: t\ntopic: u", `FILE:2 has "topic" a second time, after line 1`},
		{"topic: [t]", "topic (file FILE:1): is a list"},
		{"topic: {a: b}", "topic (file FILE:1): is a mapping"},
		{"topic:", "topic (file FILE:1): has no value"},
		{"kafka-bootstrap: [{a: b}]", "list plain values"},
		{"target-static-port: x", `target-static-port (file FILE:1): "x" is not a whole number`},
		{"\n\nlisten: 1", `listen (file FILE:3): "1" is not an address`},
		{"- a", "FILE:1 is not a mapping"},
		{"topic: t\n---\ntopic: u", "more than one YAML document"},
		{"topic: \"t", "FILE is not YAML: "},
	} {
		path := writeFile(t, tc.text)
		wantError(t, []string{"serve", "--config", path}, nil, strings.ReplaceAll(tc.want, "FILE", path))
	}
	for _, text := range []string{"", "# nothing\n", "---\n", "{}"} {
		mustParse(t, append(words("serve --topic t --kafka-bootstrap k:1 --config"), writeFile(t, text)))
	}
}

func TestWarnings(t *testing.T) {
	cmd := mustParse(t, words("dev"), "KKV_TOPICS=x", "KKV_ZZZ=x", "kkv_lower=x", "KKVX=x", "KKV_CLUSTER=of-gateway",
		"KKV_FETCH_RETRY=x", "KKV_CACHE_HOST_READINESS_ENDPOINT=x", "KKV_PORT=tcp://10.0.0.1:80", "KKV_PORT_80_TCP_ADDR=x",
		"KKV_SERVICE_HOST=x", "KKV_SERVICE_PORT_HTTP=x", "KKV_TEST_KAFKA=x", "KKV_GATEWAY_SERVICE_HOST=x", "KKV_GATEWAY_PORT=tcp://10.0.0.2:80",
		"KKV_GATEWAY_PORT_80_TCP_PROTO=tcp")
	want := []string{"unknown environment variables, ignored: KKV_TOPICS (did you mean KKV_TOPIC?), KKV_ZZZ"}
	if diff := cmp.Diff(want, cmd.Warnings); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, line := range []string{"--help", "-h", "serve --help", "config --help", "serve --help --nope"} {
		var out bytes.Buffer
		cmd, err := Parse(words(line), []string{"topic=t"}, &out)
		if err != nil || cmd.Name != "help" || !strings.HasPrefix(out.String(), "Usage: kkv ") {
			t.Errorf("%s: %v, %v\n%s", line, cmd, err, out.String())
		}
	}
	var out bytes.Buffer
	if _, err := Parse(words("serve --help"), nil, &out); err != nil || !strings.Contains(out.String(), "[KKV_TOPIC]") {
		t.Errorf("the help lacks environment names: %v\n%s", err, out.String())
	}
	if cmd := mustParse(t, words("--version"), "topic=t"); cmd.Name != "version" {
		t.Errorf("--version means %s", cmd.Name)
	}
	if cmd := mustParse(t, words("config --docs")); cmd.Name != "docs" {
		t.Errorf("config --docs means %s", cmd.Name)
	}
}

func TestTargets(t *testing.T) {
	s := mustParse(t, words("serve --topic a.b --kafka-bootstrap k:1 --webhook-target http://x/__TOPIC__/__TOPIC__ --target-static-host ::1 --target-static-port 81 --on-update-path /p?q=1")).Settings.(*Serve)
	if diff := cmp.Diff([]string{"http://x/a.b/a.b", "http://[::1]:81/p?q=1"}, s.Targets()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestPositionWithHyphen: a position is base64url at its front, and may look like a flag.
func TestPositionWithHyphen(t *testing.T) {
	const position = "-WXxxKlccoMjHUjYobYMmQ~mwv94ekk~0-.1"
	cmd, err := Parse([]string{"get", "--at-least", position, "--at-least", "-_" + position, "key"}, nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if got := cmd.Settings.(*Get); got.Key != "key" || !slices.Equal(got.AtLeast, []string{position, "-_" + position}) {
		t.Errorf("%+v", got)
	}
	cmd, err = Parse([]string{"watch", "--since", position}, nil, io.Discard)
	if err != nil || cmd.Settings.(*Watch).Since != position {
		t.Errorf("%+v %v", cmd, err)
	}
	if _, err := Parse([]string{"get", "--at-least", "--fresh", "key"}, nil, io.Discard); err == nil {
		t.Error("--at-least took a flag for its value")
	}
}

// Endpoints are IP addresses of either family; a query or an escape in the path stays what it is.
func TestEndpointURL(t *testing.T) {
	s := &Serve{TargetServicePort: 8080, OnUpdatePath: "/a%2Fb?c=d"}
	for ip, want := range map[string]string{"10.0.0.1": "http://10.0.0.1:8080/a%2Fb?c=d", "fd00::1": "http://[fd00::1]:8080/a%2Fb?c=d"} {
		if got := s.EndpointURL(ip); got != want {
			t.Errorf("EndpointURL(%s) = %s, want %s", ip, got, want)
		}
	}
}
