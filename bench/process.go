package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// child is a program being measured, or one that helps. It dies with this process.
type child struct {
	name  string
	cmd   *exec.Cmd
	began time.Time // just before it was started
	lines chan line // stdout and stderr; closed when the process has ended
	mu    sync.Mutex
	tail  []string // the last lines, for messages
	once  sync.Once
}

type line struct {
	text string
	at   time.Time
}

const tailLines = 30

// startChild starts a program. What would change a Go program's memory behind our back is kept from it.
func startChild(name, path string, args ...string) (*child, error) {
	c := &child{name: name, cmd: exec.Command(path, args...), lines: make(chan line, 1024)}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "GOGC=") && !strings.HasPrefix(v, "GOMEMLIMIT=") && !strings.HasPrefix(v, "GODEBUG=") && !strings.HasPrefix(v, "KKV_") {
			c.cmd.Env = append(c.cmd.Env, v)
		}
	}
	c.cmd.SysProcAttr = dieWithParent()
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c.cmd.Stdout, c.cmd.Stderr = w, w
	c.began = time.Now()
	err = c.cmd.Start()
	w.Close()
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go c.read(r)
	return c, nil
}

func (c *child) read(r io.ReadCloser) {
	defer r.Close()
	in := bufio.NewScanner(r)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		l := line{in.Text(), time.Now()}
		c.mu.Lock()
		if c.tail = append(c.tail, l.text); len(c.tail) > tailLines {
			c.tail = c.tail[1:]
		}
		c.mu.Unlock()
		select {
		case c.lines <- l:
		default: // nobody waits for what it says
		}
	}
	_ = c.cmd.Wait()
	close(c.lines)
}

// waitFor waits for a line that matches and returns when it came and its groups.
func (c *child) waitFor(ctx context.Context, pattern string, timeout time.Duration) (time.Time, []string, error) {
	re := regexp.MustCompile(pattern)
	late := time.After(timeout)
	for {
		select {
		case l, ok := <-c.lines:
			if !ok {
				return time.Time{}, nil, fmt.Errorf("%s ended without printing %q; its last lines:\n%s", c.name, pattern, c.last())
			}
			if m := re.FindStringSubmatch(l.text); m != nil {
				return l.at, m, nil
			}
		case <-late:
			return time.Time{}, nil, fmt.Errorf("%s has not printed %q within %v; its last lines:\n%s", c.name, pattern, timeout, c.last())
		case <-ctx.Done():
			return time.Time{}, nil, ctx.Err()
		}
	}
}

func (c *child) last() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.tail, "\n")
}

// kill ends the process and waits for its end.
func (c *child) kill() {
	c.once.Do(func() {
		_ = c.cmd.Process.Kill()
		for range c.lines {
		}
	})
}

// memory is what the kernel says of the process, in bytes: resident now, and at most so far.
func (c *child) memory() (resident, peak int64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		return 0, 0, fmt.Errorf("memory of %s: %w (only Linux says it so)", c.name, err)
	}
	for l := range strings.Lines(string(text)) {
		f := strings.Fields(l)
		if len(f) < 2 {
			continue
		}
		kb, _ := strconv.ParseInt(f[1], 10, 64) // other lines hold no number, and are not looked at
		switch f[0] {
		case "VmRSS:":
			resident = kb << 10
		case "VmHWM:":
			peak = kb << 10
		}
	}
	return resident, peak, nil
}

// pause waits, unless ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// freeAddress is one on loopback on which nothing listens.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// dieWithParent makes the kernel kill the child when this process dies, however it dies.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
