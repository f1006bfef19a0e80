package config

import (
	"bytes"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestDocs fails when docs/config.md is not what the settings say.
func TestDocs(t *testing.T) {
	got, err := os.ReadFile("../../docs/config.md")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Docs(), string(got)); diff != "" {
		t.Errorf("docs/config.md has drifted; run\n\tgo run ./cmd/kkv config --docs > docs/config.md\n-want +got\n%s", diff)
	}
}

// TestTags holds the rules that every setting keeps, those to come included.
func TestTags(t *testing.T) {
	for _, c := range allCommands() {
		seen := map[string]bool{"config": true, "help": true, "version": true}
		for _, s := range settingsOf(c.settings) {
			where := "kkv " + c.name + " --" + s.name
			if seen[s.name] {
				t.Errorf("%s: the name is taken", where)
			}
			if s.tag.Get("help") == "" {
				t.Errorf("%s has no help", where)
			}
			if notOurs(s.env()) {
				t.Errorf("%s: %s is never ours; name the flag otherwise", where, s.env())
			}
			for _, name := range splitList(s.tag.Get("check"), ",") {
				if checks[name] == nil {
					t.Errorf("%s: no check is called %q", where, name)
				}
			}
			if with := s.tag.Get("with"); with != "" && !seen[with] {
				t.Errorf("%s: the setting %q must come before it", where, with)
			}
			if text, ok := s.tag.Lookup("default"); ok {
				v, err := s.decode(text)
				if err != nil {
					t.Errorf("%s: default: %v", where, err)
					continue
				}
				s.field.Set(v)
				if faults := s.faults(); len(faults) > 0 {
					t.Errorf("%s: default: %v", where, faults)
				}
			}
			seen[s.name] = true
		}
	}
}

func TestPrintRoundTrip(t *testing.T) {
	first := mustParse(t, words("config serve --topic t --kafka-bootstrap k:1,l:2 --writable --target-static-port 81 --webhook-target http://a/#"),
		"KKV_KAFKA_PROPERTY=a=1,2\nb=\"quoted\" # no comment", "KAFKA_GROUP_ID=null", "KKV_DISPATCHER_RETRY_BACKOFF=1h", "KKV_KAFKA_CONFIG=- odd: {path")
	var printed bytes.Buffer
	if err := first.Print(&printed); err != nil {
		t.Fatal(err)
	}
	second := mustParse(t, []string{"config", "--config", writeFile(t, printed.String())})
	if diff := cmp.Diff(first.Settings, second.Settings); diff != "" {
		t.Errorf("printed\n%s\n-first +second\n%s", printed.String(), diff)
	}
	for _, line := range []string{
		"topic: t  # flag --topic\n", "kafka-group-id: \"null\"  # environment KAFKA_GROUP_ID\n",
		"log-level: info  # default\n", "dispatcher-retry-backoff: 1h  # environment",
	} {
		if !strings.Contains(printed.String(), line) {
			t.Errorf("%q is missing from\n%s", line, printed.String())
		}
	}
	if strings.Contains(printed.String(), "kafka-max-poll-records") {
		t.Errorf("an unused setting at its default is shown\n%s", printed.String())
	}
}

func TestSecretsAreMasked(t *testing.T) {
	args := words("config --topic t --kafka-bootstrap k:1 --kafka-property sasl.mechanism=PLAIN --kafka-property sasl.jaas.config=user;hunter2 " +
		"--kafka-property ssl.key.password=hunter2 --kafka-property ssl.keystore.key=hunter2 --kafka-property ssl.keystore.location=/k.p12 " +
		"--webhook-target https://user:hunter2@app/x --webhook-target http://app/?token=hunter2&a=b")
	cmd := mustParse(t, args)
	var out bytes.Buffer
	if err := cmd.Print(&out); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "hunter2") {
		t.Errorf("a secret is shown:\n%s", out.String())
	}
	for _, part := range []string{"  - sasl.mechanism=PLAIN\n", "  - ssl.keystore.location=/k.p12\n", "#  - sasl.jaas.config=********", "https://********@app/x"} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("%q is missing from\n%s", part, out.String())
		}
	}
	// Read back, the masks are gone, not taken for secrets.
	again := mustParse(t, []string{"config", "--config", writeFile(t, out.String())}).Settings.(*Serve)
	if want := []string{"sasl.mechanism=PLAIN", "ssl.keystore.location=/k.p12"}; !slices.Equal(again.Property, want) || len(again.WebhookTarget) > 0 {
		t.Errorf("read back: %q, %q", again.Property, again.WebhookTarget)
	}
	for _, bad := range [][]string{
		{"--kafka-property", "hunter2"},
		{"--webhook-target", "http://u:hunter2/x@app/"},
		{"--webhook-target", "u:hunter2@app"},
		{"--webhook-target", "ftp://u:hunter2@app"},
		{"--webhook-target", "http://u:hunter2@app:x/"},
		{"--webhook-target", "http://u:hunter2@app/#x"},
		{"-Dtarget=http://u:hunter2@app/", "--webhook-target", "http://u:hunter3@app/"},
	} {
		_, err := Parse(append(words("serve --topic t --kafka-bootstrap k:1"), bad...), nil, io.Discard)
		if err == nil || strings.Contains(err.Error(), "hunter") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestConfigPrintsFaultySettings(t *testing.T) {
	cmd := mustParse(t, words("config"), "KKV_LISTEN=x", "KKV_TARGET_STATIC_PORT=x")
	var out bytes.Buffer
	if err := cmd.Print(&out); err != nil {
		t.Fatal(err)
	}
	if cmd.Faults == nil || !strings.Contains(cmd.Faults.Error(), "KKV_TARGET_STATIC_PORT") || !strings.Contains(cmd.Faults.Error(), "topic: is not set") {
		t.Errorf("faults: %v", cmd.Faults)
	}
	if !strings.Contains(out.String(), "listen: x  # environment KKV_LISTEN\n") || !strings.Contains(out.String(), "# target-static-port:  # could not be read\n") {
		t.Errorf("printed\n%s", out.String())
	}
}

func TestParseDuration(t *testing.T) {
	for _, tc := range []struct {
		text string
		want time.Duration // negative: an error
	}{
		{"5m", 5 * time.Minute}, {"1h2m3s", 3723 * time.Second}, {"0", 0}, {"1d", 24 * time.Hour}, {"PT5M", 5 * time.Minute},
		{"pt1.5s", 1500 * time.Millisecond}, {"P1DT1H", 25 * time.Hour}, {"PT0S", 0},
		{"P", -1}, {"PT", -1}, {"5", -1}, {"", -1}, {"P1Y", -1}, {"PT5", -1}, {"P999999999999D", -1}, {"d", -1},
	} {
		got, err := parseDuration(tc.text)
		if (err != nil) != (tc.want < 0) || err == nil && got != tc.want {
			t.Errorf("parseDuration(%q) = %v, %v", tc.text, got, err)
		}
		if err == nil {
			if back, err := parseDuration(formatDuration(got)); err != nil || back != got {
				t.Errorf("%v is printed as %q, which reads as %v, %v", got, formatDuration(got), back, err)
			}
		}
	}
}

// FuzzFile holds that no file makes Parse panic, and that what `kkv config` prints reads back as the same settings.
func FuzzFile(f *testing.F) {
	f.Add("topic: t\nkafka-bootstrap: [a:1]\nkafka-property:\n  - a=b\n")
	f.Add("listen: !!binary aGk=\nwebhook-target: &x http://a/\ntarget-static-host: *x\n")
	f.Add("data-dir: \"a\\nb # c\"\ninformer-resync-period: PT0.000000001S\n")
	f.Fuzz(func(t *testing.T, text string) {
		path := t.TempDir() + "/kkv.yaml"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		first, err := Parse([]string{"config", "--config", path}, nil, io.Discard)
		if err != nil {
			return
		}
		var printed bytes.Buffer
		if err := first.Print(&printed); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(printed.String(), masked) {
			return // what is masked is left out
		}
		if err := os.WriteFile(path, printed.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		second, err := Parse([]string{"config", "--config", path}, nil, io.Discard)
		if err != nil {
			t.Fatalf("printed\n%s\n%v", printed.String(), err)
		}
		equal := func(a, b []string) bool { return slices.Equal(a, b) } // nil and empty are one
		if diff := cmp.Diff(first.Settings, second.Settings, cmp.Comparer(equal)); diff != "" {
			t.Errorf("printed\n%s\n-first +second\n%s", printed.String(), diff)
		}
	})
}
