package demo

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kkv-project/kkv"
)

// Dev is what the page of `kkv dev` can do to what runs beside it. It is for loopback only: whoever can reach the page
// can press its buttons.
type Dev struct {
	Locked string // why no button can be pressed, "" if they can
	Lag    Switch // on: replica 2 is LagBy behind
	Kafka  Switch // on: Kafka runs, which it does at first
}

// Switch is a button. Set is called by one request at a time.
type Switch struct {
	Set func(on bool) error
	Off string // why it cannot be turned, "" if it can
}

// LagBy is how far replica 2 is behind while it is made to lag.
const LagBy = 3 * time.Second

// devPath is below assetPath, where no key's page is.
const devPath = assetPath + "dev/"

// devPoll is how often pages hear of ages and of the load.
const devPoll = 250 * time.Millisecond

// console is the part of an App that Options.Dev adds.
type console struct {
	app  *App
	o    Dev
	acks *acks
	load *load
	http *http.Client
	poke chan struct{} // look at once

	mu         sync.Mutex // one button at a time
	lag, kafka bool
}

// devState is what the page shows of it, as the event "dev".
type devState struct {
	Replicas []replicaState `json:"replicas"`
	Lag      bool           `json:"lag"`
	Kafka    bool           `json:"kafka"`
	Load     loadState      `json:"load"`
}

type replicaState struct {
	AgeMs *int64 `json:"ageMs"` // null: not known
}

func newConsole(a *App, o Dev) *console {
	c := &console{app: a, o: o, acks: newAcks(a.hub.changed), load: newLoad(a.replicas), http: a.o.HTTPClient, poke: make(chan struct{}, 1), kafka: true}
	if c.http == nil {
		c.http = &http.Client{}
	}
	return c
}

// Acked tells the page of `kkv dev` that Kafka has just acknowledged a write, so that it can say how long each replica took
// from there until it showed it. Without Options.Dev it does nothing.
func (a *App) Acked(partition int32, offset int64) {
	if a.dev != nil {
		a.dev.acks.acked(record{partition, offset}, time.Now())
	}
}

// run keeps the pages told until ctx ends.
func (c *console) run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { c.load.run(gctx); return nil })
	g.Go(func() error {
		tick := time.NewTicker(devPoll)
		defer tick.Stop()
		for {
			select {
			case <-gctx.Done():
				return nil
			case <-tick.C:
			case <-c.poke:
			}
			if c.app.hub.watched() {
				c.app.hub.tell(c.state(gctx))
			}
		}
	})
	return g.Wait()
}

func (c *console) state(ctx context.Context) *devState {
	st := &devState{Replicas: make([]replicaState, len(c.app.replicas)), Load: c.load.state()}
	c.mu.Lock()
	st.Lag, st.Kafka = c.lag, c.kafka
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var asked sync.WaitGroup
	for i, r := range c.app.replicas {
		asked.Go(func() { st.Replicas[i].AgeMs = c.age(ctx, r) })
	}
	asked.Wait()
	return st
}

// age is how old a replica's data may be at most, in milliseconds; nil where that is not known.
func (c *console) age(ctx context.Context, r *replica) *int64 {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.o.Servers[0]+"/v1/topics/"+r.o.Topic, nil)
	if err != nil {
		return nil
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	var topic struct {
		Partitions []struct{ AgeMs *int64 }
	}
	if json.NewDecoder(resp.Body).Decode(&topic) != nil {
		return nil
	}
	var most *int64
	for _, p := range topic.Partitions {
		if p.AgeMs == nil {
			return nil
		}
		if most == nil || *p.AgeMs > *most {
			most = p.AgeMs
		}
	}
	return most
}

// route answers below devPath.
func (c *console) route(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	name := r.URL.Path[len(devPath):]
	want := http.MethodPost
	if name == "read" {
		want = http.MethodGet
	}
	if r.Method != want {
		w.Header().Set("Allow", want)
		http.Error(w, "the method is "+want, http.StatusMethodNotAllowed)
		return
	}
	switch name {
	case "read":
		c.read(w, r)
	case "lag":
		c.turn(w, r, c.o.Lag, &c.lag)
	case "kafka":
		c.turn(w, r, c.o.Kafka, &c.kafka)
	case "load":
		c.turn(w, r, Switch{Set: func(on bool) error { c.load.set(on); return nil }}, new(bool))
	default:
		http.NotFound(w, r)
	}
}

// turn sets a switch to what the form says, and remembers it in is.
func (c *console) turn(w http.ResponseWriter, r *http.Request, s Switch, is *bool) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	on, err := strconv.ParseBool(r.PostFormValue("on"))
	status := http.StatusBadRequest
	switch off := cmp.Or(c.o.Locked, s.Off); {
	case err != nil:
		err = errors.New("send on=true or on=false")
	case off != "":
		status, err = http.StatusConflict, errors.New(off)
	default:
		status = http.StatusInternalServerError
		c.mu.Lock()
		if err = s.Set(on); err == nil {
			*is = on
		}
		c.mu.Unlock()
	}
	if err != nil {
		answer(w, status, map[string]string{"error": err.Error()})
		return
	}
	select {
	case c.poke <- struct{}{}:
	default:
	}
	answer(w, http.StatusOK, map[string]bool{"on": on})
}

// readAnswer is what a read came to.
type readAnswer struct {
	Color  string `json:"color"`
	Text   string `json:"text"`
	Took   string `json:"took"`
	Status int    `json:"status,omitempty"` // of HTTP, where it was refused
	Error  string `json:"error,omitempty"`  // why, in the server's words
}

// read reads a key of one replica, by a client that has seen nothing: a local read then shows what that replica holds.
func (c *console) read(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	n, err := strconv.Atoi(q.Get("replica"))
	if err != nil || n < 0 || n >= len(c.app.replicas) {
		answer(w, http.StatusBadRequest, readAnswer{Error: fmt.Sprintf("replica is 0 to %d", len(c.app.replicas)-1)})
		return
	}
	var how []kkv.ReadOption
	switch q.Get("how") {
	case "local":
	case "fresh":
		how = append(how, kkv.Fresh())
	case "at-least":
		p, err := kkv.ParsePosition(q.Get("position"))
		if err != nil {
			answer(w, http.StatusBadRequest, readAnswer{Error: err.Error()})
			return
		}
		how = append(how, kkv.AtLeast(p))
	default:
		answer(w, http.StatusBadRequest, readAnswer{Error: "how is local, fresh or at-least"})
		return
	}
	o := c.app.replicas[n].o
	o.HTTPClient = c.http
	client, err := kkv.NewClient(o)
	if err != nil {
		answer(w, http.StatusInternalServerError, readAnswer{Error: err.Error()})
		return
	}
	began := time.Now()
	e, err := client.Get(r.Context(), q.Get("key"), how...)
	a := readAnswer{Took: milliseconds(time.Since(began))}
	var refused *kkv.StatusError
	switch {
	case err == nil:
		b := boxOf(e)
		a.Color, a.Text = b.Color, b.Text
	case errors.Is(err, kkv.ErrNotFound):
		a.Text = "no such key"
	case errors.As(err, &refused):
		a.Status, a.Error = refused.Status, refused.Detail
	default:
		a.Error = err.Error()
	}
	answer(w, http.StatusOK, a)
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the browser is gone if this fails
}
