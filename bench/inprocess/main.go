// Command inprocess measures what lies beneath HTTP and Kafka, in the process that it measures: the cache's memory as
// the garbage collector sees it, its reads while writes and a list go on, and how fast records can be taken in. It
// prints lines in Go's benchmark format.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kkv-project/kkv/bench/dataset"
	"github.com/kkv-project/kkv/internal/cache"
	"github.com/kkv-project/kkv/internal/ingest"
	"github.com/kkv-project/kkv/internal/store"
)

func main() {
	what := flag.String("what", "store", "store or replay")
	scale := flag.Int("scale", 1, "divide the number of keys by this")
	profile := flag.String("profile", "", "file for a CPU profile of it all")
	flag.Parse()
	if *profile != "" {
		f, err := os.Create(*profile)
		if err == nil {
			err = pprof.StartCPUProfile(f)
		}
		if err != nil {
			log.Fatal(err)
		}
		defer pprof.StopCPUProfile()
	}
	t := dataset.Topics[0].Scaled(*scale)
	switch *what {
	case "store":
		collect(t)
		getWhile(t)
	case "replay":
		take(t)
		if err := replay(2 * time.Second); err != nil {
			log.Fatal(err)
		}
	default:
		log.Fatalf("measure %q: it is store or replay", *what)
	}
}

// batchLen is how many records are applied at a time: about what a poll brings.
const batchLen = 500

// batches are the records of the versions from first to before last of each key, as ingest would hand them over.
func batches(t dataset.Topic, first, last int) []*ingest.Batch {
	next := make([]int64, t.Partitions)
	for p := range next {
		next[p] = int64(first * t.Keys)
	}
	now := time.Now().UnixMilli()
	var bs []*ingest.Batch
	for i := first * t.Keys; i < last*t.Keys; {
		b := &ingest.Batch{Records: make([]ingest.Record, 0, batchLen)}
		for ; i < last*t.Keys && len(b.Records) < batchLen; i++ {
			key, version := t.Record(i)
			p := int32(key) % t.Partitions
			b.Records = append(b.Records, ingest.Record{Key: dataset.AppendKey(nil, key), Value: t.AppendValue(make([]byte, 0, t.ValueBytes), key, version),
				Partition: p, Offset: next[p], Timestamp: now + int64(i)/100})
			next[p]++
		}
		for p := range t.Partitions {
			b.Progress = append(b.Progress, ingest.Progress{Partition: p, Next: next[p]})
		}
		bs = append(bs, b)
	}
	return bs
}

// loading is a cache that is being loaded: it reads no topic, records are applied by hand. loaded has them all, and its keys in
// order.
func loading(t dataset.Topic) *cache.Cache {
	c := cache.New(cache.Options{Ingest: ingest.Options{Topic: t.Name}})
	inc := ingest.Incarnation{TopicID: [16]byte{1}}
	for p := range t.Partitions {
		inc.Partitions = append(inc.Partitions, ingest.Progress{Partition: p})
	}
	c.Load(inc, "")
	return c
}

func loaded(t dataset.Topic, bs []*ingest.Batch) *cache.Cache {
	c := loading(t)
	for _, b := range bs {
		c.Apply(b)
	}
	c.Loaded()
	if _, _, err := c.Snapshot(); err != nil { // waits for the order
		log.Fatal(err)
	}
	return c
}

func goMap(bs []*ingest.Batch) map[string][]byte {
	m := map[string][]byte{}
	for _, b := range bs {
		for i := range b.Records {
			m[string(b.Records[i].Key)] = bytes.Clone(b.Records[i].Value)
		}
	}
	return m
}

// collect times full collections with nothing but the data in memory.
func collect(t dataset.Topic) {
	c := loaded(t, batches(t, 0, 1))
	fullCollections(t, "kkv", c)
	runtime.KeepAlive(c)
	m := goMap(batches(t, 0, 1)) // c is garbage by now
	fullCollections(t, "gomap", m)
	runtime.KeepAlive(m)
}

func fullCollections(t dataset.Topic, by string, _ any) {
	runtime.GC() // what was there before
	runtime.GC()
	var took []time.Duration
	for range 9 {
		began := time.Now()
		runtime.GC()
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fmt.Printf("BenchmarkCollect/by=%s 1 %d ns/op %d heap-B %.3f heap/payload\n", by, took[len(took)/2].Nanoseconds(), m.HeapAlloc,
		float64(m.HeapAlloc)/float64(t.Payload()))
}

// writesPerSecond is the rate that issue 4 names.
const writesPerSecond = 100_000

// getWhile times Get alone, and while writes go on, and a list, and both.
func getWhile(t dataset.Topic) {
	c := loaded(t, batches(t, 0, 1))
	for _, state := range []struct {
		name         string
		writes, list bool
		pause        time.Duration
	}{
		{"reader=paced/during=nothing", false, false, readPause}, {"reader=paced/during=writes", true, false, readPause},
		{"reader=paced/during=list", false, true, readPause}, {"reader=paced/during=both", true, true, readPause},
		{"reader=busy/during=nothing", false, false, 0}, {"reader=busy/during=both", true, true, 0},
	} {
		ctx, cancel := context.WithCancel(context.Background())
		g, ctx := errgroup.WithContext(ctx)
		var written, listed atomic.Int64
		if state.writes {
			more := batches(t, 1, 2)
			g.Go(func() error { return write(ctx, c, t, more, &written) })
		}
		if state.list {
			g.Go(func() error { return list(ctx, c, &listed) })
		}
		began := time.Now()
		took := gets(c, t, 2*time.Second, state.pause)
		elapsed := time.Since(began).Seconds()
		cancel()
		if err := g.Wait(); err != nil {
			log.Fatal(err)
		}
		slices.Sort(took)
		at := func(q float64) int64 { return int64(took[int(float64(len(took)-1)*q)]) }
		fmt.Printf("BenchmarkGetWhile/%s 1 %d p50-ns %d p99-ns %d p99.9-ns %d max-ns %.0f writes/s %.0f listed/s\n", state.name, at(.5), at(.99), at(.999),
			at(1), float64(written.Load())/elapsed, float64(listed.Load())/elapsed)
	}
}

// readPause is between two bursts of a paced reader, as requests come. A busy one has none: it always runs, on warm
// caches, and is the harder measure.
const readPause = 100 * time.Microsecond

// gets reads random keys in bursts and returns how long each read took.
func gets(c *cache.Cache, t dataset.Topic, d, pause time.Duration) []uint32 {
	const burst = 32
	took := make([]uint32, 0, 1<<20)
	var keys [burst][]byte
	for until := time.Now().Add(d); time.Now().Before(until); time.Sleep(pause) {
		for i := range keys {
			keys[i] = dataset.AppendKey(keys[i][:0], rand.IntN(t.Keys))
		}
		for _, key := range keys {
			var r store.Record
			began := time.Now()
			ok, _, err := c.Get(key, &r)
			took = append(took, uint32(min(time.Since(began).Nanoseconds(), 1<<32-1)))
			if !ok || err != nil {
				log.Fatalf("get %s: %v %v", key, ok, err)
			}
		}
	}
	return took
}

// write applies batches at writesPerSecond, about one each millisecond.
func write(ctx context.Context, c *cache.Cache, t dataset.Topic, bs []*ingest.Batch, n *atomic.Int64) error {
	const chunk = writesPerSecond / 1000
	began := time.Now()
	for i := 0; ctx.Err() == nil; i++ {
		b := bs[i%len(bs)]
		for from := 0; from < len(b.Records) && ctx.Err() == nil; from += chunk {
			c.Apply(&ingest.Batch{Records: b.Records[from:min(from+chunk, len(b.Records))], Progress: b.Progress})
			n.Add(int64(min(chunk, len(b.Records)-from)))
			time.Sleep(time.Until(began.Add(time.Duration(n.Load()) * time.Second / writesPerSecond)))
		}
	}
	return nil
}

// list goes through everything, again and again, as a list's handler does but for the socket.
func list(ctx context.Context, c *cache.Cache, n *atomic.Int64) error {
	buf := make([]byte, 0, 64<<10)
	for ctx.Err() == nil {
		snap, _, err := c.Snapshot()
		if err != nil {
			return err
		}
		for r := range snap.All(nil, nil) {
			buf = fmt.Appendf(buf, "{%q:%q}\n", r.Key, r.Value)
			n.Add(1)
			if len(buf) > 32<<10 {
				if _, err := io.Discard.Write(buf); err != nil || ctx.Err() != nil {
					return err
				}
				buf = buf[:0]
			}
		}
	}
	return nil
}
