package devbroker

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func produce(t *testing.T, addr string, values ...string) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.DefaultProduceTopic("t"))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for _, v := range values {
		if err := cl.ProduceSync(t.Context(), kgo.KeySliceRecord([]byte("k"), []byte(v))).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

func consume(t *testing.T, addr string, n int) (values []string) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumeTopics("t"))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for len(values) < n {
		fs := cl.PollFetches(ctx)
		if err := fs.Err0(); err != nil {
			t.Fatal(err)
		}
		fs.EachRecord(func(r *kgo.Record) { values = append(values, string(r.Value)) })
	}
	return values
}

func TestDataOutlivesTheBroker(t *testing.T) {
	dir := t.TempDir()
	for i := range 3 {
		b, err := Start(Options{Listen: "127.0.0.1:0", DataDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.CreateTopic("t", 1); err != nil {
			t.Fatal(err)
		}
		produce(t, b.Addr(), "1", "2")
		if got := consume(t, b.Addr(), 2*(i+1)); len(got) != 2*(i+1) {
			t.Errorf("start %d: read %q", i, got)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDirectoryThatCannotBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(Options{Listen: "127.0.0.1:0", DataDir: file}); err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "--data-dir") {
		t.Errorf("a file as data directory: %v", err)
	}
}

func TestOneProcessADirectoryAndPort(t *testing.T) {
	dir := t.TempDir()
	b, err := Start(Options{Listen: "127.0.0.1:0", DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Start(Options{Listen: "127.0.0.1:0", DataDir: dir}); !errors.Is(err, ErrInUse) {
		t.Errorf("a second broker on the directory: %v", err)
	}
	if _, err := Start(Options{Listen: b.Addr()}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second broker on the port: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b, err = Start(Options{Listen: "127.0.0.1:0", DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestStopAndResume(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "0.0.0.0"} {
		b, err := Start(Options{Listen: host + ":0"})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.CreateTopic("t", 1); err != nil {
			t.Fatal(err)
		}
		produce(t, b.Addr(), "1")
		if err := b.Stop(); err != nil {
			t.Fatal(err)
		}
		if c, err := net.Dial("tcp", b.Addr()); err == nil {
			_ = c.Close()
			t.Errorf("%s: a stopped broker takes connections", host)
		}
		if err := errors.Join(b.Stop(), b.Resume(), b.Resume()); err != nil {
			t.Fatal(err)
		}
		produce(t, b.Addr(), "2")
		if got := consume(t, b.Addr(), 2); !slices.Equal(got, []string{"1", "2"}) {
			t.Errorf("%s: read %q", host, got)
		}
		if err := errors.Join(b.Stop(), b.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLag: a client behind a Lag gets a record when it has the age that was set, hears of the log's end at once, and has what
// it missed when the lag ends.
func TestLag(t *testing.T) {
	b, err := Start(Options{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.CreateTopic("t", 1); err != nil {
		t.Fatal(err)
	}
	lag := NewLag()
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.Addr()), kgo.Dialer(lag.Dial), kgo.ConsumeTopics("t"))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	next := func(want string) (age time.Duration) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		for {
			fs := cl.PollFetches(ctx)
			if err := fs.Err0(); err != nil {
				t.Fatal(err)
			}
			if rs := fs.Records(); len(rs) > 0 {
				if string(rs[0].Value) != want {
					t.Fatalf("read %q, want %q", rs[0].Value, want)
				}
				return time.Since(rs[0].Timestamp)
			}
		}
	}
	produce(t, b.Addr(), "1")
	next("1")

	const by = 400 * time.Millisecond
	lag.Set(by)
	produce(t, b.Addr(), "2")
	ends, err := kadm.NewClient(cl).ListEndOffsets(t.Context(), "t")
	if err != nil {
		t.Fatal(err)
	}
	if end, _ := ends.Lookup("t", 0); end.Offset != 2 {
		t.Errorf("the log's end is told as %d, want 2", end.Offset)
	}
	if age := next("2"); age < by {
		t.Errorf("the record came when it was %v old, want %v", age, by)
	}

	lag.Set(time.Hour)
	produce(t, b.Addr(), "3")
	lag.Set(0)
	next("3")

	// Under load each record has the age, however many come together.
	lag.Set(by)
	var sent []string
	for began := time.Now(); time.Since(began) < 2*by; sent = append(sent, "load") {
		produce(t, b.Addr(), "load")
	}
	for got := 0; got < len(sent); {
		fs := cl.PollFetches(t.Context())
		if err := fs.Err0(); err != nil {
			t.Fatal(err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			got++
			if age := time.Since(r.Timestamp); age < by {
				t.Errorf("record %d came when it was %v old, want %v", r.Offset, age, by)
			}
		})
	}

	// A client that ends is not held up by what is.
	lag.Set(time.Hour)
	produce(t, b.Addr(), "4")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if fs := cl.PollFetches(ctx); fs.NumRecords() > 0 {
		t.Errorf("a record came an hour early")
	}
	began := time.Now()
	cl.Close()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("closing took %v", took)
	}
}
