// Command bench measures kkv beside what else there is for the same work, in one go on one machine: franz-go into a Go
// map, Kafka Streams' GlobalKTable, Redis, a bare net/http handler, all against Apache Kafka 4.1 where Kafka is in it.
//
// Programs that are compared run in turns, one at a time, and the medians are printed. Every single run goes to
// results/ in Go's benchmark format, for benchstat. Started by bench/run, in the directory bench.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kkv-project/kkv/bench/dataset"
)

// settings are the command line's.
type settings struct {
	only         []string
	topics       []string
	runs         int
	streamsRuns  int
	scale        int
	getTime      time.Duration
	settle       time.Duration
	pushTime     time.Duration
	watcherCount int
	batch        int
	compression  string
	profiles     string
	quick        bool
}

// parts are what can be measured, in the order they run.
var parts = []struct {
	name string
	what string
	run  func(*bench, context.Context) error
}{
	{"store", "in process: full collection, Get while writes and a list go on", (*bench).store},
	{"replay", "in process, kfake's endless topic: how fast records can be taken in", (*bench).replay},
	{"start", "process start to ready, and memory", (*bench).start},
	{"churn", "memory after every key was overwritten ten times", (*bench).churn},
	{"get", "GET by key on 32 connections", (*bench).get},
	{"fresh", "fresh GETs, a write until it is read, replicas that restart", (*bench).fresh},
	{"push", "a record until a webhook or a watcher is told, many watchers, slow ones, many updates", (*bench).push},
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func flags() (s settings, report string, err error) {
	var names, topics []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	for _, t := range dataset.Topics {
		topics = append(topics, t.Name)
	}
	list := func(all []string, into *[]string) func(string) error {
		return func(text string) error {
			*into = strings.Split(text, ",")
			for _, one := range *into {
				if !slices.Contains(all, one) {
					return fmt.Errorf("%q is none of %s", one, strings.Join(all, ","))
				}
			}
			return nil
		}
	}
	s.only, s.topics = names, topics
	flag.Func("only", "parts to run, comma-separated: "+strings.Join(names, ","), list(names, &s.only))
	flag.Func("topics", "topics of the part start: "+strings.Join(topics, ","), list(topics, &s.topics))
	flag.IntVar(&s.runs, "runs", 5, "runs of each program in the part start; a third fewer rounds in others")
	flag.IntVar(&s.streamsRuns, "streams-runs", 3, "runs of Kafka Streams, which is slow; on the topic 10m always one; 0 leaves it out")
	flag.IntVar(&s.scale, "scale", 1, "divide the number of keys by this")
	flag.DurationVar(&s.getTime, "get-time", 5*time.Second, "how long each run of the part get takes")
	flag.DurationVar(&s.settle, "settle", 2*time.Second, "how long after ready the resident memory is read")
	flag.DurationVar(&s.pushTime, "push-time", time.Minute, "how long records are produced in the part push; a sixth of it where they are many or go to many")
	flag.IntVar(&s.watcherCount, "watchers", 10_000, "watchers in the part push")
	flag.IntVar(&s.batch, "batch", 16384, "largest batch of records that the loader writes, in bytes: batch.size of Java producers by default")
	flag.StringVar(&s.compression, "compression", "none", "codec of the batches: none, lz4, zstd, snappy, gzip")
	flag.StringVar(&s.profiles, "profiles", "", "directory for kkv's CPU and heap profiles of one more, unmeasured start of each topic")
	flag.BoolVar(&s.quick, "quick", false, "a try: -scale 20 -runs 2 -streams-runs 1 -get-time 1s -settle 1s -push-time 6s -watchers 1000")
	flag.StringVar(&report, "report", "", "measure nothing: write ../docs/benchmarks.md anew from this file of results")
	flag.Parse()
	if s.quick {
		s.scale, s.runs, s.streamsRuns, s.getTime, s.settle = 20, 2, 1, time.Second, time.Second
		s.pushTime, s.watcherCount = 6*time.Second, 1000
	}
	if s.runs < 1 || s.scale < 1 || flag.NArg() > 0 {
		return s, "", errors.New("-runs and -scale are at least 1, and there are no arguments but flags")
	}
	return s, report, nil
}

// full reports whether everything is measured as docs/benchmarks.md shows it.
func (s settings) full() bool {
	return len(s.only) == len(parts) && len(s.topics) == len(dataset.Topics) && s.scale == 1 && s.runs >= 5 && s.pushTime >= time.Minute && s.watcherCount >= 10_000
}

func run() error {
	s, report, err := flags()
	if err != nil {
		return err
	}
	if report != "" {
		return writeReport(report)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "kkv-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{settings: s, dir: dir}
	defer b.close()
	if err := b.build(ctx); err != nil {
		return err
	}
	name := time.Now().UTC().Format("20060102-150405") + ".txt"
	switch {
	case s.quick:
		name = "quick-" + name
	case !s.full():
		name = "part-" + name
	}
	b.results, err = createResults(filepath.Join("results", name), machine(ctx, s))
	if err != nil {
		return err
	}
	began := time.Now()
	for _, p := range parts {
		if !slices.Contains(s.only, p.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "\n== %s: %s\n", p.name, p.what)
		if err := p.run(b, ctx); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	if err := b.results.close(time.Since(began)); err != nil {
		return err
	}
	fmt.Printf("\n%s\n%s, %s\n", b.results.table(), b.results.path, time.Since(began).Round(time.Second))
	if s.full() {
		return writeReport(b.results.path)
	}
	return nil
}

// bench is one run of the benchmarks.
type bench struct {
	settings
	dir     string // temporary: programs, data, configuration
	results *results
	broker  *broker // nil until a part wants it
	loaded  map[string]bool
}

// build makes the Go programs. kkv is built as it is released, without the race detector or debugging aids.
func (b *bench) build(ctx context.Context) error {
	for _, p := range []struct{ out, dir, pkg string }{
		{"kkv", "..", "./cmd/kkv"},
		{"gomap", ".", "./rivals/gomap"},
		{"bare", ".", "./rivals/bare"},
		{"inprocess", ".", "./inprocess"},
	} {
		cmd := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(b.dir, p.out), p.pkg)
		cmd.Dir = p.dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", p.pkg, err, out)
		}
	}
	return nil
}

func (b *bench) program(name string) string { return filepath.Join(b.dir, name) }

func (b *bench) close() {
	if b.broker != nil {
		b.broker.close()
	}
}

// topic is the one of that name, at the scale asked for.
func (b *bench) topic(name string) dataset.Topic {
	for _, t := range dataset.Topics {
		if t.Name == name {
			return t.Scaled(b.scale)
		}
	}
	panic("no topic " + name)
}

// rounds is how often parts other than start repeat what they measure.
func (b *bench) rounds() int { return max(1, b.runs*2/3) }
