package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kkv-project/kkv/bench/dataset"
)

// freshHeader asks for a fresh read.
const freshHeader = "Kkv-Consistency: fresh"

// fresh measures what freshness costs beside the broker: one fresh GET at a time beside a local one and beside the question to the
// broker that it stands for, many at once, a write until it is read, and requests while replicas restart.
func (b *bench) fresh(ctx context.Context) error {
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
	cl, err := kgo.NewClient(kgo.SeedBrokers(br.address), kgo.DefaultProduceTopic(t.Name), kgo.ProducerLinger(0))
	if err != nil {
		return err
	}
	defer cl.Close()
	prefix := "/v1/topics/" + t.Name + "/keys/"
	for range b.rounds() {
		if err := b.oneByOne(ctx, cl, address, prefix, t); err != nil {
			return err
		}
		for _, ask := range []struct {
			name    string
			headers []string
		}{{"local", nil}, {"fresh", []string{freshHeader}}} {
			ms, err := b.http(ctx, address, prefix, t.Keys, ask.headers...)
			if err != nil {
				return err
			}
			if err := b.results.add("FreshLoad/ask="+ask.name, ms...); err != nil {
				return err
			}
		}
		if err := b.visible(ctx, cl, address, prefix, t); err != nil {
			return err
		}
	}
	c.kill()
	return b.restarts(ctx, br, t)
}

// asker is one connection that asks one request at a time.
type asker struct {
	net.Conn
	r *bufio.Reader
}

func dialAsker(address string) (*asker, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	return &asker{conn, bufio.NewReader(conn)}, nil
}

// get returns how long an answer of status 200 takes. The header is "Name: value".
func (a *asker) get(path, header string) (time.Duration, error) {
	began := time.Now()
	if _, err := fmt.Fprintf(a, "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n\r\n", path, a.RemoteAddr(), header); err != nil {
		return 0, err
	}
	err := readAnswer(a.r)
	return time.Since(began), err
}

// percentiles are two of them, as metrics.
func percentiles(took []time.Duration) []metric {
	slices.Sort(took)
	return []metric{{float64(took[len(took)/2].Nanoseconds()), "p50-ns"}, {float64(took[len(took)*99/100].Nanoseconds()), "p99-ns"}}
}

// oneByOne takes turns, on one connection each: a local GET, a fresh one, and ListOffsets of all partitions by a client of our own.
func (b *bench) oneByOne(ctx context.Context, cl *kgo.Client, address, prefix string, t dataset.Topic) error {
	a, err := dialAsker(address)
	if err != nil {
		return err
	}
	defer a.Close()
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	topic := kmsg.NewListOffsetsRequestTopic()
	topic.Topic = t.Name
	for p := range t.Partitions {
		part := kmsg.NewListOffsetsRequestTopicPartition()
		part.Partition, part.Timestamp = p, -1
		topic.Partitions = append(topic.Partitions, part)
	}
	req.Topics = append(req.Topics, topic)
	brokers, err := kadm.NewClient(cl).ListBrokers(ctx)
	if err != nil {
		return err
	}
	broker := cl.Broker(int(brokers[0].NodeID))
	var local, fresh, offsets []time.Duration
	for until := time.Now().Add(b.getTime); time.Now().Before(until) && ctx.Err() == nil; {
		path := prefix + string(dataset.AppendKey(nil, rand.IntN(t.Keys)))
		for _, ask := range []struct {
			header string
			took   *[]time.Duration
		}{{"Kkv-Consistency: local", &local}, {freshHeader, &fresh}} {
			d, err := a.get(path, ask.header)
			if err != nil {
				return err
			}
			*ask.took = append(*ask.took, d)
		}
		began := time.Now()
		if _, err := broker.Request(ctx, req); err != nil {
			return err
		}
		offsets = append(offsets, time.Since(began))
	}
	for _, r := range []struct {
		name string
		took []time.Duration
	}{{"Fresh/ask=local", local}, {"Fresh/ask=fresh", fresh}, {"ListOffsets", offsets}} {
		if err := b.results.add(r.name, percentiles(r.took)...); err != nil {
			return err
		}
	}
	return nil
}

// visible writes one record after the other and reads each, by the offset that was answered, as soon as it is acknowledged.
func (b *bench) visible(ctx context.Context, cl *kgo.Client, address, prefix string, t dataset.Topic) error {
	a, err := dialAsker(address)
	if err != nil {
		return err
	}
	defer a.Close()
	var acked, read []time.Duration
	for until, version := time.Now().Add(b.getTime), 1; time.Now().Before(until) && ctx.Err() == nil; version++ {
		i := rand.IntN(t.Keys)
		key := dataset.AppendKey(nil, i)
		rec := &kgo.Record{Key: key, Value: t.AppendValue(nil, i, version)}
		began := time.Now()
		if err := cl.ProduceSync(ctx, rec).FirstErr(); err != nil {
			return err
		}
		acked = append(acked, time.Since(began))
		if _, err := a.get(prefix+string(key), fmt.Sprintf("Kkv-At-Least: %d:%d", rec.Partition, rec.Offset)); err != nil {
			return err
		}
		read = append(read, time.Since(began))
	}
	if err := b.results.add("Visible/at=acknowledged", percentiles(acked)...); err != nil {
		return err
	}
	return b.results.add("Visible/at=read", percentiles(read)...)
}

// restartClients ask meanwhile, one request after the other.
const restartClients = 8

// restarts asks two replicas while each is restarted, as a rolling update does it. A request that fails is sent once more, to the
// other replica; what fails then has failed.
func (b *bench) restarts(ctx context.Context, br *broker, t dataset.Topic) error {
	replicas := [2]*child{}
	addresses := [2]string{}
	defer func() {
		for _, c := range replicas {
			if c != nil {
				c.kill()
			}
		}
	}()
	for i := range replicas {
		var err error
		if replicas[i], addresses[i], err = b.readyKkv(ctx, br, t); err != nil {
			return err
		}
	}
	lctx, stop := context.WithCancel(ctx)
	defer stop()
	var requests, retried, failed atomic.Int64
	var clients sync.WaitGroup
	for range restartClients {
		clients.Go(func() {
			client := &http.Client{Transport: &http.Transport{}, Timeout: 10 * time.Second}
			defer client.CloseIdleConnections()
			for i := 0; lctx.Err() == nil; i++ {
				path := "/v1/topics/" + t.Name + "/keys/" + string(dataset.AppendKey(nil, rand.IntN(t.Keys)))
				requests.Add(1)
				if getOnce(client, addresses[i%2]+path) == nil {
					continue
				}
				retried.Add(1)
				if err := getOnce(client, addresses[(i+1)%2]+path); err != nil {
					failed.Add(1)
					fmt.Fprintln(os.Stderr, "failed on both replicas:", err)
				}
			}
		})
	}
	for i := range replicas {
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
		if err := replicas[i].stop(ctx); err != nil {
			return err
		}
		var err error
		if replicas[i], err = startChild("kkv serve", b.program("kkv"), "serve", "--kafka-bootstrap", br.address, "--topic", t.Name, "--listen", addresses[i]); err != nil {
			return err
		}
		if _, _, err := replicas[i].waitFor(ctx, kkvReady, startTimeout); err != nil {
			return err
		}
	}
	stop()
	clients.Wait()
	return b.results.add("Restart", metric{float64(requests.Load()), "requests"}, metric{float64(retried.Load()), "retried"}, metric{float64(failed.Load()), "failed"})
}

// getOnce is nil for an answer of status 200 that came whole.
func getOnce(client *http.Client, url string) error {
	resp, err := client.Get("http://" + url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return nil
}

// stop ends the process as a Kubernetes does, and waits for its end.
func (c *child) stop(ctx context.Context) error {
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	late := time.After(time.Minute)
	for {
		select {
		case _, ok := <-c.lines:
			if !ok {
				return nil
			}
		case <-late:
			return fmt.Errorf("%s has not ended within a minute of SIGTERM; its last lines:\n%s", c.name, c.last())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *results) freshRows() [][]string {
	rows := [][]string{{"what", "req/s", "p50, µs", "p99, µs"}}
	for _, s := range []struct{ name, title string }{
		{"Fresh/ask=local", "local GET, one at a time"},
		{"Fresh/ask=fresh", "fresh GET, one at a time"},
		{"ListOffsets", "ListOffsets by franz-go, one at a time"},
		{"FreshLoad/ask=local", fmt.Sprintf("local GET, %d connections", getConnections)},
		{"FreshLoad/ask=fresh", fmt.Sprintf("fresh GET, %d connections", getConnections)},
		{"Visible/at=acknowledged", "produced, until acknowledged"},
		{"Visible/at=read", "produced, until then read by its offset"},
	} {
		if len(r.runs[s.name]) > 0 {
			rows = append(rows, []string{s.title, r.cell(s.name, "req/s", 1, "%.0f"), r.spread(s.name, "p50-ns", 1e-3, "%.0f"), r.spread(s.name, "p99-ns", 1e-3, "%.0f")})
		}
	}
	if v, ok := r.median("Restart", "requests"); ok {
		retried, _ := r.median("Restart", "retried")
		rows = append(rows, []string{fmt.Sprintf("%.0f requests while both of two replicas restart, %.0f sent once more", v, retried), "–", "–", "–"})
	}
	return rows
}

// reachFresh is issue 5's list of what is to be reached.
func (r *results) reachFresh(add func(what string, v float64, ok, most bool, limit float64, format string)) {
	local, ok := r.median("Fresh/ask=local", "p50-ns")
	fresh, _ := r.median("Fresh/ask=fresh", "p50-ns")
	question, _ := r.median("ListOffsets", "p50-ns")
	add("fresh GET, p50, µs: a local one and two ListOffsets", fresh*1e-3, ok, true, (local+2*question)*1e-3, "%.0f")
	v, ok := r.median("FreshLoad/ask=fresh", "req/s")
	add("fresh GETs per second beside the broker", v, ok, false, 5000, "%.0f")
	read, ok := r.median("Visible/at=read", "p50-ns")
	acked, _ := r.median("Visible/at=acknowledged", "p50-ns")
	add("produced until read, p50, ms over the acknowledgement", (read-acked)*1e-6, ok, true, 1, "%.2f")
	v, ok = r.median("Restart", "failed")
	add("requests that failed while replicas restart, retried once on the other", v, ok, true, 0, "%.0f")
}
