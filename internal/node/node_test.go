package node

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kkv-project/kkv/internal/kafkatest"
)

// run starts a writable node on kfake and returns what ends it, what it ended with, and a client.
func run(t *testing.T, k *kafkatest.Cluster, drain time.Duration) (end func(), ended chan error, c *http.Client) {
	t.Helper()
	l, err := k.Net.Listen("tcp", "localhost:8091")
	if err != nil {
		t.Fatal(err)
	}
	n, err := New(Options{Kafka: k.Config(), Topic: k.Topic, Listener: l, Writable: true, Drain: drain, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended = make(chan error, 1)
	go func() { ended <- n.Run(ctx, 5*time.Second) }()
	<-n.Cache().Ready()
	tr := &http.Transport{DialContext: k.Net.DialContext}
	t.Cleanup(tr.CloseIdleConnections)
	return cancel, ended, &http.Client{Transport: tr}
}

func ask(t *testing.T, c *http.Client, method, path, body string) (status int, answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://localhost:8091"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	resp, err := c.Do(req)
	if err != nil {
		t.Fatalf("after %v: %v", time.Since(began), err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// TestDrain: told to end, a node is unready at once and serves on, writes and watches too; then the watches end with a
// hint, and a PUT that is under way is still answered once the cache has read it.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := kafkatest.Start(t, "t", 1)
		end, ended, c := run(t, k, 5*time.Second)
		resp, err := c.Get("http://localhost:8091/v1/topics/t/watch?since=now")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		watch := bufio.NewScanner(resp.Body)
		next := func(want string) {
			t.Helper()
			if !watch.Scan() || !strings.HasPrefix(watch.Text(), `{"type":"`+want+`"`) {
				t.Errorf("the watch says %s, want %s", watch.Text(), want)
			}
		}
		next("synced")

		began := time.Now()
		end()
		synctest.Wait()
		if status, _ := ask(t, c, "GET", "/q/health/ready", ""); status != 503 {
			t.Errorf("ready at once after the signal: %d", status)
		}
		kafkatest.Pass(3 * time.Second)
		if status, _ := ask(t, c, "PUT", "/v1/topics/t/keys/a", "1"); status != 200 {
			t.Errorf("PUT while draining: %d", status)
		}
		next("put")
		if status, _ := ask(t, c, "GET", "/v1/topics/t/keys/a?consistency=fresh", ""); status != 200 {
			t.Errorf("fresh GET while draining: %d", status)
		}
		if status, _ := ask(t, c, "GET", "/v1/topics/t/watch", ""); status != 503 {
			t.Errorf("a new watch while draining: %d", status)
		}

		// The record of this PUT reaches the cache when the drain is over.
		kafkatest.Pass(time.Until(began.Add(4500 * time.Millisecond)))
		late := k.Fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.KafkaStorageError, Count: -1})
		time.AfterFunc(time.Second, late.Remove)
		if status, answer := ask(t, c, "PUT", "/v1/topics/t/keys/b?timeout=20s", "2"); status != 200 {
			t.Errorf("PUT under way at the end: %d %s", status, answer)
		}
		if took := time.Since(began); took < 5*time.Second {
			t.Errorf("the PUT was answered after %v, before the end", took)
		}
		if !watch.Scan() || !strings.HasPrefix(watch.Text(), `{"type":"closing","retryMs":`) || watch.Scan() {
			t.Errorf("the watch ends with %s", watch.Text())
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestDrainAWriteThatWaits: what the cache cannot read before the end was still acknowledged, and is answered so.
func TestDrainAWriteThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := kafkatest.Start(t, "t", 1)
		end, ended, c := run(t, k, time.Second)
		defer k.Fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.KafkaStorageError, Count: -1}).Remove()
		time.AfterFunc(time.Second, end)
		if status, answer := ask(t, c, "PUT", "/v1/topics/t/keys/b?timeout=60s", "2"); status != 202 {
			t.Errorf("PUT: %d %s", status, answer)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestDrainNothing: without a drain, and while loading, the end comes at once.
func TestDrainNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := kafkatest.Start(t, "t", 1)
		end, ended, _ := run(t, k, 0)
		began := time.Now()
		end()
		if err := <-ended; err != nil || time.Since(began) > 600*time.Millisecond { // a fetch under way
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}
