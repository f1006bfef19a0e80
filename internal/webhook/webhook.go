// Package webhook tells applications over HTTP which keys have changed: the POST of Yolean's kafka-keyvalue,
// byte for byte (its v1 body), but never given up (DESIGN decision 8, GUARANTEES rule 17).
//
// Each target has a goroutine of its own that reads the feed at its own cursor and merges what it reads into the
// target's pending keys: one entry a key, whatever happened to it meanwhile. So a slow or dead target delays only
// itself, and what it costs is bounded by the number of keys. One POST is under way per target; a failed one is
// tried again for ever, after a pause that doubles from Options.Backoff to 60 s and of which a random half is
// left out. A try again is byte-identical unless the partition changed meanwhile: then it is merged anew.
//
// Invariants, each with the fault that it prevents:
//   - A POST holds keys of one partition and its one offset is never lower than one that the target was already
//     sent for that partition. The npm client keeps, per key, the highest offset of the POST that named it, and
//     ignores a POST that is not above it.
//   - A POST's offset is never above what had been read of that partition when it was made. So the next change of
//     any of its keys has a higher offset and is heard; and the client's read, which demands that offset of the
//     cache, is met, for the feed only speaks of what is already readable.
//   - Deleted keys travel in POSTs of their own, after the puts that were pending beside them: the npm client
//     spends 5 s on each key that it cannot find, during which the keys behind it in the same POST wait. Both
//     POSTs may carry one offset, since no key is in both.
//   - A body stays below the 100 kB beyond which the npm client's route answers 413 (body-parser's default): a
//     merged update of many keys could otherwise never be delivered.
//
// What v1 cannot say: a key that moves to another partition where offsets are lower, and any key after its topic
// was created again, may be ignored by the npm client until its offsets have grown past the old ones.
package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"github.com/kkv-project/kkv/internal/feed"
	"github.com/kkv-project/kkv/internal/position"
)

// Defaults of Options, and the bounds that are not settings.
const (
	DefaultBackoff        = time.Second
	DefaultTimeout        = 10 * time.Second
	DefaultMaxKeysPerPost = 1000

	maxBackoff = 60 * time.Second
	maxBody    = 64 << 10 // bytes; see the package comment
	maxDrain   = 64 << 10 // bytes of an answer that are read, so that its connection can be used again
)

// Source is what the dispatcher needs of a cache; *cache.Cache satisfies it. It is safe for concurrent use.
type Source interface {
	// Reader starts at the next batch that the cache applies.
	Reader() *feed.Reader
	// ChangedSince calls f for every live key whose newest record lies at or after since (all live keys for the
	// zero Position, or one that is not of this log's lineage), in any order, and returns the position of that
	// state together with a reader that starts right after it. Of keys deleted since then it may name those that
	// it remembers; for the zero Position it names live keys only. A Change and its bytes are valid only during
	// the call of f.
	ChangedSince(since position.Position, f func(feed.Change)) (position.Position, *feed.Reader)
}

// Options of New. Source and Topic are required.
type Options struct {
	Source  Source
	Topic   string
	Targets Targets // nil: none
	// Backoff is the pause after the first failure; it doubles up to 60 s (or stays, if itself longer), and each
	// pause is cut by a random part of up to one half. 0 means DefaultBackoff.
	Backoff time.Duration
	// Timeout bounds one POST, its answer included; 0 means DefaultTimeout.
	Timeout time.Duration
	// Client sends the POSTs; it must heed the request's context. Redirects are never followed, whatever it says.
	// nil: one of our own, which takes no proxy from the environment, since targets stand beside the cache.
	Client *http.Client
	// History: also push what was read while loading (the setting ONUPDATE_AFTER_OFFSET=earliest).
	History bool
	// Loading reports whether the cache has not yet been ready for the first time. It is asked only when a reader
	// fell off the ring before it had seen anything live, to tell history from changes. nil: never loading.
	Loading func() bool
	// MaxKeysPerPost bounds the keys of one POST; 0 means DefaultMaxKeysPerPost. Its body has a bound of its own.
	MaxKeysPerPost int
	Logger         *slog.Logger // nil: slog.Default
}

// Dispatcher pushes a cache's changes to targets. Its methods are safe for concurrent use.
type Dispatcher struct {
	o      Options
	client *http.Client
	own    bool // client is ours to close

	dispatched, suppressed, invalid atomic.Uint64
	ok, failures, merged, retries   atomic.Uint64
	invalidOnce                     sync.Once

	mu      sync.Mutex
	targets map[string]*target
}

// New makes a Dispatcher, which does nothing before Run.
func New(o Options) *Dispatcher {
	if o.Targets == nil {
		o.Targets = Static()
	}
	if o.Backoff <= 0 {
		o.Backoff = DefaultBackoff
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if o.MaxKeysPerPost <= 0 {
		o.MaxKeysPerPost = DefaultMaxKeysPerPost
	}
	if o.Loading == nil {
		o.Loading = func() bool { return false }
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	d := &Dispatcher{o: o, targets: map[string]*target{}, own: o.Client == nil}
	d.client = newClient(o.Client)
	return d
}

// Run pushes until ctx ends, then cancels what is under way and returns nil once all of its goroutines have
// ended. Its only error is that of Targets. Call it once, and before the cache becomes ready: a target is told of
// what is applied after it was first listed.
func (d *Dispatcher) Run(ctx context.Context) error {
	if d.own {
		defer d.client.CloseIdleConnections()
	}
	g, gctx := errgroup.WithContext(ctx)
	counter := d.o.Source.Reader()
	g.Go(func() error {
		d.count(gctx, counter)
		return nil
	})
	g.Go(func() error {
		err := d.o.Targets.Run(gctx, func(list []Target) { d.set(gctx, g, list) })
		if err != nil && gctx.Err() == nil {
			return fmt.Errorf("watch webhook targets: %w", err)
		}
		return nil
	})
	return g.Wait()
}

// set makes list the targets. A target that is not in it is dropped with all that was pending.
func (d *Dispatcher) set(ctx context.Context, g *errgroup.Group, list []Target) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	listed := make(map[string]bool, len(list))
	for _, l := range list {
		if listed[l.ID] {
			continue
		}
		listed[l.ID] = true
		if t := d.targets[l.ID]; t != nil {
			t.update(l)
			continue
		}
		tctx, cancel := context.WithCancel(ctx)
		t := newTarget(d, l, cancel)
		d.targets[l.ID] = t
		g.Go(func() error {
			defer cancel()
			t.run(tctx)
			return nil
		})
	}
	for id, t := range d.targets {
		if !listed[id] {
			t.cancel()
			delete(d.targets, id)
		}
	}
}

// count keeps the counters that are about changes, not about targets. It goes through the feed by itself, so that
// they count each change once, however many targets there are.
func (d *Dispatcher) count(ctx context.Context, r *feed.Reader) {
	for {
		b, err := r.Next(ctx)
		switch {
		case errors.Is(err, feed.ErrLagged):
			r = d.o.Source.Reader() // only counts are lost
			continue
		case err != nil:
			return
		case b.History && !d.o.History:
			continue
		}
		push := b.Reset != ""
		for i := range b.Changes {
			switch c := &b.Changes[i]; {
			case !d.valid(c.Key):
				d.invalid.Add(1)
			case suppress(c):
				d.suppressed.Add(1)
			default:
				push = true
			}
		}
		if push {
			d.dispatched.Add(1)
		}
	}
}

// suppress reports whether c by itself is no reason for a push (rule 17: never where expiry touched the key).
func suppress(c *feed.Change) bool { return c.Equal && c.Reason == "" }

// valid reports whether a JSON body can name key.
func (d *Dispatcher) valid(key []byte) bool {
	if utf8.Valid(key) {
		return true
	}
	d.invalidOnce.Do(func() {
		d.o.Logger.Warn("webhooks leave out keys that are not UTF-8, for JSON cannot name them; applications "+
			"that need them should read the watch instead (logged once, counted)",
			"topic", d.o.Topic, "key", fmt.Sprintf("%.64q", key))
	})
	return false
}
