package cachetest

import (
	"context"
	"errors"
	"log"
	"net"
	"net/http"
	"sync"
	"syscall"
)

// Network is HTTP without sockets: hosts by name, joined by net.Pipe, so that a testing/synctest bubble owns its
// time. It is safe for concurrent use. Close it before the bubble ends.
type Network struct {
	mu     sync.Mutex
	hosts  map[string]*host
	client *http.Client
	wg     sync.WaitGroup
}

type host struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	srv    *http.Server
}

// Serve answers requests to http://name with h, until Stop.
func (n *Network) Serve(name string, h http.Handler) {
	l := &host{conns: make(chan net.Conn), closed: make(chan struct{})}
	l.srv = &http.Server{Handler: h, ErrorLog: log.New(discard{}, "", 0)}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.hosts == nil {
		n.hosts = make(map[string]*host)
	}
	n.hosts[name] = l
	n.wg.Go(func() { _ = l.srv.Serve(l) })
}

// Stop ends the host at once, cutting its connections. Dialing it is refused from then on.
func (n *Network) Stop(name string) {
	n.mu.Lock()
	l := n.hosts[name]
	delete(n.hosts, name)
	n.mu.Unlock()
	if l != nil {
		_ = l.srv.Close()
	}
}

// Client makes requests on this network, and follows no redirects.
func (n *Network) Client() *http.Client {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.client == nil {
		n.client = &http.Client{
			Transport:     &http.Transport{DialContext: n.dial},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	return n.client
}

// Close stops every host and waits for them.
func (n *Network) Close() {
	n.mu.Lock()
	var names []string
	for name := range n.hosts {
		names = append(names, name)
	}
	client := n.client
	n.mu.Unlock()
	for _, name := range names {
		n.Stop(name)
	}
	if client != nil {
		client.CloseIdleConnections()
	}
	n.wg.Wait()
}

func (n *Network) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	name, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	l := n.hosts[name]
	n.mu.Unlock()
	if l == nil {
		return nil, &net.OpError{Op: "dial", Net: "pipe", Err: syscall.ECONNREFUSED}
	}
	here, there := net.Pipe()
	select {
	case l.conns <- there:
		return here, nil
	case <-l.closed:
		return nil, &net.OpError{Op: "dial", Net: "pipe", Err: syscall.ECONNREFUSED}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept, Close and Addr make a host a net.Listener.
func (l *host) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, errors.New("stopped")
	}
}

func (l *host) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *host) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
