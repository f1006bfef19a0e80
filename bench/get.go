package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/kkv-project/kkv/bench/dataset"
)

// getConnections is how many clients ask at once.
const getConnections = 32

// target is something to GET from.
type target struct {
	name        string
	headerBytes int // of an answer
	run         func(ctx context.Context) ([]metric, error)
}

// get measures GET of random keys from servers that all run throughout, one after the other, in rounds.
func (b *bench) get(ctx context.Context) error {
	t := b.topic("1m")
	br, err := b.kafka(ctx, t)
	if err != nil {
		return err
	}
	c, address, err := b.readyKkv(ctx, br, t)
	if err != nil {
		return err
	}
	defer c.kill()
	if err := newest(ctx, address, t, 0); err != nil {
		return err
	}
	var targets []target
	for _, r := range []struct{ route, prefix string }{{"raw", "/cache/v1/raw/"}, {"keys", "/v1/topics/" + t.Name + "/keys/"}} {
		ts, stop, err := b.getPair(ctx, t, address, r.route, r.prefix)
		if stop != nil {
			defer stop()
		}
		if err != nil {
			return err
		}
		targets = append(targets, ts...)
	}
	if redis, stop, err := b.redis(ctx, t); err != nil {
		return err
	} else if redis != nil {
		defer stop()
		targets = append(targets, *redis)
	}
	for round := range b.rounds() {
		for i := range targets {
			g := targets[(i+round)%len(targets)]
			ms, err := g.run(ctx)
			if err != nil {
				return err
			}
			if g.headerBytes > 0 {
				ms = append(ms, metric{float64(g.headerBytes), "header-B"})
			}
			if err := b.results.add("Get/"+g.name, ms...); err != nil {
				return err
			}
		}
	}
	return nil
}

// getPair is a route of kkv, and a bare handler that sends the same headers.
func (b *bench) getPair(ctx context.Context, t dataset.Topic, address, route, prefix string) (ts []target, stop func(), err error) {
	path := prefix + string(dataset.AppendKey(nil, 0))
	headers, size, err := answer(ctx, address, path)
	if err != nil {
		return nil, nil, err
	}
	// These two net/http adds by itself.
	delete(headers, "Date")
	delete(headers, "Content-Length")
	text, err := json.Marshal(headers)
	if err != nil {
		return nil, nil, err
	}
	bare, err := startChild("bare handler", b.program("bare"), "-keys", strconv.Itoa(t.Keys), "-prefix", prefix, "-headers", string(text))
	if err != nil {
		return nil, nil, err
	}
	_, groups, err := bare.waitFor(ctx, `ready address=(\S+)`, time.Minute)
	if err != nil {
		return nil, bare.kill, err
	}
	_, bareSize, err := answer(ctx, groups[1], path)
	if err != nil {
		return nil, bare.kill, err
	}
	return []target{
		{"route=" + route + "/by=kkv", size, func(ctx context.Context) ([]metric, error) { return b.http(ctx, address, prefix, t.Keys) }},
		{"route=" + route + "/by=bare", bareSize, func(ctx context.Context) ([]metric, error) { return b.http(ctx, groups[1], prefix, t.Keys) }},
	}, bare.kill, nil
}

// answer GETs a path and returns the headers and how many bytes they take, status line included.
func answer(ctx context.Context, address, path string) (map[string]string, int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, 0, fmt.Errorf("GET %s: %s", path, resp.Status)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return nil, 0, err
	}
	head, err := httputil.DumpResponse(resp, false)
	if err != nil {
		return nil, 0, err
	}
	headers := map[string]string{}
	for name := range resp.Header {
		headers[name] = resp.Header.Get(name)
	}
	return headers, len(head), nil
}

// wrkScript asks for random ones of 100,000 keys, whose requests are made beforehand.
const wrkScript = `
local requests, n, count = {}, 0, 100000
function init(args)
  math.randomseed(os.time())
  for i = 1, count do
    requests[i] = wrk.format("GET", args[1] .. string.format("key-%%012d", math.random(0, %d)))
  end
end
function request()
  n = n %% count + 1
  return requests[n]
end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format("result requests=%%d us=%%d errors=%%d p50=%%d p99=%%d\n", summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(50), latency:percentile(99)))
end
`

// http loads a server with wrk, or where that is missing with loadHTTP. Headers are "Name: value".
func (b *bench) http(ctx context.Context, address, prefix string, keys int, headers ...string) ([]metric, error) {
	if _, err := exec.LookPath("wrk"); err != nil {
		return loadHTTP(ctx, address, prefix, keys, b.getTime, headers...)
	}
	script := filepath.Join(b.dir, "get.lua")
	if err := os.WriteFile(script, fmt.Appendf(nil, wrkScript, keys-1), 0o600); err != nil {
		return nil, err
	}
	// One thread: on a small machine a second one would only take the server's core.
	args := []string{"-t", "1", "-c", strconv.Itoa(getConnections), "-d", fmt.Sprintf("%.0fs", max(1, b.getTime.Seconds())), "-s", script}
	for _, h := range headers {
		args = append(args, "-H", h)
	}
	out, err := output(ctx, "wrk", append(args, "http://"+address, "--", prefix)...)
	if err != nil {
		return nil, err
	}
	m := regexp.MustCompile(`result requests=(\d+) us=(\d+) errors=(\d+) p50=(\d+) p99=(\d+)`).FindStringSubmatch(out)
	if m == nil {
		return nil, fmt.Errorf("wrk has not printed its result but:\n%s", out)
	}
	var v [6]float64
	for i := 1; i < len(m); i++ {
		v[i], _ = strconv.ParseFloat(m[i], 64) // digits only
	}
	if v[3] > 0 {
		return nil, fmt.Errorf("wrk counts %.0f failed requests:\n%s", v[3], out)
	}
	return []metric{{round(v[1]/v[2]*1e6, 0), "req/s"}, {v[4] * 1e3, "p50-ns"}, {v[5] * 1e3, "p99-ns"}}, nil
}

// redis starts a Redis without persistence, holding the topic; nil where there is none.
func (b *bench) redis(ctx context.Context, t dataset.Topic) (*target, func(), error) {
	for _, program := range []string{"redis-server", "redis-benchmark"} {
		if _, err := exec.LookPath(program); err != nil {
			fmt.Fprintln(os.Stderr, "Redis is left out: no", program, "on PATH")
			return nil, nil, nil
		}
	}
	address, err := freeAddress()
	if err != nil {
		return nil, nil, err
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, nil, err
	}
	c, err := startChild("Redis", "redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no", "--dir", b.dir)
	if err != nil {
		return nil, nil, err
	}
	if _, _, err := c.waitFor(ctx, `Ready to accept connections`, time.Minute); err != nil {
		c.kill()
		return nil, nil, err
	}
	if err := fillRedis(address, t); err != nil {
		c.kill()
		return nil, nil, fmt.Errorf("fill Redis: %w", err)
	}
	return &target{name: "by=redis", run: func(ctx context.Context) ([]metric, error) { return b.redisBenchmark(ctx, port, t.Keys) }}, c.kill, nil
}

// fillRedis sets every key, in a pipeline.
func fillRedis(address string, t dataset.Topic) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	sent := make(chan error, 1)
	go func() {
		w := bufio.NewWriterSize(conn, 64<<10)
		var value []byte
		for i := range t.Keys {
			value = t.AppendValue(value[:0], i, 0)
			fmt.Fprintf(w, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", dataset.KeyBytes, dataset.AppendKey(nil, i), len(value), value)
		}
		sent <- w.Flush()
	}()
	r := bufio.NewReader(conn)
	for range t.Keys {
		l, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		if l != "+OK\r\n" {
			return fmt.Errorf("SET: %q", l)
		}
	}
	return <-sent
}

// redisBenchmark asks for random keys for about as long as wrk does, without pipelining.
func (b *bench) redisBenchmark(ctx context.Context, port string, keys int) ([]metric, error) {
	n := int(b.getTime.Seconds() * 80_000) // it wants a number, not a time
	out, err := output(ctx, "redis-benchmark", "-p", port, "-c", strconv.Itoa(getConnections), "-n", strconv.Itoa(n), "-r", strconv.Itoa(keys),
		"--csv", "GET", "key-__rand_int__")
	if err != nil {
		return nil, err
	}
	// "test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
	lines := strings.Split(out, "\n")
	f := strings.Split(strings.ReplaceAll(strings.TrimSpace(lines[len(lines)-1]), `"`, ""), ",")
	if len(f) < 8 {
		return nil, fmt.Errorf("redis-benchmark has not printed its result but:\n%s", out)
	}
	f = f[len(f)-7:]
	var v [7]float64
	for i := range v {
		if v[i], err = strconv.ParseFloat(f[i], 64); err != nil {
			return nil, fmt.Errorf("redis-benchmark: %w in:\n%s", err, out)
		}
	}
	return []metric{{round(v[0], 0), "req/s"}, {v[3] * 1e6, "p50-ns"}, {v[5] * 1e6, "p99-ns"}}, nil
}
