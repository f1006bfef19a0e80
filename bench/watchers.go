package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
)

// watcher is a watch on a connection of its own.
type watcher struct{ net.Conn }

// dialWatch asks for a stream and waits for its first bytes.
func dialWatch(address, path string) (*watcher, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\n\r\n", path, address); err != nil {
		return nil, err
	}
	var b [16]byte
	if _, err := conn.Read(b[:]); err != nil {
		return nil, err
	}
	if status := string(b[9:12]); status != "200" {
		return nil, fmt.Errorf("GET %s: status %s", path, status)
	}
	return &watcher{conn}, nil
}

// follow hears what comes until the connection is closed.
func (w *watcher) follow(e *ear) {
	buf := make([]byte, 4<<10)
	kept := 0
	for {
		n, err := w.Read(buf[kept:])
		if err != nil {
			return
		}
		b := buf[:kept+n]
		kept = copy(buf, b[e.hear(b, time.Now()):])
	}
}

const (
	manyRate  = 10 // updates a second
	slowCount = 10 // watchers that do not read
	slowRate  = 20 // updates a second of which they hear, beside the others', so large that they fill every buffer
	slowBytes = 100_000
)

// pushMany is many watchers of everything, on a bare handler and on kkv.
func (b *bench) pushMany(ctx context.Context) error {
	for _, by := range []string{"bare", "kkv"} {
		if err := b.watchers(ctx, streams{name: "Watchers/by=" + by, bare: by == "bare", fast: b.watcherCount}); err != nil {
			return err
		}
	}
	return nil
}

// pushSlow is a tenth of them, alone and beside some that do not read, in either case while more is written than is for them.
func (b *bench) pushSlow(ctx context.Context) error {
	for _, slow := range []int{0, slowCount} {
		s := streams{name: "SlowWatchers/n=" + strconv.Itoa(slow), fast: max(10, b.watcherCount/10), slow: slow, rest: newFlow(100, slowBytes)}
		s.rest.prefix = "rest-"
		if err := b.watchers(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// streams say what watchers measures.
type streams struct {
	name       string
	bare       bool
	fast, slow int
	rest       *flow // of kkv: also written, and only for the slow ones; may be nil
}

// watchers opens streams, looks at the memory that they take while nothing happens, and has updates sent to all of them.
func (b *bench) watchers(ctx context.Context, s streams) error {
	f := newFlow(1_000, 200)
	f.prefix = "many-"
	server, err := b.streamServer(ctx, s.bare)
	if err != nil {
		return err
	}
	defer server.close()
	before, err := b.settled(ctx, server.child)
	if err != nil {
		return err
	}
	ears := make([]*ear, s.fast)
	conns := make([]*watcher, s.fast+s.slow)
	defer func() {
		for _, w := range conns {
			if w != nil {
				w.Close()
			}
		}
	}()
	var g errgroup.Group
	g.SetLimit(64)
	for i := range conns {
		path := server.path
		if i < s.fast {
			path += "&prefix=" + f.prefix
		}
		g.Go(func() (err error) {
			conns[i], err = dialWatch(server.address, path)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i := range ears {
		ears[i] = &ear{f: f}
		go conns[i].follow(ears[i])
	}
	idle, err := b.settled(ctx, server.child)
	if err != nil {
		return err
	}
	if s.rest != nil {
		g.Go(func() error { return server.send(ctx, s.rest, slowRate, b.pushTime/6) })
	}
	g.Go(func() error { return server.send(ctx, f, manyRate, b.pushTime/6) })
	if err := g.Wait(); err != nil {
		return err
	}
	took, missed := collect(ctx, ears, f.sent)
	if len(took) == 0 {
		return fmt.Errorf("%s: nothing has come", s.name)
	}
	ms := append(percentiles(took), metric{float64(missed), "missed"}, metric{float64(s.fast), "watchers"})
	if s.rest == nil { // else it is the memory of more than watchers
		ms = append(ms, metric{round((idle.resident-before.resident)/float64(len(conns)), 0), "B/watcher"})
	}
	return b.results.add(s.name, ms...)
}

// collect waits until everybody has heard everything, and returns how long that took and how many did not come.
func collect(ctx context.Context, ears []*ear, sent int) (took []time.Duration, missed int) {
	for until := time.Now().Add(pushWait); ; {
		took, missed = took[:0], 0
		for _, e := range ears {
			e.mu.Lock()
			took = append(took, e.took...)
			missed += max(0, sent-len(e.took))
			e.mu.Unlock()
		}
		if missed == 0 || time.Now().After(until) || pause(ctx, 100*time.Millisecond) != nil {
			return took, missed
		}
	}
}

// streamServer is something that sends streams.
type streamServer struct {
	*child
	address, path string
	send          func(ctx context.Context, f *flow, rate int, d time.Duration) error
	close         func()
}

// streamServer is kkv on a topic of its own, or a bare handler that is told what to send.
func (b *bench) streamServer(ctx context.Context, bare bool) (*streamServer, error) {
	if !bare {
		p, err := b.pushTopic(ctx, "push-many")
		if err != nil {
			return nil, err
		}
		return &streamServer{p.child, p.address, p.watch + "?since=now", func(ctx context.Context, f *flow, rate int, d time.Duration) error {
			_, err := f.produce(ctx, p.producer, rate, d)
			return err
		}, p.close}, nil
	}
	c, err := startChild("bare handler", b.program("bare"), "-streams")
	if err != nil {
		return nil, err
	}
	_, groups, err := c.waitFor(ctx, `ready address=(\S+)`, time.Minute)
	if err != nil {
		c.kill()
		return nil, err
	}
	return &streamServer{c, groups[1], "/?", func(ctx context.Context, f *flow, rate int, d time.Duration) error {
		return f.post(ctx, "http://"+groups[1]+"/", rate, d)
	}, c.kill}, nil
}

// post is produce for the bare handler.
func (f *flow) post(ctx context.Context, url string, rate int, d time.Duration) error {
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for began := time.Now(); time.Since(began) < d; f.sent++ {
		event := fmt.Appendf(nil, "event: put\ndata: {\"key\":%q,\"value\":%s,\"partition\":0,\"offset\":%d}\n\n", f.key(f.sent), f.value(f.sent, time.Now()), f.sent)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(event))
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		resp.Body.Close()
		<-tick.C
	}
	return nil
}
