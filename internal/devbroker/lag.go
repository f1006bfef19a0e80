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

// Lag is a line to Kafka on which records come late: of what a fetch brings only that passes which has the age that was set,
// and a fetch that brings nothing else is held for as long. All else passes at once, so a client behind it can ask how far the
// log reaches, and knows that it is behind. It is safe for concurrent use.
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
		body, err := t.late(version, body)
		if err != nil {
			return err
		}
		binary.BigEndian.PutUint32(head, uint32(len(body)+4))
		if _, err := to.Write(append(head, body...)); err != nil {
			return err
		}
	}
}

// late waits until something in a fetch's answer is old enough, and leaves out what is not. The client asks for that again, as
// it does where a broker's answer was full.
func (t *tunnel) late(version int16, body []byte) ([]byte, error) {
	if by, _ := t.lag.now(); by == 0 {
		return body, nil
	}
	resp := kmsg.NewPtrFetchResponse()
	resp.SetVersion(version)
	header := 0
	if resp.IsFlexible() {
		header = min(1, len(body)) // tagged fields, of which brokers send none (KIP-482)
	}
	if resp.ReadFrom(body[header:]) != nil {
		return body, nil // the client will say what is wrong with it
	}
	oldest, batches := oldestRecord(resp)
	if batches == 0 {
		return body, nil
	}
	until := oldest
	if batches > 1 {
		until = until.Add(lagStep)
	}
	by, ok := t.hold(until)
	if !ok {
		return nil, net.ErrClosed
	}
	if by == 0 {
		return body, nil
	}
	due := time.Now().Add(-by)
	if due.Before(oldest) { // its clock is ahead of ours
		due = oldest
	}
	eachPartition(resp, func(p *kmsg.FetchResponseTopicPartition) {
		p.RecordBatches = p.RecordBatches[:olderThan(due, p.RecordBatches)]
	})
	return resp.AppendTo(body[:header:header]), nil
}

// lagStep is how much later than it could a record may pass, so that not every one takes a fetch of its own.
const lagStep = 50 * time.Millisecond

// hold waits until a record of that time may pass, and says how old it has to be, 0 where the lag has ended; it reports false
// when the client has left. A clock that is ahead of ours makes nobody wait longer than the lag.
func (t *tunnel) hold(at time.Time) (by time.Duration, ok bool) {
	if now := time.Now(); at.After(now) {
		at = now
	}
	for {
		by, changed := t.lag.now()
		left := time.Until(at.Add(by))
		if by == 0 || left <= 0 {
			return by, true
		}
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
		case <-changed:
		case <-t.gone:
			timer.Stop()
			return 0, false
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

// firstBatch is the time of the first batch, and its length; ok is false where there is none that is whole.
func firstBatch(b []byte) (at time.Time, length int, ok bool) {
	if len(b) < batchHead {
		return at, 0, false
	}
	n := int64(binary.BigEndian.Uint32(b[batchLengthAt:])) + batchLengthAt + 4
	if n < batchHead || n > int64(len(b)) {
		return at, 0, false
	}
	return time.UnixMilli(int64(binary.BigEndian.Uint64(b[batchTimeAt:]))), int(n), true
}

// olderThan is the length of the batches up to the first that is newer.
func olderThan(due time.Time, b []byte) (length int) {
	for {
		at, n, ok := firstBatch(b[length:])
		if !ok || at.After(due) {
			return length
		}
		length += n
	}
}

// oldestRecord is the time of the oldest of the partitions' first batches, and how many batches there are in all.
func oldestRecord(resp *kmsg.FetchResponse) (oldest time.Time, batches int) {
	eachPartition(resp, func(p *kmsg.FetchResponseTopicPartition) {
		for b, first := p.RecordBatches, true; ; first = false {
			at, n, ok := firstBatch(b)
			if !ok {
				return
			}
			if batches++; first && (oldest.IsZero() || at.Before(oldest)) {
				oldest = at
			}
			b = b[n:]
		}
	})
	return oldest, batches
}

func eachPartition(resp *kmsg.FetchResponse, f func(*kmsg.FetchResponseTopicPartition)) {
	for i := range resp.Topics {
		for j := range resp.Topics[i].Partitions {
			f(&resp.Topics[i].Partitions[j])
		}
	}
}
