// Package robustness lets random traffic run into random faults, in virtual time, and then has every checker of
// internal/verify look at what the clients saw: replicas that restart, writers of all kinds, readers in every mode,
// watchers that resume elsewhere, webhook receivers that misbehave; and a Kafka that refuses, dawdles, cuts off, moves
// its leaders, compacts, grows and loses its topic.
//
// All of a run follows from its seed, but for the order in which goroutines of one moment take their turns.
package robustness

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kkv-project/kkv/internal/verify"
)

var (
	oneSeed = flag.Uint64("seed", 0, "run this seed alone")
	seeds   = flag.Int("seeds", 4, "how many seeds to run; 0: until one fails")
	verbose = flag.Bool("faults", false, "log the faults, and what the replicas say")
)

func TestPromises(t *testing.T) {
	if *oneSeed != 0 {
		run(t, *oneSeed)
		return
	}
	first := rand.Uint64N(1e9)
	for i := 0; *seeds == 0 || i < *seeds; i += 100 {
		n := 100
		if *seeds > 0 {
			n = min(n, *seeds-i)
		}
		t.Run("from", func(t *testing.T) { // ends when all of these have
			for s := range uint64(n) {
				seed := first + uint64(i) + s
				t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
					t.Parallel()
					run(t, seed)
				})
			}
		})
		if t.Failed() {
			return
		}
	}
}

// run is one seed's.
func run(t *testing.T, seed uint64) {
	began := time.Now()
	var w *world
	synctest.Test(t, func(t *testing.T) {
		w = newWorld(t, seed)
		w.live()
	})
	h := w.rec.History()
	err := verify.Check(h)
	c := &w.counts
	t.Logf("seed %d: %d writes (%d by PUT and DELETE, %d in commits), %d reads (%d fresh, %d at least, %d max-stale, %d lists), %d watches (%d resumed, %d resets), %d POSTs, %d runs, %d topics; %v",
		seed, len(h.Writes), c.puts.Load(), c.commits.Load(), w.answers.Load(), c.fresh.Load(), c.atLeast.Load(), c.maxStale.Load(), c.lists.Load(),
		len(h.Streams), c.resumed.Load(), c.resets.Load(), c.posts.Load(), len(h.Runs), len(h.Log.Topics), time.Since(began).Round(time.Millisecond))
	if err != nil {
		t.Errorf("seed %d (go test ./test/robustness -seed %d):\n%v", seed, seed, err)
	}
}

// live is the run inside of its bubble.
func (w *world) live() {
	for i := range 2 {
		c := w.newReceiver(i)
		w.clients.Go(func() { c.run(i) })
	}
	for i := range 3 {
		w.newReplica(i)
	}
	for i := range writers {
		x := w.newWriter(i)
		w.clients.Go(func() { x.run(200*time.Millisecond, []func(){x.plain, x.plain, x.transaction, x.http}[i]) })
	}
	for i := range 4 {
		w.clients.Go(func() { w.newReader(i).run(200 * time.Millisecond) })
	}
	var watchers sync.WaitGroup
	for i := range 3 {
		watchers.Go(func() { w.newWatcher(i).run() })
	}
	w.clients.Go(func() { (&nemesis{w, w.rand("faults", 0)}).run() })
	<-time.After(trafficFor)
	close(w.ending)
	w.clients.Wait()
	<-time.After(quietFor)
	if !w.collect() {
		w.t.Error("a transaction is open at the end")
	}
	end := w.end()
	w.rec.Do(func(h *verify.History) { h.End = end })
	w.awaitPosts()
	w.lastReads()
	close(w.over)
	watchers.Wait()
}

// awaitPosts lets time pass for receivers that have failed often: the pause between two tries grows to a minute.
func (w *world) awaitPosts() {
	for range 8 {
		var missing error
		w.rec.Do(func(h *verify.History) { missing = verify.PushEventually(h) })
		if missing == nil {
			return
		}
		<-time.After(10 * time.Second)
	}
}

// lastReads asks every replica for everything, fresh.
func (w *world) lastReads() {
	for _, r := range w.replicas {
		run, base, _ := r.at()
		op := verify.Read{Run: run, MaxStale: -1, Age: -1, Kind: verify.List, Fresh: true, Final: true, Call: w.rec.Now()}
		err := w.newReader(-1).send(context.Background(), &op, http.MethodGet, base+"/v1/topics/"+topic+"/keys?values=true&consistency=fresh&timeout=5s", nil, "", nil)
		if err != nil || op.Status != 200 {
			w.t.Errorf("%s answers the last fresh list with %d %s, %v", r.name, op.Status, op.Problem, err)
			continue
		}
		op.Return = w.rec.Now()
		w.rec.Read(op)
	}
}
