package devbroker

import (
	"net"
	"sync"
)

// gate is a listener that can be shut and opened again at the same address: what was connected is cut off, and who
// connects meanwhile is refused, as by a broker that is not there. Its Accept waits while it is shut.
type gate struct {
	addr   net.Addr
	listen func() (net.Listener, error) // at the same address each time

	mu     sync.Mutex
	l      net.Listener // nil while shut
	opened chan struct{}
	closed bool
	conns  map[net.Conn]struct{}
}

func newGate(l net.Listener, listen func() (net.Listener, error)) *gate {
	return &gate{addr: l.Addr(), listen: listen, l: l, opened: make(chan struct{}), conns: map[net.Conn]struct{}{}}
}

func (g *gate) Addr() net.Addr { return g.addr }

func (g *gate) Accept() (net.Conn, error) {
	for {
		g.mu.Lock()
		l, opened, closed := g.l, g.opened, g.closed
		g.mu.Unlock()
		if closed {
			return nil, net.ErrClosed
		}
		if l == nil {
			<-opened
			continue
		}
		c, err := l.Accept()
		g.mu.Lock()
		switch {
		case g.l != l: // shut while this waited
			g.mu.Unlock()
			if err == nil {
				_ = c.Close() // came too late
			}
			continue
		case err != nil:
			g.mu.Unlock()
			return nil, err
		}
		gc := &gatedConn{c, g}
		g.conns[gc] = struct{}{}
		g.mu.Unlock()
		return gc, nil
	}
}

// Close is the listener's, for good.
func (g *gate) Close() error {
	err := g.shut()
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.closed = true
		close(g.opened)
	}
	return err
}

func (g *gate) shut() error {
	g.mu.Lock()
	l, conns := g.l, g.conns
	g.l, g.conns = nil, map[net.Conn]struct{}{}
	g.mu.Unlock()
	for c := range conns {
		_ = c.Close() // cut off on purpose
	}
	if l == nil {
		return nil
	}
	return l.Close()
}

func (g *gate) open() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.l != nil || g.closed {
		return nil
	}
	l, err := g.listen()
	if err != nil {
		return err
	}
	g.l = l
	close(g.opened)
	g.opened = make(chan struct{})
	return nil
}

type gatedConn struct {
	net.Conn
	g *gate
}

func (c *gatedConn) Close() error {
	c.g.mu.Lock()
	delete(c.g.conns, c)
	c.g.mu.Unlock()
	return c.Conn.Close()
}
