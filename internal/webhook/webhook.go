// Package webhook tells applications over HTTP what has changed, and never gives up (DESIGN decision 8, GUARANTEES
// rule 17): with the POST of Yolean's kafka-keyvalue, byte for byte (v1: which keys), or with a body of our own (v2:
// values, deletes, positions), signed as Standard Webhooks have it.
//
// Each target has a goroutine of its own that reads the feed at its own cursor and merges what it reads into the
// target's pending keys: one entry a key, whatever happened to it meanwhile. So a slow or dead target delays only
// itself, and what it costs is bounded by the number of keys. One POST is under way per target; a failed one is
// tried again for ever, after a pause that doubles from Options.Backoff to 60 s and of which a random half is
// left out. A try again is byte-identical unless what it tells changed meanwhile: then it is merged anew.
//
// Invariants of v1, each with the fault that it prevents:
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
	maxDrain   = 64 << 10 // bytes of an answer that are read, so that its connection can be used again
)

// Source is what the dispatcher needs of a cache; *cache.Cache satisfies it. It is safe for concurrent use.
type Source interface {
	// Reader starts at the next batch that the cache applies.
	Reader() *feed.Reader
	// ChangedSince calls f for every key touched at or after since, put or deleted, in any order, and returns the
	// position of that state together with a reader that starts right after it. A reset other than "" says why that
	// cannot be known: f got all live keys. So it does for the zero Position. A Change and its bytes are valid only
	// during the call of f.
	ChangedSince(since position.Position, f func(feed.Change)) (at position.Position, reset string, r *feed.Reader)
	// Newest returns what the cache has of each key now, a deleted Change if nothing, all of one state, with that
	// state's position: the zero one before the cache is ready. The bytes are views.
	Newest(keys [][]byte) ([]feed.Change, position.Position)
}

// Options of New. Source and Topic are required.
type Options struct {
	Source  Source
	Topic   string
	Targets Targets // nil: none
	// V2: bodies with values, of any partition, in place of the original's.
	V2 bool
	// Secrets sign the POSTs, if there are any.
	Secrets []Secret
	// Lookback: a receiver that is first seen while the cache is ready is told what has changed for so long, if that is
	// known.
	Lookback time.Duration
	// Resume is a file that keeps how far each target was told, written at most once a second and at the end, so that a
	// restart goes on from there; "": none.
	Resume string
	// Backoff is the pause after the first failure; it doubles up to 60 s (or stays, if itself longer), and each
	// pause is cut by a random part of up to one half. 0 means DefaultBackoff.
	Backoff time.Duration
	// Timeout bounds one POST, its answer included; 0 means DefaultTimeout.
	Timeout time.Duration
	// Client sends the POSTs; it must heed the request's context. Redirects are never followed, whatever it says.
	// nil: one of our own, which takes no proxy from the environment, since targets stand beside the cache.
	Client *http.Client
	// History: also push what was read while loading (the setting ONUPDATE_AFTER_OFFSET=earliest). Not in v2, which
	// begins with the whole state.
	History bool
	// Loading reports whether the cache has not yet been ready for the first time. nil: never loading.
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
	form   form
	past   past

	dispatched, suppressed, invalid atomic.Uint64
	ok, failures                    atomic.Uint64
	invalidOnce                     sync.Once

	mu      sync.Mutex
	targets map[string]*target
	cursors cursors // what it keeps is guarded by mu
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
	d.client, d.form, d.past.back = newClient(o.Client), v1{o.Topic}, o.Lookback
	if o.V2 {
		d.form, d.o.History = v2{o.Topic, o.Source}, false
	}
	return d
}

// Run pushes until ctx ends, then cancels what is under way and returns nil once all of its goroutines have
// ended. Its errors are those of Targets and of the file Resume. Call it once, and before the cache becomes ready: a target is told of
// what is applied after it was first listed.
func (d *Dispatcher) Run(ctx context.Context) error {
	if d.own {
		defer d.client.CloseIdleConnections()
	}
	g, gctx := errgroup.WithContext(ctx)
	if d.o.Resume != "" {
		if err := d.openCursors(); err != nil {
			return err
		}
		g.Go(func() error { d.keepCursors(gctx); return nil })
	}
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
	err := g.Wait()
	if d.o.Resume != "" {
		err = errors.Join(err, d.saveCursors())
	}
	return err
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
		if !b.History {
			d.past.add(time.Now(), b.Position)
		}
		push := b.Reset != ""
		for i := range b.Changes {
			switch c := &b.Changes[i]; {
			case !d.carries(c.Key):
				d.invalid.Add(1)
			case d.form.quiet(c):
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

// carries reports whether a body can name key.
func (d *Dispatcher) carries(key []byte) bool {
	if d.form.carries(key) {
		return true
	}
	d.invalidOnce.Do(func() {
		d.o.Logger.Warn("webhooks of the form v1 leave out keys that are not UTF-8, for JSON cannot name them; applications "+
			"that need them should read the watch, or be sent --webhook-body v2 (logged once, counted)",
			"topic", d.o.Topic, "key", fmt.Sprintf("%.64q", key))
	})
	return false
}
