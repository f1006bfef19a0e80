// Package process runs the programs under test as real processes and lets a test wait on what they print.
package process

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Options says what to run.
type Options struct {
	Name string   // for messages: "kkv dev", "Apache Kafka"
	Path string   // the program
	Args []string // without the program's name
	Env  []string // added to the test's own environment
	Dir  string   // working directory; empty: the test's own
	// Leave keeps the process running when the test t ends; the caller stops it. For a broker that several tests share.
	Leave bool
}

// A Process is a running program, or one that has ended. Its methods may be called from several goroutines; those that take a
// testing.TB fail it, and so must be called from the test's own.
type Process struct {
	Name string

	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended and all its output is in
	err  error         // as of exec.Cmd.Wait; set before done is closed

	mu      sync.Mutex
	out     bytes.Buffer  // stdout and stderr, as they came
	stdout  bytes.Buffer  // stdout alone
	changed chan struct{} // closed, and replaced, whenever output is added
}

// Start runs the program. When the test ends it is killed, and if the test has failed its output is logged.
func Start(t testing.TB, o Options) *Process {
	t.Helper()
	p := &Process{Name: o.Name, done: make(chan struct{}), changed: make(chan struct{})}
	p.cmd = exec.Command(o.Path, o.Args...)
	p.cmd.Env = append(os.Environ(), o.Env...)
	p.cmd.Dir = o.Dir
	p.cmd.SysProcAttr = dieWithParent()
	p.cmd.Stdout = &sink{p, true}
	p.cmd.Stderr = &sink{p, false}
	// A grandchild that keeps the pipes open must not keep Wait from returning.
	p.cmd.WaitDelay = 5 * time.Second
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", o.Name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	if !o.Leave {
		t.Cleanup(func() {
			p.Kill()
			if strings.Contains(p.Output(), "WARNING: DATA RACE") {
				t.Errorf("%s found a data race", p.Name)
			}
			if t.Failed() {
				t.Logf("%s (pid %d, %s) printed:\n%s", p.Name, p.cmd.Process.Pid, p.cmd.ProcessState, p.Output())
			}
		})
	}
	return p
}

// sink is the stdout or stderr of a process.
type sink struct {
	p      *Process
	stdout bool
}

// Write implements io.Writer for exec.Cmd.
func (s *sink) Write(b []byte) (int, error) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	s.p.out.Write(b)
	if s.stdout {
		s.p.stdout.Write(b)
	}
	close(s.p.changed)
	s.p.changed = make(chan struct{})
	return len(b), nil
}

var _ io.Writer = (*sink)(nil)

// Pid returns the process's id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Output returns all that the process has printed so far, stdout and stderr as they came.
func (p *Process) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// Stdout returns what the process has printed on stdout so far.
func (p *Process) Stdout() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stdout.String()
}

// Tail returns the last n lines of the output.
func (p *Process) Tail(n int) string {
	lines := strings.Split(strings.TrimRight(p.Output(), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Running reports whether the process has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// WaitFor waits until the output matches the pattern and returns the match and its groups. It fails the test if the process
// ends first without such output, or after the timeout.
func (p *Process) WaitFor(t testing.TB, pattern string, timeout time.Duration) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	for {
		p.mu.Lock()
		match, changed := re.FindStringSubmatch(p.out.String()), p.changed
		p.mu.Unlock()
		if match != nil {
			return match
		}
		select {
		case <-changed:
		case <-p.done:
			if match := re.FindStringSubmatch(p.Output()); match != nil {
				return match
			}
			t.Fatalf("%s ended (%s) without printing %q; its last lines:\n%s", p.Name, p.cmd.ProcessState, pattern, p.Tail(40))
		case <-deadline.C:
			t.Fatalf("%s has not printed %q within %v; its last lines:\n%s", p.Name, pattern, timeout, p.Tail(40))
		}
	}
}

// Signal sends a signal; to a process that has ended it does nothing.
func (p *Process) Signal(s os.Signal) { _ = p.cmd.Process.Signal(s) }

// Kill ends the process with SIGKILL and waits for its end.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// WaitEnd waits until the process has ended and returns its exit code; -1 after a signal. It fails the test after the timeout.
func (p *Process) WaitEnd(t testing.TB, timeout time.Duration) int {
	t.Helper()
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-deadline.C:
		t.Fatalf("%s still runs after %v; its last lines:\n%s", p.Name, timeout, p.Tail(40))
		return 0
	}
}

// Stop sends SIGTERM and waits for the end; past the timeout it kills and returns an error.
func (p *Process) Stop(timeout time.Duration) error {
	p.Signal(syscall.SIGTERM)
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	select {
	case <-p.done:
		return nil
	case <-deadline.C:
		p.Kill()
		return fmt.Errorf("stop %s: still running %v after SIGTERM, killed", p.Name, timeout)
	}
}
