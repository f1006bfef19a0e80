package demo

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kkv-project/kkv"
)

const (
	heartbeat    = 15 * time.Second // a comment at least so often, so that a browser that left is noticed
	writeTimeout = 10 * time.Second // a browser that takes nothing for so long is cut off, and will come back
	// A page that is sent many boxes at once is left alone for a moment: nobody sees more pictures a second.
	manyBoxes = 16
	breath    = 50 * time.Millisecond
)

// status is what a page says about the way from the topic to here.
type status struct {
	Ready bool `json:"ready"` // the first state is whole
	Live  bool `json:"live"`  // and kept current at present
}

// hub tells event streams which keys changed. It keeps no values: a stream reads the newest one when it gets round to
// it, so a slow browser costs a set of keys and misses nothing but what is out of date.
type hub struct {
	mu     sync.Mutex
	subs   map[*sub]struct{}
	st     status
	dev    *devState // nil before the first, and without Options.Dev
	closed chan struct{}
	once   sync.Once
}

// sub is one stream's view of the hub.
type sub struct {
	key  *string       // only this key, if not nil
	wake chan struct{} // has room for one

	dirty map[boxID]struct{} // guarded by the hub's lock, as what follows
	st    bool               // the status changed
	dev   bool               // the state of `kkv dev` changed
}

// boxID names one box of a page.
type boxID struct {
	replica int
	key     string
}

func newHub() *hub {
	return &hub{subs: make(map[*sub]struct{}), closed: make(chan struct{})}
}

func (h *hub) add(key *string) *sub {
	s := &sub{key: key, wake: make(chan struct{}, 1), dirty: make(map[boxID]struct{})}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.subs[s] = struct{}{}
	return s
}

func (h *hub) remove(s *sub) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.subs, s)
}

// changed never waits for a stream.
func (h *hub) changed(replica int, key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subs {
		if s.key == nil || *s.key == key && replica == 0 {
			s.dirty[boxID{replica, key}] = struct{}{}
			s.signal()
		}
	}
}

// watched reports whether any page is open.
func (h *hub) watched() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.subs) > 0
}

// tell hands on the state of `kkv dev`.
func (h *hub) tell(st *devState) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dev = st
	for s := range h.subs {
		s.dev = true
		s.signal()
	}
}

func (h *hub) status(st status) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.st == st {
		return
	}
	h.st = st
	for s := range h.subs {
		s.st = true
		s.signal()
	}
}

func (h *hub) current() status {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.st
}

// close ends every stream, also those to come.
func (h *hub) close() {
	h.status(status{Ready: h.current().Ready})
	h.once.Do(func() { close(h.closed) })
}

func (s *sub) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// news is what changed since the last take; st and dev are nil if they did not.
type news struct {
	boxes []boxID // in key order
	st    *status
	dev   *devState
	ready bool
}

func (h *hub) take(s *sub) news {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := news{boxes: slices.Collect(maps.Keys(s.dirty)), ready: h.st.Ready}
	clear(s.dirty)
	slices.SortFunc(n.boxes, func(a, b boxID) int { return cmp.Or(strings.Compare(a.key, b.key), a.replica-b.replica) })
	if s.st {
		st := h.st
		n.st = &st
	}
	if s.dev {
		n.dev = h.dev
	}
	s.st, s.dev = false, false
	return n
}

// events streams boxes: "state", all of them, whenever the whole is new to the page; then "put" and "delete" of
// one, and "status". With key= it is about that key alone.
func (a *App) events(w http.ResponseWriter, r *http.Request) {
	var key *string
	if q := r.URL.Query(); q.Has("key") {
		key = new(string)
		*key = q.Get("key")
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	if r.Method == http.MethodHead {
		return
	}
	out := stream{w: w, rc: http.NewResponseController(w), b: []byte("retry: 1000\n\n")}
	s := a.hub.add(key) // before the state is read, so that nothing falls between the two
	defer a.hub.remove(s)
	ready := a.state(&out, key)
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for out.flush() == nil {
		select {
		case <-r.Context().Done():
			return
		case <-a.hub.closed:
			return
		case <-tick.C:
			out.b = append(out.b, ":\n\n"...)
		case <-s.wake:
			n := a.hub.take(s)
			if n.ready && !ready { // the first state is no update
				ready = a.state(&out, key)
				continue
			}
			a.tell(&out, n)
			if len(n.boxes) > manyBoxes && out.flush() == nil && !a.hub.pause(r.Context(), breath) {
				return
			}
		}
	}
}

// pause waits for d; it reports false when the stream is to end.
func (h *hub) pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-h.closed:
	}
	return false
}

// tell appends what changed.
func (a *App) tell(out *stream, n news) {
	for _, id := range n.boxes {
		if b, ok := a.replicas[id.replica].get(id.key); ok {
			out.event("put", b)
		} else {
			b := boxOf(kkv.Entry{Key: id.key})
			b.Replica = id.replica
			out.event("delete", b)
		}
	}
	if n.st != nil {
		out.event("status", n.st)
	}
	if n.dev != nil {
		out.event("dev", n.dev)
	}
}

// state appends all that the page shows, and reports whether that is the topic's.
func (a *App) state(out *stream, key *string) (ready bool) {
	var state struct {
		status
		Boxes []box `json:"boxes"`
	}
	state.status = a.hub.current()
	state.Boxes = []box{}
	if key == nil {
		for _, r := range a.replicas {
			state.Boxes = append(state.Boxes, r.all()...)
		}
	} else if b, ok := a.replicas[0].get(*key); ok {
		state.Boxes = append(state.Boxes, b)
	}
	out.event("state", state)
	return state.Ready
}

// stream collects events and writes them together.
type stream struct {
	w  http.ResponseWriter
	rc *http.ResponseController
	b  []byte
}

func (s *stream) event(name string, v any) {
	data, _ := json.Marshal(v) // boxes and statuses always marshal, on one line
	s.b = append(s.b, "event: "+name+"\ndata: "...)
	s.b = append(append(s.b, data...), '\n', '\n')
}

func (s *stream) flush() error {
	_ = s.rc.SetWriteDeadline(time.Now().Add(writeTimeout)) // a ResponseWriter of a test may have none
	_, err := s.w.Write(s.b)
	s.b = s.b[:0]
	if err != nil {
		return err
	}
	return s.rc.Flush()
}
