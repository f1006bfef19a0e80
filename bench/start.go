package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/kkv-project/kkv/bench/dataset"
)

// loader is a program that takes a topic into memory.
type loader struct {
	name  string
	runs  int
	begin func(ctx context.Context, t dataset.Topic) (*child, error)
	ready string // the line with which it says that it is; its group is the number of keys
	exact bool   // that number is no estimate
	// listable, where there is one, returns once keys can be listed in their order too.
	listable func(ctx context.Context) error
	// check, where there is one, looks at some values once all is measured: what is fast and wrong does not count.
	check func(ctx context.Context) error
}

// startTimeout bounds a start; the slowest, ten million keys into a GlobalKTable, takes about a minute.
const startTimeout = 5 * time.Minute

// start measures every loader on every topic, in turns.
func (b *bench) start(ctx context.Context) error {
	for _, name := range b.topics {
		t := b.topic(name)
		br, err := b.kafka(ctx, t)
		if err != nil {
			return err
		}
		loaders, err := b.loaders(ctx, t, br)
		if err != nil {
			return err
		}
		// Nobody's first read of a topic is measured: it would warm Kafka up for those who come after.
		if _, err := b.startOnce(ctx, t, loaders[1]); err != nil {
			return err
		}
		for run := range b.runs {
			for i := range loaders {
				l := loaders[(i+run)%len(loaders)]
				if run >= l.runs {
					continue
				}
				ms, err := b.startOnce(ctx, t, l)
				if err != nil {
					return err
				}
				if err := b.results.add("Start/topic="+t.Name+"/by="+l.name, ms...); err != nil {
					return err
				}
			}
		}
		if b.profiles != "" {
			if err := b.profile(ctx, t, br); err != nil {
				return err
			}
		}
		if t.Name != "1m" { // the part get wants that one
			if err := b.remove(ctx, t); err != nil {
				return err
			}
		}
	}
	return nil
}

// loaders are kkv, the Go map, and Kafka Streams where Java and Maven are there.
func (b *bench) loaders(ctx context.Context, t dataset.Topic, br *broker) ([]*loader, error) {
	kkv := &loader{name: "kkv", runs: b.runs, ready: kkvReady, exact: true}
	var address string
	kkv.begin = func(context.Context, dataset.Topic) (c *child, err error) {
		c, address, err = b.startKkv(br, t)
		return c, err
	}
	kkv.listable = func(ctx context.Context) error { return listable(ctx, address) }
	kkv.check = func(ctx context.Context) error { return newest(ctx, address, t, t.Writes-1) }
	ls := []*loader{kkv, {name: "gomap", runs: b.runs, ready: `ready keys=(\d+)`, exact: true,
		begin: func(_ context.Context, t dataset.Topic) (*child, error) {
			return startChild("gomap", b.program("gomap"), "-bootstrap", br.address, "-topic", t.Name)
		}}}
	runs := min(b.runs, b.streamsRuns)
	if t.Name == "10m" { // half a second for each of its partitions, however little is in them
		runs = min(runs, 1)
		if b.quick {
			runs = 0
		}
	}
	if runs == 0 {
		return ls, nil
	}
	if _, err := exec.LookPath("mvn"); err != nil {
		fmt.Fprintln(os.Stderr, "Kafka Streams is left out: no mvn on PATH")
		return ls, nil
	}
	classpath, err := globalKTable(ctx)
	if err != nil {
		return nil, err
	}
	for _, kind := range []string{"memory", "rocksdb"} {
		ls = append(ls, &loader{name: "globalktable-" + kind, runs: runs, ready: `ready keys=(\d+)`, exact: kind == "memory",
			begin: func(_ context.Context, t dataset.Topic) (*child, error) {
				state := filepath.Join(b.dir, "streams")
				if err := os.RemoveAll(state); err != nil { // a new pod has nothing on its disk
					return nil, err
				}
				return startChild("GlobalKTable "+kind, "java", "-cp", classpath, "kkv.bench.GlobalTable", br.address, t.Name, kind, state)
			}})
	}
	return ls, nil
}

// kkvReady is the line with which kkv says that it is.
const kkvReady = `msg=ready .*keys=(\d+)`

// startKkv starts the cache as a user would, but for the address.
func (b *bench) startKkv(br *broker, t dataset.Topic, more ...string) (c *child, address string, err error) {
	if address, err = freeAddress(); err != nil {
		return nil, "", err
	}
	c, err = startChild("kkv serve", b.program("kkv"), append([]string{"serve", "--kafka-bootstrap", br.address, "--topic", t.Name, "--listen", address}, more...)...)
	return c, address, err
}

// readyKkv is startKkv that waits until it is ready.
func (b *bench) readyKkv(ctx context.Context, br *broker, t dataset.Topic, more ...string) (c *child, address string, err error) {
	if c, address, err = b.startKkv(br, t, more...); err != nil {
		return nil, "", err
	}
	if _, _, err = c.waitFor(ctx, kkvReady, startTimeout); err != nil {
		c.kill()
		return nil, "", err
	}
	return c, address, nil
}

// listable returns when kkv has its keys in order: only then it answers this.
func listable(ctx context.Context, address string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, "http://"+address+"/cache/v1/keys", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("HEAD /cache/v1/keys: %s", resp.Status)
	}
	return nil
}

// startOnce starts one loader, waits until it is ready, looks at its memory, and ends it.
func (b *bench) startOnce(ctx context.Context, t dataset.Topic, l *loader) ([]metric, error) {
	c, err := l.begin(ctx, t)
	if err != nil {
		return nil, err
	}
	defer c.kill()
	ready, groups, err := c.waitFor(ctx, l.ready, startTimeout)
	if err != nil {
		return nil, err
	}
	atReady, _, err := c.memory()
	if err != nil {
		return nil, err
	}
	if n, _ := strconv.Atoi(groups[1]); n != t.Keys && (l.exact || n < t.Keys*9/10) {
		return nil, fmt.Errorf("%s holds %d keys of topic %s, not %d", l.name, n, t.Name, t.Keys)
	}
	ms := []metric{{float64(ready.Sub(c.began).Nanoseconds()), "ns/op"}}
	if l.listable != nil {
		if err := l.listable(ctx); err != nil {
			return nil, err
		}
		ms = append(ms, metric{float64(time.Since(c.began).Nanoseconds()), "listable-ns"})
	}
	if err := pause(ctx, b.settle); err != nil {
		return nil, err
	}
	resident, peak, err := c.memory()
	if err != nil {
		return nil, err
	}
	if l.check != nil {
		if err := l.check(ctx); err != nil {
			return nil, err
		}
	}
	payload := float64(t.Payload())
	return append(ms, metric{float64(atReady), "at-ready-B"}, metric{float64(resident), "resident-B"}, metric{float64(peak), "peak-B"},
		metric{round(float64(resident)/payload, 3), "resident/payload"}, metric{round(float64(peak)/payload, 3), "peak/payload"},
		metric{round((float64(resident)-payload)/float64(t.Keys), 1), "overhead-B/key"}), nil
}

// round keeps that many digits behind the point, for files that people read.
func round(v float64, digits int) float64 {
	v, _ = strconv.ParseFloat(strconv.FormatFloat(v, 'f', digits, 64), 64) // what FormatFloat writes can be parsed
	return v
}

// profile starts kkv once more and keeps where its time and its memory go.
func (b *bench) profile(ctx context.Context, t dataset.Topic, br *broker) error {
	if err := os.MkdirAll(b.profiles, 0o755); err != nil {
		return err
	}
	management, err := freeAddress()
	if err != nil {
		return err
	}
	took, ok := b.results.median("Start/topic="+t.Name+"/by=kkv", "ns/op")
	if !ok {
		return nil
	}
	seconds := int(took/1e9) + 1
	c, address, err := b.startKkv(br, t, "--management-listen", management)
	if err != nil {
		return err
	}
	defer c.kill()
	if _, _, err := c.waitFor(ctx, `msg=management`, startTimeout); err != nil {
		return err
	}
	save := func(url, file string) error {
		resp, err := http.Get(url)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		f, err := os.Create(filepath.Join(b.profiles, file))
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(f, resp.Body)
		return err
	}
	if err := save(fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", management, seconds), "kkv-"+t.Name+"-cpu.pprof"); err != nil {
		return err
	}
	if err := listable(ctx, address); err != nil {
		return err
	}
	before, _, err := c.memory()
	if err != nil {
		return err
	}
	if err := save("http://"+management+"/debug/pprof/heap?gc=1", "kkv-"+t.Name+"-heap.pprof"); err != nil {
		return err
	}
	if err := pause(ctx, b.settle); err != nil {
		return err
	}
	after, _, err := c.memory()
	fmt.Fprintf(os.Stderr, "profiles of kkv on %s are in %s; resident %d MB, %d MB some time after a forced collection\n", t.Name, b.profiles, before/1e6, after/1e6)
	return err
}
