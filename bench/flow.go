package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// flow is a stream of records whose values say their number and when they were produced, on the machine's clock: whoever
// gets one, over whatever way, knows how long it took and which are missing.
type flow struct {
	prefix      string // of every key
	keys, bytes int
	last        []int // by key: the number of its newest record; -1 before the first
	sent        int
}

func newFlow(keys, valueBytes int) *flow {
	f := &flow{keys: keys, bytes: valueBytes, last: make([]int, keys)}
	for i := range f.last {
		f.last[i] = -1
	}
	return f
}

// stamp is what a value begins with; it is JSON, so that it travels as it is.
const (
	stampMark  = `{"n":1`
	stampBytes = len(stampMark) + 11 + len(`,"at":`) + 19
)

func (f *flow) value(n int, at time.Time) []byte {
	v := fmt.Appendf(make([]byte, 0, f.bytes), `%s%011d,"at":%019d,"pad":"`, stampMark, n, at.UnixNano())
	for len(v) < f.bytes-2 {
		v = append(v, 'x')
	}
	return append(v, `"}`...)
}

// prefixes is how many digits the keys begin with, after that of the flow.
const prefixes = 10

func (f *flow) key(n int) []byte {
	return fmt.Appendf(nil, "%s%d-%09d", f.prefix, n%f.keys%prefixes, n%f.keys)
}

// produce writes records at that rate for so long, and returns when all are acknowledged, with the rate that came of it.
func (f *flow) produce(ctx context.Context, cl *kgo.Client, rate int, d time.Duration) (perSecond float64, err error) {
	var mu sync.Mutex
	var failed error
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	began, first := time.Now(), f.sent
	for time.Since(began) < d && ctx.Err() == nil {
		for due := first + int(time.Since(began).Seconds()*float64(rate)); f.sent < due; f.sent++ {
			f.last[f.sent%f.keys] = f.sent
			cl.Produce(ctx, &kgo.Record{Key: f.key(f.sent), Value: f.value(f.sent, time.Now())}, func(_ *kgo.Record, err error) {
				if err != nil {
					mu.Lock()
					failed = errors.Join(failed, err)
					mu.Unlock()
				}
			})
		}
		<-tick.C
	}
	err = cl.Flush(ctx)
	mu.Lock()
	defer mu.Unlock()
	return float64(f.sent-first) / time.Since(began).Seconds(), errors.Join(err, failed, ctx.Err())
}

// ear hears a flow. It is safe for concurrent use.
type ear struct {
	f    *flow
	mu   sync.Mutex
	last []int // by key; nil: only how long they took is kept
	took []time.Duration
}

func newEar(f *flow) *ear { return &ear{f: f, last: slices.Clone(f.last)} }

// hear takes in every record whose stamp is whole in b, and returns from where on b may hold the beginning of another.
func (e *ear) hear(b []byte, now time.Time) (rest int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		i := bytes.Index(b[rest:], []byte(stampMark))
		if i < 0 {
			return max(rest, len(b)-len(stampMark)+1)
		}
		rest += i
		if rest+stampBytes > len(b) {
			return rest
		}
		n, at := rest+len(stampMark), rest+stampBytes-19
		e.record(number(b[n:n+11]), time.Unix(0, int64(number(b[at:at+19]))), now)
		rest += stampBytes
	}
}

func (e *ear) record(n int, at, now time.Time) {
	e.took = append(e.took, now.Sub(at))
	if e.last != nil {
		e.last[n%e.f.keys] = max(e.last[n%e.f.keys], n)
	}
}

func number(digits []byte) int {
	n, _ := strconv.Atoi(string(digits)) // our own
	return n
}

// missing is how many keys' newest record has not come, after waiting for them so long.
func (e *ear) missing(ctx context.Context, wait time.Duration) int {
	for until := time.Now().Add(wait); ; {
		n := 0
		e.mu.Lock()
		for k, last := range e.f.last {
			if e.last[k] != last {
				n++
			}
		}
		e.mu.Unlock()
		if n == 0 || time.Now().After(until) || pause(ctx, 20*time.Millisecond) != nil {
			return n
		}
	}
}

// metrics are how long records took and how many are missing.
func (e *ear) metrics(ctx context.Context, wait time.Duration) ([]metric, error) {
	missing := e.missing(ctx, wait)
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.took) == 0 {
		return nil, errors.New("nothing has come")
	}
	return append(percentiles(e.took), metric{float64(missing), "missed"}), nil
}
