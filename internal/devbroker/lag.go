package devbroker

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Lag is a line to Kafka on which records come late: what a fetch brings is held until its oldest record has the age that
// was set. All else passes at once, so a client behind it can ask how far the log reaches, and knows that it is behind.
// It is safe for concurrent use.
type Lag struct {
	mu      sync.Mutex
	by      time.Duration
	changed chan struct{} // closed when by changes
}

// NewLag makes a Lag that holds nothing yet.
func NewLag() *Lag { return &Lag{changed: make(chan struct{})} }

// Set says from now on how old a record must be to pass, also those held at present; 0 ends it.
func (l *Lag) Set(by time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.by = by
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *Lag) now() (time.Duration, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.by, l.changed
}

// Dial connects as net.Dialer does; it is kafka.Config.Dial of the client that is to lag. It reads Kafka's protocol, so TLS
// above it would hide all from it.
func (l *Lag) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	broker, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	client, inner := net.Pipe()
	t := &tunnel{lag: l, fetches: map[int32]int16{}, gone: make(chan struct{})}
	go func() { // both end with either connection
		defer close(t.gone)
		defer broker.Close()
		_ = t.requests(broker, inner) // the client meets the error on its connection
	}()
	go func() {
		defer inner.Close()
		_ = t.answers(inner, broker)
	}()
	return client, nil
}

// tunnel carries the frames of one connection.
type tunnel struct {
	lag  *Lag
	gone chan struct{} // closed when the client has left

	mu      sync.Mutex
	fetches map[int32]int16 // version of the fetches under way, by their correlation
}

// fetchKey is Fetch's key in Kafka's protocol.
const fetchKey = 1

// requests notes the fetches that pass. A request begins with its length, its key, its version and its correlation.
func (t *tunnel) requests(to io.Writer, from io.Reader) error {
	head := make([]byte, 12)
	for {
		if _, err := io.ReadFull(from, head[:4]); err != nil {
			return err
		}
		size := int64(binary.BigEndian.Uint32(head))
		n := min(size, 8)
		if _, err := io.ReadFull(from, head[4:4+n]); err != nil {
			return err
		}
		if n == 8 && binary.BigEndian.Uint16(head[4:]) == fetchKey {
			t.mu.Lock()
			t.fetches[int32(binary.BigEndian.Uint32(head[8:]))] = int16(binary.BigEndian.Uint16(head[6:]))
			t.mu.Unlock()
		}
		if _, err := to.Write(head[:4+n]); err != nil {
			return err
		}
		if _, err := io.CopyN(to, from, size-n); err != nil {
			return err
		}
	}
}

// answers holds those to fetches. An answer begins with its length and the correlation of its request.
func (t *tunnel) answers(to io.Writer, from io.Reader) error {
	head := make([]byte, 8)
	for {
		if _, err := io.ReadFull(from, head); err != nil {
			return err
		}
		size := int64(binary.BigEndian.Uint32(head)) - 4
		correlation := int32(binary.BigEndian.Uint32(head[4:]))
		t.mu.Lock()
		version, fetch := t.fetches[correlation]
		delete(t.fetches, correlation)
		t.mu.Unlock()
		if !fetch {
			if _, err := to.Write(head); err != nil {
				return err
			}
			if _, err := io.CopyN(to, from, size); err != nil {
				return err
			}
			continue
		}
		body := make([]byte, size)
		if _, err := io.ReadFull(from, body); err != nil {
			return err
		}
		if oldest, some := oldestRecord(version, body); some && !t.hold(oldest) {
			return net.ErrClosed
		}
		if _, err := to.Write(append(head, body...)); err != nil {
			return err
		}
	}
}

// hold waits until a record of that time may pass; it reports false when the client has left. A clock that is ahead of ours
// makes nobody wait longer than the lag.
func (t *tunnel) hold(oldest time.Time) bool {
	if now := time.Now(); oldest.After(now) {
		oldest = now
	}
	for {
		by, changed := t.lag.now()
		left := time.Until(oldest.Add(by))
		if by == 0 || left <= 0 {
			return true
		}
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
		case <-changed:
		case <-t.gone:
			timer.Stop()
			return false
		}
		timer.Stop()
	}
}

// Of a record batch, as https://kafka.apache.org/documentation/#recordbatch has it.
const (
	batchLengthAt = 8
	batchTimeAt   = 35 // the newest record's, milliseconds
	batchHead     = 61
)

// oldestRecord is the time of the batch in a fetch's answer that is the oldest; some is false where there is none.
func oldestRecord(version int16, body []byte) (oldest time.Time, some bool) {
	resp := kmsg.NewPtrFetchResponse()
	resp.SetVersion(version)
	if resp.IsFlexible() && len(body) > 0 {
		body = body[1:] // the header's tagged fields: brokers have none to send (KIP-482)
	}
	if resp.ReadFrom(body) != nil {
		return oldest, false // the client will say what is wrong with it
	}
	for _, topic := range resp.Topics {
		for _, p := range topic.Partitions {
			for b := p.RecordBatches; len(b) >= batchHead; {
				at := time.UnixMilli(int64(binary.BigEndian.Uint64(b[batchTimeAt:])))
				if !some || at.Before(oldest) {
					oldest, some = at, true
				}
				next := int64(binary.BigEndian.Uint32(b[batchLengthAt:])) + batchLengthAt + 4
				b = b[min(next, int64(len(b))):]
			}
		}
	}
	return oldest, some
}
