package robustness

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kkv-project/kkv/internal/verify"
)

// What a receiver does with a POST.
const (
	takes int32 = iota
	fails
	hangs
	slow
	resets
	modes
)

// receiver takes webhooks, well or badly. Each run of a replica posts to a path of its own.
type receiver struct {
	w         *world
	name, url string
	mode      atomic.Int32
	srv       *http.Server
}

func (w *world) newReceiver(n int) *receiver {
	c := &receiver{w: w, name: fmt.Sprint("receiver-", n)}
	l, url := w.listen()
	c.url = url
	c.serve(l)
	w.receivers = append(w.receivers, c)
	w.t.Cleanup(func() { _ = c.srv.Close() })
	return c
}

func (c *receiver) serve(l net.Listener) {
	c.srv = &http.Server{Handler: c}
	go func(srv *http.Server) { _ = srv.Serve(l) }(c.srv)
}

// run has the receiver misbehave now and then.
func (c *receiver) run(n int) {
	r := c.w.rand("receiver", n)
	for c.w.pause(r, 10*time.Second) {
		if mode := r.Int32N(modes + 1); mode < modes {
			c.mode.Store(mode)
			c.w.pause(r, 4*time.Second)
			c.mode.Store(takes)
			continue
		}
		_ = c.srv.Close()
		c.w.pause(r, 4*time.Second)
		l, err := c.w.kafka.Net.Listen("tcp", strings.TrimPrefix(c.url, "http://"))
		if err != nil {
			c.w.t.Error(err)
			return
		}
		c.serve(l)
	}
	c.mode.Store(takes)
}

func (c *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	p := verify.Post{Receiver: c.name, At: c.w.rec.Now()}
	var body struct {
		Topic   string
		Offsets map[string]int64
		Updates map[string]struct{}
	}
	b, err := io.ReadAll(req.Body)
	if err != nil {
		return // cut off
	}
	if p.Run, err = strconv.Atoi(strings.TrimPrefix(req.URL.Path, "/")); err == nil {
		err = json.Unmarshal(b, &body)
	}
	if err != nil || len(body.Updates) == 0 || len(body.Offsets) == 0 || body.Topic != topic {
		c.w.t.Errorf("POST %s of %s: %v", req.URL.Path, b, err)
		return
	}
	p.Keys, p.Offsets = slices.Sorted(maps.Keys(body.Updates)), map[int32]int64{}
	for partition, offset := range body.Offsets {
		n, err := strconv.Atoi(partition)
		if err != nil {
			c.w.t.Errorf("POST %s of %s: %v", req.URL.Path, b, err)
		}
		p.Offsets[int32(n)] = offset
	}
	c.w.counts.posts.Add(1)
	switch c.mode.Load() {
	case fails:
		w.WriteHeader(http.StatusInternalServerError)
	case hangs:
		select {
		case <-req.Context().Done():
		case <-c.w.over:
		}
	case resets:
		if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
			_ = conn.Close()
		}
	case slow:
		<-time.After(300 * time.Millisecond)
		p.OK = true
	default:
		p.OK = true
	}
	c.w.rec.Post(p)
}
