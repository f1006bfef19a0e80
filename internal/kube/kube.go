// Package kube watches who stands behind a Kubernetes service, by its EndpointSlices (discovery.k8s.io/v1) and with the pod's own
// service account, so that updates reach the pods that are there, and are kept for those that are not ready (DESIGN decision 8,
// GUARANTEES rule 17).
//
// It is one list and one watch of one kind, so it speaks HTTP and JSON by itself: client-go would triple the size of the program.
//
// Invariants, each with the fault that it prevents:
//   - Token and certificates are read from their files anew: a token lives for an hour.
//   - The last list stays while the API server is away, or says no: pushes to pods that are still there go on.
//   - A watch goes on at the last resourceVersion seen, bookmarks included; one that is too old (410) lists again. Whatever else
//     cannot be understood lists again as well: what was missed is unknown.
//   - A watch has a deadline of its own, a bit after the one that the server was asked for: a connection through a middlebox that forgot
//     it would stay silent for ever.
//   - A watch that ends as soon as it begins counts as a failure, and so does a version that is too old right after the list that gave
//     it: they would be asked for in a hot loop.
package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	requestTimeout = 30 * time.Second // of a list, and until a watch begins
	watchTimeout   = 5 * time.Minute  // at least; up to twice that, so that not all watches of a server end at once
	watchGrace     = 30 * time.Second // that a watch may overrun
	watchTooShort  = time.Second      // a watch that ended before that has failed
	minPause       = time.Second      // after a failure; doubles up to maxPause, and a random half is left out
	maxPause       = 30 * time.Second
)

// Options of New. Account, Namespace and Service are required.
type Options struct {
	Account   Account
	Namespace string
	Service   string
	// Resync lists anew this often, whatever the watch says; 0: only when it must be.
	Resync time.Duration
	// Transport is for tests. nil: one of our own, that trusts the account's ca.crt alone.
	Transport http.RoundTripper
	Logger    *slog.Logger // nil: slog.Default
}

// Watcher follows one service. Stats may be called at any time; Run once.
type Watcher struct {
	o         Options
	transport http.RoundTripper
	trusted   string // the certificates that transport trusts
	closeIdle func()

	slices    map[string]*endpointSlice
	version   string // the resourceVersion from which to watch; "": list first
	listed    time.Time
	endpoints []Endpoint // as given out last
	given     bool

	events atomic.Int64

	mu       sync.Mutex
	failures int    // since the last watch that worked
	told     string // the error that the log has
}

// Stats are for metrics.
type Stats struct {
	Down   bool  // listing or watching fails
	Events int64 // changes of slices that the watch has told of
}

// New makes a Watcher, which does nothing before Run.
func New(o Options) *Watcher {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	o.Logger = o.Logger.With("service", o.Service, "namespace", o.Namespace)
	return &Watcher{o: o}
}

// Stats returns how the watch is.
func (w *Watcher) Stats() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	return Stats{Down: w.failures > 0, Events: w.events.Load()}
}

// Run calls set with all endpoints once they are known and at each change, until ctx ends; then it returns nil. It never gives up: while
// the API server cannot be asked, or denies, it says so in the log, once, and keeps trying.
func (w *Watcher) Run(ctx context.Context, set func([]Endpoint)) error {
	defer func() {
		if w.closeIdle != nil {
			w.closeIdle()
		}
	}()
	for {
		err := w.step(ctx, set)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			continue
		}
		select {
		case <-time.After(pause(w.failed(err))):
		case <-ctx.Done():
			return nil
		}
	}
}

// failed says so, unless it has said just that, and returns how many failures there were since the last watch that worked.
func (w *Watcher) failed(err error) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failures++
	if text := err.Error(); text != w.told {
		w.told = text
		w.o.Logger.Warn("the watch of the service's endpoints fails; those known stay, and it is tried again for ever", "error", err)
	}
	return w.failures
}

// works is called while a watch is open.
func (w *Watcher) works() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failures > 0 {
		w.o.Logger.Info("the watch of the service's endpoints works again")
	}
	w.failures, w.told = 0, ""
}

// step lists, if that is due, and watches until the watch ends.
func (w *Watcher) step(ctx context.Context, set func([]Endpoint)) error {
	if err := w.trust(); err != nil {
		return err
	}
	if w.version == "" || w.o.Resync > 0 && time.Since(w.listed) >= w.o.Resync {
		if err := w.list(ctx); err != nil {
			return fmt.Errorf("list the EndpointSlices of service %s/%s: %w", w.o.Namespace, w.o.Service, err)
		}
		w.give(set)
	}
	if err := w.watch(ctx, set); err != nil {
		return fmt.Errorf("watch the EndpointSlices of service %s/%s: %w", w.o.Namespace, w.o.Service, err)
	}
	return nil
}

func (w *Watcher) list(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	began := time.Now()
	body, err := w.get(ctx, url.Values{})
	if err != nil {
		return err
	}
	defer body.Close()
	var l struct {
		Kind     string           `json:"kind"`
		Metadata metadata         `json:"metadata"`
		Items    []*endpointSlice `json:"items"`
	}
	if err := json.NewDecoder(body).Decode(&l); err != nil {
		return fmt.Errorf("not a list: %w", err)
	}
	if l.Kind != "EndpointSliceList" || l.Metadata.ResourceVersion == "" {
		return fmt.Errorf("not a list: kind %q, resourceVersion %q", l.Kind, l.Metadata.ResourceVersion)
	}
	w.slices = make(map[string]*endpointSlice, len(l.Items))
	for _, s := range l.Items {
		w.slices[s.Metadata.Name] = s
	}
	w.version, w.listed = l.Metadata.ResourceVersion, began
	return nil
}

// give tells set if the endpoints are not those that it knows.
func (w *Watcher) give(set func([]Endpoint)) {
	now := merge(w.slices, w.endpoints)
	if w.given && slices.Equal(now, w.endpoints) {
		return
	}
	w.endpoints, w.given = now, true
	set(slices.Clone(now))
}

// watch takes in events until the server ends the watch or the next list is due, which is no error. It forgets the version if the next
// step has to list.
func (w *Watcher) watch(ctx context.Context, set func([]Endpoint)) error {
	timeout := watchTimeout + rand.N(watchTimeout)
	if w.o.Resync > 0 {
		timeout = min(timeout, max(time.Until(w.listed.Add(w.o.Resync)), 2*watchTooShort))
	}
	// In whole seconds, and upwards: the step after it is to find the list due.
	seconds := int64((timeout + time.Second - 1) / time.Second)
	wctx, cancel := context.WithTimeout(ctx, time.Duration(seconds)*time.Second+watchGrace)
	defer cancel()
	body, err := w.get(wctx, url.Values{"watch": {"true"}, "allowWatchBookmarks": {"true"}, "resourceVersion": {w.version},
		"timeoutSeconds": {strconv.FormatInt(seconds, 10)}})
	began := time.Now()
	if err == nil {
		working := time.AfterFunc(watchTooShort, w.works)
		err = w.read(body, set)
		working.Stop()
		_ = body.Close()
	}
	if status := (*StatusError)(nil); errors.As(err, &status) {
		w.version = ""
		if status.Code == http.StatusGone && time.Since(w.listed) >= watchTooShort {
			return nil
		}
		return err
	}
	// However a watch ended that has worked for a while, at its time or cut off: the next one goes on where it was. If that fails, it is
	// worth a word.
	if w.version != "" && body != nil && time.Since(began) >= watchTooShort {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return errors.New("it ends as soon as it begins")
	}
	return err
}

// read takes in events until there is an error; io.EOF is that of a watch that ended as it should.
func (w *Watcher) read(body io.Reader, set func([]Endpoint)) error {
	for events := json.NewDecoder(body); ; {
		var e struct {
			Type   string          `json:"type"`
			Object json.RawMessage `json:"object"`
		}
		if err := events.Decode(&e); err != nil {
			if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
				w.version = ""
			}
			return err
		}
		if e.Type == "ERROR" {
			w.version = ""
			status := &StatusError{}
			if err := json.Unmarshal(e.Object, status); err != nil {
				return fmt.Errorf("event ERROR: %w", err)
			}
			return status
		}
		s := &endpointSlice{}
		if err := json.Unmarshal(e.Object, s); err != nil || s.Metadata.ResourceVersion == "" {
			w.version = ""
			return fmt.Errorf("event %q with no EndpointSlice: %.200q", e.Type, e.Object)
		}
		switch e.Type {
		case "ADDED", "MODIFIED":
			w.slices[s.Metadata.Name] = s
		case "DELETED":
			delete(w.slices, s.Metadata.Name)
		case "BOOKMARK":
			w.version = s.Metadata.ResourceVersion
			continue
		default:
			w.version = ""
			return fmt.Errorf("event of unknown type %q", e.Type)
		}
		w.version = s.Metadata.ResourceVersion
		w.events.Add(1)
		w.give(set)
	}
}

// pause is how long to wait after so many failures in a row.
func pause(failures int) time.Duration {
	d := minPause
	for i := 1; i < failures && d < maxPause; i++ {
		d = min(2*d, maxPause)
	}
	return d - rand.N(d/2+1)
}
