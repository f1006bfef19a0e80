// Package require says what a test needs from the machine, beyond Go.
//
// A test that needs Apache Kafka, npm, Chromium, Kubernetes or curl calls [Need] first. On a machine that lacks it the test is skipped with one
// line that says how to get it, so that `go test ./...` passes for a newcomer; under the environment variable
// KKV_TEST_REQUIRE (`all`, or a list such as `kafka,npm`) the same lack is a failure, so that CI cannot pass by skipping.
package require

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// EnvVar names the environment variable that turns skips into failures.
const EnvVar = "KKV_TEST_REQUIRE"

// A Thing is something outside the module that a test needs.
type Thing string

// The things that tests need. The value is the word for it in KKV_TEST_REQUIRE.
const (
	Kafka    Thing = "kafka"    // Java and Maven, with which package apachekafka fetches and runs Apache Kafka
	NPM      Thing = "npm"      // Node.js 20 or later and npm
	Chromium Thing = "chromium" // Chromium or Google Chrome
	Curl     Thing = "curl"     // curl and bash, for what the pages tell to type
	Kube     Thing = "kube"     // etcd and ip, with which package kube runs a Kubernetes API server that it builds
	Image    Thing = "image"    // buildah and chroot, as root, to build and run the image
	Promtool Thing = "promtool" // of Prometheus, which checks metrics
)

// programs lists, for each thing, the programs that must be on PATH; of one inner list any will do.
var programs = map[Thing][][]string{
	Kafka:    {{"bash"}, {"java"}, {"mvn"}},
	NPM:      {{"node"}, {"npm"}},
	Chromium: {{"chromium", "chromium-browser", "google-chrome"}},
	Curl:     {{"bash"}, {"curl"}},
	Kube:     {{"bash"}, {"go"}, {"ip"}, {"etcd"}},
	Image:    {{"bash"}, {"go"}, {"chroot"}, {"buildah"}},
	Promtool: {{"promtool"}},
}

// howTo says in one line how to get a thing.
var howTo = map[Thing]string{
	Kafka:    "install a JDK 17 or later and Maven (Debian: apt-get install openjdk-17-jdk-headless maven)",
	NPM:      "install Node.js 20 or later with npm",
	Chromium: "install Chromium (Debian: apt-get install --no-install-recommends chromium)",
	Curl:     "install curl and bash",
	Kube:     "install etcd and ip (Debian: apt-get install etcd-server iproute2)",
	Image:    "install buildah (Debian: apt-get install --no-install-recommends buildah)",
	Promtool: "install Prometheus (Debian: apt-get install --no-install-recommends prometheus)",
}

// Need skips the test, or fails it where KKV_TEST_REQUIRE asks for one of the things, unless the machine has them all. With
// -short it always skips: these are the slow tests. It may be called from any test goroutine that may call t.Skip.
func Need(t testing.TB, things ...Thing) {
	t.Helper()
	for _, thing := range things {
		if missing := lacks(thing); missing != "" {
			if required(thing, os.Getenv(EnvVar)) {
				t.Fatalf("needs %s: %s not on PATH, and %s asks for it: %s", thing, missing, EnvVar, howTo[thing])
			}
			t.Skipf("needs %s: %s not on PATH: %s", thing, missing, howTo[thing])
		}
		if testing.Short() {
			t.Skipf("needs %s: left out by -short", thing)
		}
	}
}

// Fail skips the test, or fails it where KKV_TEST_REQUIRE asks for the thing, for something that the machine lacks which is no program.
func Fail(t testing.TB, thing Thing, lacks string) {
	t.Helper()
	if required(thing, os.Getenv(EnvVar)) {
		t.Fatalf("needs %s, and %s asks for it", lacks, EnvVar)
	}
	t.Skipf("needs %s", lacks)
}

// Path returns the full path of the program that stands for the thing's last need: for Chromium the browser itself. It is
// empty if there is none.
func Path(thing Thing) string {
	choices := programs[thing]
	return look(choices[len(choices)-1])
}

// lacks returns the programs of which none is on PATH, as text, or "".
func lacks(thing Thing) string {
	for _, choices := range programs[thing] {
		if look(choices) == "" {
			return strings.Join(choices, " or ")
		}
	}
	return ""
}

func look(choices []string) string {
	for _, name := range choices {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// required reports whether the value of KKV_TEST_REQUIRE asks for the thing.
func required(thing Thing, list string) bool {
	words := strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
	return slices.Contains(words, "all") || slices.Contains(words, string(thing))
}
