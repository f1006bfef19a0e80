// Package demo is the sidecar-demo application: every key of the topic as a coloured box that changes as the topic
// does, and a page per key with "Hello Kafka!" on the key's colour. It is written on the public Go client and uses
// nothing else of kkv, so it is that client's first user and an example of it.
//
// The page at / lists all keys and has a form that puts a colour; /{key} is the page of one key; /events is the
// stream of server-sent events that keeps both current; /healthz is for a probe. With Options.Dev it is the page of
// `kkv dev`: replicas side by side, how old they are, reads of each, and what can be done to them ([Dev]).
package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kkv-project/kkv"
)

// Options of an App. The zero value shows the one topic of the cache beside it.
type Options struct {
	Server     []string // the cache's replicas, as kkv.Options.Servers; with Dev they are shown side by side
	Topic      string   // may be empty while the cache has one topic
	Token      string
	Logger     *slog.Logger // nil: silent
	HTTPClient *http.Client // nil: the client's own
	// Try is the command line that the page shows while there are no keys. Default: a PUT to the first server.
	Try string
	// Dev makes it the page of `kkv dev`; nil for all others.
	Dev *Dev
}

// App is the application. Its Handler may be served before, while and after Run runs; it is safe for concurrent use.
type App struct {
	o        kkv.Options
	try      string
	hub      *hub
	replicas []*replica
	dev      *console // nil without Options.Dev
	root     http.Handler
}

// replica is a mirror that a page shows: of one server, or of the first of several that answers.
type replica struct {
	n       int // from 0
	o       kkv.Options
	mirror  atomic.Pointer[kkv.Mirror] // nil before Run
	delayed delays
}

// New checks o and starts nothing.
func New(o Options) (*App, error) {
	a := &App{
		o:   kkv.Options{Servers: o.Server, Topic: o.Topic, Token: o.Token, Logger: o.Logger, HTTPClient: o.HTTPClient},
		try: o.Try,
		hub: newHub(),
	}
	if _, err := kkv.NewClient(a.o); err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	if a.try == "" {
		server, topic := kkv.DefaultServer, "sidecar-demo"
		if len(o.Server) > 0 {
			server = strings.TrimRight(o.Server[0], "/")
		}
		if o.Topic != "" {
			topic = o.Topic
		}
		a.try = fmt.Sprintf(`curl -X PUT %s/v1/topics/%s/keys/A -d '{ "id": "A", "color": "red" }'`, server, topic)
	}
	a.replicas = []*replica{{o: a.o}}
	if o.Dev != nil {
		a.replicas = nil
		for i, server := range o.Server {
			r := &replica{n: i, o: a.o}
			r.o.Servers = []string{server}
			a.replicas = append(a.replicas, r)
		}
		a.dev = newConsole(a, *o.Dev)
	}
	a.root = http.NewCrossOriginProtection().Handler(http.HandlerFunc(a.route))
	return a, nil
}

// Handler is the application's pages.
func (a *App) Handler() http.Handler { return a.root }

// livePoll is how often pages learn whether the cache is connected.
const livePoll = 250 * time.Millisecond

// Run mirrors the topic until ctx ends, which is no error; then it ends the pages' event streams, so that a server
// that shuts down need not wait for them. Its error is that of a mirror: a token or topic that the cache refuses.
// It is to be called once.
func (a *App) Run(ctx context.Context) error {
	defer a.hub.close()
	g, gctx := errgroup.WithContext(ctx)
	for _, r := range a.replicas {
		g.Go(func() error { return a.follow(gctx, r) })
	}
	if a.dev != nil {
		g.Go(func() error { return a.dev.run(gctx) })
	}
	return g.Wait()
}

// follow mirrors one replica.
func (a *App) follow(ctx context.Context, r *replica) error {
	m, err := kkv.Open(ctx, r.o)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer m.Close()
	defer m.OnUpdate(func(u kkv.Update) {
		if a.dev != nil {
			a.dev.acks.shown(r, u)
		}
		a.hub.changed(r.n, u.Key)
	})()
	r.mirror.Store(m)
	if err := m.Ready(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("demo: %w", err)
	}
	tick := time.NewTicker(livePoll)
	defer tick.Stop()
	for {
		a.hub.status(a.status())
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// status is that of all replicas together.
func (a *App) status() status {
	st := status{Ready: true, Live: true}
	for _, r := range a.replicas {
		var s kkv.Stats
		if m := r.mirror.Load(); m != nil {
			s = m.Stats()
		}
		st.Ready, st.Live = st.Ready && s.Ready, st.Live && s.Live
	}
	return st
}

// get is the box of a key.
func (r *replica) get(key string) (box, bool) {
	if m := r.mirror.Load(); m != nil {
		if e, ok := m.Get(key); ok {
			return r.box(e), true
		}
	}
	return box{}, false
}

// all is every box in key order.
func (r *replica) all() []box {
	boxes := []box{}
	if m := r.mirror.Load(); m != nil {
		for _, e := range m.All("") {
			boxes = append(boxes, r.box(e))
		}
	}
	return boxes
}

func (r *replica) box(e kkv.Entry) box {
	b := boxOf(e)
	b.Replica, b.Delay = r.n, r.delayed.of(e)
	return b
}

// putTimeout bounds a form's put, until it is visible here.
const putTimeout = 10 * time.Second

// put writes a colour and returns when this application shows it. The status is what to answer; the position is zero
// unless the write is acknowledged.
func (a *App) put(ctx context.Context, key, color string) (status int, pos kkv.Position, err error) {
	m := a.replicas[0].mirror.Load()
	switch {
	case key == "":
		return http.StatusUnprocessableEntity, pos, errors.New("give a key, such as A")
	case !safeColor(color):
		return http.StatusUnprocessableEntity, pos,
			fmt.Errorf("%q is not a colour; give a CSS colour name, #hex, rgb(…) or hsl(…), such as red or #0a7", color)
	case m == nil:
		return http.StatusServiceUnavailable, pos, errors.New("starting; try again in a moment")
	}
	ctx, cancel := context.WithTimeout(ctx, putTimeout)
	defer cancel()
	pos, err = m.Put(ctx, key, valueOf(key, color))
	switch {
	case err == nil:
		return http.StatusOK, pos, nil
	case !pos.IsZero():
		return http.StatusAccepted, pos, nil // the box changes when the cache is back
	case errors.Is(err, kkv.ErrReadOnly):
		return http.StatusMethodNotAllowed, pos, fmt.Errorf("the cache takes no writes: %w", err)
	case errors.Is(err, kkv.ErrOutcomeUnknown):
		return http.StatusGatewayTimeout, pos, fmt.Errorf("nobody knows whether it was written; see whether the box changes: %w", err)
	}
	return http.StatusServiceUnavailable, pos, fmt.Errorf("not written: %w", err)
}
