// Package harness builds kkv and runs it as its users do: as a process with flags, environment and signals, talked to over HTTP
// and Kafka.
package harness

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kkv-project/kkv/test/port"
	"github.com/kkv-project/kkv/test/process"
)

// StartTimeout bounds how long kkv may take until it serves. It is far above what is promised: it is there to end a test that
// hangs, on a machine that does other things too.
const StartTimeout = 30 * time.Second

// RaceEnvVar names the environment variable that makes Binary build with the race detector.
const RaceEnvVar = "KKV_TEST_RACE"

var built struct {
	sync.Mutex
	dir, path string
	err       error
}

var atEnd []func()

// AtEnd has f called by Main after the tests, for what several of them share. Call it before Main.
func AtEnd(f func()) { atEnd = append(atEnd, f) }

// Main is what TestMain calls: it runs the tests and removes what Binary has built.
func Main(m *testing.M) {
	code := m.Run()
	for _, f := range atEnd {
		f()
	}
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// Binary returns the path of kkv, built from the source once in a test binary. A package that calls it has a TestMain with
// [Main]. With KKV_TEST_RACE set it is built with the race detector.
func Binary(t testing.TB) string {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	if built.path == "" && built.err == nil {
		built.dir, built.path, built.err = build()
	}
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}

func build() (dir, path string, err error) {
	if dir, err = os.MkdirTemp("", "kkv-test-"); err != nil {
		return "", "", err
	}
	path = filepath.Join(dir, "kkv")
	args := []string{"build", "-o", path}
	if os.Getenv(RaceEnvVar) != "" {
		args = append(args, "-race")
	}
	if err := touchSources(); err != nil {
		return dir, "", err
	}
	cmd := exec.Command("go", append(args, "./cmd/kkv")...)
	cmd.Dir = Root()
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, "", fmt.Errorf("go %s: %w\n%s", strings.Join(cmd.Args[1:], " "), err, out)
	}
	return dir, path, nil
}

// touchSources looks at every source file. go test keeps the results of a package whose code, environment and files it looked at
// are as before; that the tests depend on all of kkv, built by another process, it would not know.
func touchSources() error {
	return filepath.WalkDir(Root(), func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := entry.Name(); entry.IsDir() && path != Root() && (name == "node_modules" || name[0] == '.') {
			return filepath.SkipDir
		}
		_, err = os.Stat(path)
		return err
	})
}

// Root returns the root directory of the repository.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// Kkv starts kkv with the arguments, and environment variables such as "TOPIC=t" beside the test's own.
func Kkv(t testing.TB, env []string, args ...string) *process.Process {
	t.Helper()
	if os.Getenv(RaceEnvVar) != "" {
		// A program built with the race detector sleeps for a second before it exits, which some tests time.
		env = append(env, "GORACE=atexit_sleep_ms=0")
	}
	name := "kkv"
	if len(args) > 0 {
		name += " " + args[0]
	}
	// kkv's working directory is empty, so that it can find nothing that a user would not have there.
	return process.Start(t, process.Options{Name: name, Path: Binary(t), Args: args, Env: env, Dir: t.TempDir()})
}

// A Dev is a running `kkv dev` that has said it is ready.
type Dev struct {
	*process.Process
	Demo, Cache, Gateway string // base URLs, without a slash at the end
	Kafka                string // host:port
	Topic                string
}

// Loopback holds the arguments that put every listener of `kkv dev` on a free port.
var Loopback = []string{
	"--demo-listen", "127.0.0.1:0", "--cache-listen", "127.0.0.1:0", "--replica-listen", "127.0.0.1:0", "--gateway-listen", "127.0.0.1:0", "--kafka-listen", "127.0.0.1:0",
}

// StartDev starts `kkv dev` with every listener on a free port and waits until it is ready. The topic is one of the test's own.
func StartDev(t testing.TB, topic string, env []string, args ...string) *Dev {
	t.Helper()
	d := &Dev{Topic: topic}
	d.Process = Kkv(t, env, append(append([]string{"dev", "--topic", topic}, Loopback...), args...)...)
	d.WaitFor(t, `(?m)^kkv dev is ready$`, StartTimeout)
	// The block of addresses ends with an empty line.
	d.WaitFor(t, `(?ms)^kkv dev is ready$.*?\n\n`, StartTimeout)
	d.Demo = d.WaitFor(t, `(?m)^  demo app +(http://\S+)$`, StartTimeout)[1]
	d.Cache = d.WaitFor(t, `(?m)^  cache +(http://\S+)$`, StartTimeout)[1]
	d.Gateway = d.WaitFor(t, `(?m)^  gateway +(http://\S+)$`, StartTimeout)[1]
	d.Kafka = d.WaitFor(t, `(?m)^  Kafka +(\S+:\d+)`, StartTimeout)[1]
	return d
}

// A Serve is a running `kkv serve`, perhaps not ready yet.
type Serve struct {
	*process.Process
	URL       string // base URL, without a slash at the end
	Bootstrap string // the Kafka that it was told, host:port
	Topic     string
}

// StartServe starts `kkv serve` on a free port and waits until it answers HTTP, ready or not.
func StartServe(t testing.TB, bootstrap, topic string, env []string, args ...string) *Serve {
	t.Helper()
	return StartServeOn(t, fmt.Sprintf("127.0.0.1:%d", port.Free(t, 1)[0]), bootstrap, topic, env, args...)
}

// StartServeOn is StartServe on an address, such as that of one that has ended.
func StartServeOn(t testing.TB, listen, bootstrap, topic string, env []string, args ...string) *Serve {
	t.Helper()
	s := &Serve{URL: "http://" + listen, Bootstrap: bootstrap, Topic: topic}
	s.Process = Kkv(t, env, append([]string{"serve", "--kafka-bootstrap", bootstrap, "--topic", topic, "--listen", listen}, args...)...)
	s.AwaitAnswer(t)
	return s
}

// AwaitAnswer waits until the process answers the liveness route.
func (s *Serve) AwaitAnswer(t testing.TB) {
	t.Helper()
	Eventually(t, StartTimeout, s.Process, func() error {
		res, err := Try(s.URL, "GET", "/q/health/live", nil, nil)
		if err == nil && res.Status != 200 {
			err = fmt.Errorf("%s", res)
		}
		return err
	})
}

// AwaitReady waits until the readiness route says so.
func (s *Serve) AwaitReady(t testing.TB) {
	t.Helper()
	Eventually(t, StartTimeout, s.Process, func() error {
		if res := Do(t, s.URL, "GET", "/q/health/ready"); res.Status != 200 {
			return fmt.Errorf("not ready: %s", res)
		}
		return nil
	})
}

// Eventually calls f, at once and then 100 times a second, until it returns nil. It fails the test with f's last error when the
// timeout is over, or as soon as the process that f asks has ended; p may be nil.
func Eventually(t testing.TB, timeout time.Duration, p *process.Process, f func() error) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	var ended <-chan struct{}
	if p != nil {
		ended = p.Done()
	}
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("still so after %v: %v", timeout, err)
		case <-ended:
			t.Fatalf("%s has ended, and before: %v; its last lines:\n%s", p.Name, err, p.Tail(40))
		}
	}
}
