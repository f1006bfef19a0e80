package e2e

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kkv-project/kkv/test/harness"
	"github.com/kkv-project/kkv/test/port"
	"github.com/kkv-project/kkv/test/process"
)

// records makes n records of partition 0 with keys of their own.
func records(n int, value []byte) []*kgo.Record {
	list := make([]*kgo.Record, n)
	for i := range list {
		list[i] = harness.Record(0, fmt.Appendf(nil, "key-%d", i), value)
	}
	return list
}

// hangingBroker returns the address of a listener that accepts and never says a word.
func hangingBroker(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
		}
	}()
	return l.Addr().String()
}

// wantEndWithin sends the signal and fails the test unless the process ends in time, with exit code 0 and without a stack trace.
func wantEndWithin(t *testing.T, p *process.Process, s os.Signal, limit time.Duration) {
	t.Helper()
	began := time.Now()
	p.Signal(s)
	code := p.WaitEnd(t, harness.StartTimeout)
	if took := time.Since(began); took > limit {
		t.Errorf("%s took %v to end after %v, want at most %v", p.Name, took, s, limit)
	}
	if code != 0 {
		t.Errorf("%s ended with code %d after %v, want 0", p.Name, code, s)
	}
	if strings.Contains(p.Output(), "goroutine ") {
		t.Errorf("%s printed a stack trace:\n%s", p.Name, p.Output())
	}
}

// TestCtrlC: `kkv dev` ends within a second, also while a page watches.
func TestCtrlC(t *testing.T) {
	d := harness.StartDev(t, "t", nil)
	holdStream(t, d.Cache, "/v1/topics/t/watch")
	holdStream(t, d.Demo, "/events")
	wantEndWithin(t, d.Process, os.Interrupt, time.Second)
}

// TestDrain: told to end, a cache is unready at once, and goes on serving reads and writes until --drain is over.
func TestDrain(t *testing.T) {
	d := harness.StartDev(t, "t", nil)
	s := harness.StartServe(t, d.Kafka, "t", nil, "--writable", "--drain", "2s")
	s.AwaitReady(t)
	const key = "/v1/topics/t/keys/k"
	wantStatus(t, "PUT", harness.DoBody(t, s.URL, "PUT", key, []byte("1")), 200)
	began := time.Now()
	s.Signal(syscall.SIGTERM)
	harness.Eventually(t, time.Second, s.Process, func() error {
		if res := harness.Do(t, s.URL, "GET", "/q/health/ready"); res.Status != 503 {
			return fmt.Errorf("still ready: %s", res)
		}
		return nil
	})
	wantStatus(t, "PUT while draining", harness.DoBody(t, s.URL, "PUT", key, []byte("2")), 200)
	wantValue(t, "k while draining", harness.Do(t, s.URL, "GET", key), "2")
	wantStatus(t, "live while draining", harness.Do(t, s.URL, "GET", "/q/health/live"), 200)
	if code := s.WaitEnd(t, harness.StartTimeout); code != 0 {
		t.Errorf("ended with %d, want 0", code)
	}
	if took := time.Since(began); took < 2*time.Second || took > 4*time.Second {
		t.Errorf("ended after %v, want the 2s of --drain", took)
	}
}

// holdStream opens a stream of server-sent events and leaves it open until the test ends.
func holdStream(t *testing.T, base, target string) {
	t.Helper()
	host := strings.TrimPrefix(base, "http://")
	conn, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(harness.StartTimeout)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\n\r\n", target, host)
	if status, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(status, "200") {
		t.Fatalf("%s answers %q, %v", target, status, err)
	}
}

// TestSIGTERM: `kkv dev` ends on SIGTERM as on Ctrl-C.
func TestSIGTERM(t *testing.T) {
	wantEndWithin(t, harness.StartDev(t, "t", nil).Process, syscall.SIGTERM, time.Second)
}

// TestKillLosesNothing kills `kkv dev` with SIGKILL under writes: what was acknowledged is there after the next start.
func TestKillLosesNothing(t *testing.T) {
	dir := t.TempDir()
	acked := map[string]int{} // key -> the newest value acknowledged
	sent := 0
	for round := range 3 {
		d := harness.StartDev(t, "t", nil, "--data-dir", dir)
		for key, n := range acked {
			// The write that was under way when kkv was killed may have made it, too.
			res := harness.Do(t, d.Cache, "GET", raw(key))
			var got int
			if _, err := fmt.Sscan(string(res.Body), &got); res.Status != 200 || err != nil || got < n {
				t.Fatalf("round %d: %s is %s, want %d or later", round, key, res, n)
			}
		}
		// One writer as fast as it can, and the kill comes in its midst.
		type ack struct {
			key string
			n   int
		}
		acks, gone := make(chan ack), make(chan struct{})
		go func() {
			defer close(gone)
			for {
				sent++
				key := fmt.Sprint("key-", sent%7)
				method, base, target := "POST", d.Gateway, produceTo("t", key)
				if sent%2 == 0 {
					method, base, target = "PUT", d.Cache, native("t", key)
				}
				res, err := harness.Try(base, method, target, fmt.Append(nil, sent), []string{"Content-Type: text/plain"})
				if err != nil {
					return
				}
				if res.Status == 200 {
					acks <- ack{key, sent}
				}
			}
		}()
		for range 50 {
			select {
			case a := <-acks:
				acked[a.key] = a.n
			case <-gone:
				t.Fatalf("kkv dev stopped answering; its last lines:\n%s", d.Tail(20))
			}
		}
		d.Signal(syscall.SIGKILL)
		for running := true; running; {
			select {
			case a := <-acks:
				acked[a.key] = a.n
			case <-gone:
				running = false
			}
		}
		d.WaitEnd(t, harness.StartTimeout)
	}
}

// TestTwoOnOneDataDir: the second `kkv dev` leaves the first one's data alone and says why it ends.
func TestTwoOnOneDataDir(t *testing.T) {
	dir := t.TempDir()
	first := harness.StartDev(t, "t", nil, "--data-dir", dir)
	second := harness.Kkv(t, nil, append([]string{"dev", "--topic", "t", "--data-dir", dir}, harness.Loopback...)...)
	if code := second.WaitEnd(t, harness.StartTimeout); code == 0 {
		t.Error("the second kkv dev ended with code 0")
	}
	for _, want := range []string{dir, "--data-dir"} {
		if !strings.Contains(second.Output(), want) {
			t.Errorf("the second kkv dev does not name %s:\n%s", want, second.Output())
		}
	}
	wantStatus(t, "produce to the first", harness.DoBody(t, first.Gateway, "POST", produceTo("t", "k"), []byte("v")), 200)
	// When the first is gone, so is its claim.
	first.Kill()
	d := harness.StartDev(t, "t", nil, "--data-dir", dir)
	wantValue(t, "k", harness.Do(t, d.Cache, "GET", raw("k")), "v")
}

// TestPortInUse: kkv names the flag whose port is taken.
func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().String()
	check := func(flag string, args ...string) {
		t.Run(strings.Join(args[:1], "")+flag, func(t *testing.T) {
			p := harness.Kkv(t, nil, append(args, flag, taken)...)
			if code := p.WaitEnd(t, harness.StartTimeout); code == 0 {
				t.Error("ended with code 0")
			}
			for _, want := range []string{flag, taken} {
				if !strings.Contains(p.Output(), want) {
					t.Errorf("the message does not name %s:\n%s", want, p.Output())
				}
			}
			if n := strings.Count(strings.TrimSpace(p.Output()), "\n"); n > 3 {
				t.Errorf("%d lines where one or two say it:\n%s", n+1, p.Output())
			}
		})
	}
	for i := 0; i < len(harness.Loopback); i += 2 {
		// The other listeners stay on free ports: of a repeated flag the last one counts.
		check(harness.Loopback[i], append([]string{"dev"}, harness.Loopback...)...)
	}
	check("--listen", "serve", "--kafka-bootstrap", hangingBroker(t), "--topic", "t")
	check("--management-listen", "serve", "--kafka-bootstrap", hangingBroker(t), "--topic", "t", "--listen", "127.0.0.1:0")
	check("--listen", "gateway", "--kafka-bootstrap", hangingBroker(t))
	check("--listen", "demo")
}

// TestGateway: the gateway on its own, and its answer where Kafka cannot be reached.
func TestGateway(t *testing.T) {
	d := harness.StartDev(t, "t", nil)
	p := harness.Kkv(t, nil, "gateway", "--kafka-bootstrap", d.Kafka, "--listen", "127.0.0.1:0")
	base := listening(t, p)
	res := harness.DoBody(t, base, "POST", produceTo("t", "k"), []byte("v"), "Content-Type: text/plain")
	wantStatus(t, "produce", res, 200)
	harness.Eventually(t, harness.StartTimeout, d.Process, func() error {
		if res := harness.Do(t, d.Cache, "GET", raw("k")); string(res.Body) != "v" {
			return fmt.Errorf("k is %s", res)
		}
		return nil
	})
	wantEndWithin(t, p, syscall.SIGTERM, 2*time.Second)
}

// listening waits until a command that says where it listens does so, and returns that base URL.
func listening(t *testing.T, p *process.Process) string {
	t.Helper()
	return "http://" + p.WaitFor(t, `address=(127\.0\.0\.1:[1-9]\d*)`, harness.StartTimeout)[1]
}

// TestDemo: the demo application as a process of its own, started before its cache.
func TestDemo(t *testing.T) {
	cache := fmt.Sprintf("127.0.0.1:%d", port.Free(t, 1)[0])
	p := harness.Kkv(t, nil, "demo", "--server", "http://"+cache, "--listen", "127.0.0.1:0")
	base := listening(t, p)
	wantStatus(t, "health without a cache", harness.Do(t, base, "GET", "/healthz"), 503)
	res := harness.Do(t, base, "GET", "/")
	wantStatus(t, "the page without a cache", res, 200)
	if !strings.Contains(string(res.Body), "waiting for the cache") {
		t.Errorf("the page does not say what it waits for:\n%s", res.Body)
	}

	d := harness.StartDev(t, "t", nil, "--cache-listen", cache)
	harness.Eventually(t, harness.StartTimeout, p, func() error {
		if res := harness.Do(t, base, "GET", "/healthz"); res.Status != 200 {
			return fmt.Errorf("health: %s", res)
		}
		return nil
	})
	res = harness.DoBody(t, base, "POST", "/", []byte("key=A&color=red"), "Content-Type: application/x-www-form-urlencoded")
	wantStatus(t, "the form", res, 200)
	if got := harness.Do(t, base, "GET", "/A"); got.Status != 200 || !strings.Contains(string(got.Body), "background-color: red") || !strings.Contains(string(got.Body), "Hello Kafka!") {
		t.Errorf("the page of A: %s", got)
	}
	wantValue(t, "A in the cache", harness.Do(t, d.Cache, "GET", raw("A")), `{ "id": "A", "color": "red" }`)
	holdStream(t, base, "/events")
	wantEndWithin(t, p, os.Interrupt, time.Second)

	// What can never work ends it.
	p = harness.Kkv(t, nil, "demo", "--server", d.Cache, "--topic", "another", "--listen", "127.0.0.1:0")
	if code := p.WaitEnd(t, harness.StartTimeout); code != 1 || !strings.Contains(p.Output(), "another") {
		t.Errorf("ended with %d for a topic that the cache does not serve, and printed:\n%s", code, p.Output())
	}
}

// TestManagement: profiles, the settings in force without their secrets, and the original's shutdown, on a listener of their own.
func TestManagement(t *testing.T) {
	bootstrap := harness.StartDev(t, "t", nil).Kafka
	start := func() (*harness.Serve, string) {
		s := harness.StartServe(t, bootstrap, "t", []string{"KKV_WEBHOOK_TARGET=http://user:hunter2@127.0.0.1:1/"}, "--management-listen", "127.0.0.1:0", "--drain", "0s")
		return s, "http://" + s.WaitFor(t, `msg=management address=(\S+)`, harness.StartTimeout)[1]
	}
	s, management := start()
	settings := harness.Do(t, management, "GET", "/config")
	wantStatus(t, "config", settings, 200)
	if text := string(settings.Body); !strings.Contains(text, "topic: t  # flag --topic") || strings.Contains(text, "hunter2") || !strings.Contains(text, "masked") {
		t.Errorf("config:\n%s", text)
	}
	wantStatus(t, "profile", harness.Do(t, management, "GET", "/debug/pprof/goroutine?debug=1"), 200)
	for _, target := range []string{"/config", "/debug/pprof/"} {
		wantStatus(t, target+" on the cache's listener", harness.Do(t, s.URL, "GET", target), 404)
	}
	wantStatus(t, "shutdown on the cache's listener", harness.DoBody(t, s.URL, "POST", "/_admin/v1/shutdown", nil), 404)
	wantStatus(t, "shutdown by GET", harness.Do(t, management, "GET", "/_admin/v1/shutdown"), 405)
	wantStatus(t, "shutdown from another site", harness.DoBody(t, management, "POST", "/_admin/v1/shutdown", nil, "Sec-Fetch-Site: cross-site"), 403)
	wantStatus(t, "shutdown with what is no code", harness.DoBody(t, management, "POST", "/_admin/v1/shutdown/soon", nil), 400)
	s.AwaitReady(t)
	wantStatus(t, "shutdown", harness.DoBody(t, management, "POST", "/_admin/v1/shutdown/7", nil), 202)
	if code := s.WaitEnd(t, harness.StartTimeout); code != 7 {
		t.Errorf("ended with %d, want 7", code)
	}
	if out := s.Output(); strings.Contains(out, "hunter2") || strings.Contains(out, "ERROR") {
		t.Errorf("printed:\n%s", out)
	}
	s, management = start()
	wantStatus(t, "shutdown", harness.DoBody(t, management, "POST", "/_admin/v1/shutdown", nil), 202)
	if code := s.WaitEnd(t, harness.StartTimeout); code != 0 {
		t.Errorf("ended with %d, want 0", code)
	}
}
