package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kkv-project/kkv/bench/dataset"
)

const (
	pushRate   = 4_000            // records a second
	pushWait   = 15 * time.Second // for the last ones to come
	updateRate = 100_000
)

// push measures how long it takes from a record's production until it is told, beside a consumer of Kafka in the same
// run; and what many watchers cost, beside a bare handler.
func (b *bench) push(ctx context.Context) error {
	for _, step := range []func(context.Context) error{b.pushOne, b.pushMany, b.pushSlow, b.pushFast} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// pushed is kkv on a topic of its own, and a producer to that.
type pushed struct {
	*child
	topic    dataset.Topic
	address  string
	watch    string // its path
	producer *kgo.Client
}

func (p *pushed) close() {
	p.producer.Close()
	p.kill()
}

func (b *bench) pushTopic(ctx context.Context, name string, more ...string) (*pushed, error) {
	p := &pushed{topic: dataset.Topic{Name: name, Keys: 1, Partitions: 4}, watch: "/v1/topics/" + name + "/watch"} // of no records
	br, err := b.kafka(ctx, p.topic)
	if err != nil {
		return nil, err
	}
	// No linger, as in the loader.
	p.producer, err = kgo.NewClient(kgo.SeedBrokers(br.address), kgo.DefaultProduceTopic(name), kgo.ProducerLinger(0), kgo.MaxBufferedRecords(1_000_000))
	if err != nil {
		return nil, err
	}
	if p.child, p.address, err = b.readyKkv(ctx, br, p.topic, more...); err != nil {
		p.producer.Close()
		return nil, err
	}
	return p, nil
}

// pushOne is a webhook with values, and then a watcher, each beside a consumer that hears the same records.
func (b *bench) pushOne(ctx context.Context) error {
	for _, way := range []string{"webhook", "watcher"} {
		if err := b.pushTo(ctx, way); err != nil {
			return fmt.Errorf("push to a %s: %w", way, err)
		}
	}
	return nil
}

func (b *bench) pushTo(ctx context.Context, way string) error {
	f := newFlow(100_000, 200)
	told, consumed := newEar(f), newEar(f)
	var args []string
	if way == "webhook" {
		receiver, err := receive(func(body []byte) { told.hear(body, time.Now()) })
		if err != nil {
			return err
		}
		defer receiver.Close()
		args = []string{"--webhook-body", "v2", "--webhook-target", "http://" + receiver.Addr}
	}
	p, err := b.pushTopic(ctx, "push-"+way, args...)
	if err != nil {
		return err
	}
	defer p.close()
	if way == "watcher" {
		w, err := dialWatch(p.address, p.watch+"?since=now")
		if err != nil {
			return err
		}
		defer w.Close()
		go w.follow(told)
	}
	stop, err := b.consume(ctx, p.topic, consumed)
	if err != nil {
		return err
	}
	defer stop()
	if _, err := f.produce(ctx, p.producer, pushRate, time.Second); err != nil { // a warm-up
		return err
	}
	for _, e := range []*ear{told, consumed} {
		e.missing(ctx, pushWait)
		e.forget()
	}
	rate, err := f.produce(ctx, p.producer, pushRate, b.pushTime)
	if err != nil {
		return err
	}
	for _, by := range []struct {
		name string
		ear  *ear
	}{{way, told}, {"consumer", consumed}} {
		ms, err := by.ear.metrics(ctx, pushWait)
		if err != nil {
			return fmt.Errorf("%s: %w", by.name, err)
		}
		if err := b.results.add("Push/to="+way+"/by="+by.name, append(ms, metric{round(rate, 0), "records/s"})...); err != nil {
			return err
		}
	}
	return b.remove(ctx, p.topic)
}

// forget leaves what has been heard out of how long it takes.
func (e *ear) forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.took = e.took[:0]
}

// receive answers POSTs with 204 once hear has their body.
func receive(hear func(body []byte)) (*http.Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	srv := &http.Server{Addr: l.Addr().String(), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the sender is gone
		}
		hear(body)
		w.WriteHeader(http.StatusNoContent)
	})}
	go func() { _ = srv.Serve(l) }()
	return srv, nil
}

// consume is a plain franz-go consumer of all partitions, from their ends on.
func (b *bench) consume(ctx context.Context, t dataset.Topic, e *ear) (stop func(), err error) {
	from := map[int32]kgo.Offset{}
	for p := range t.Partitions {
		from[p] = kgo.NewOffset().AtEnd()
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.broker.address), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{t.Name: from}))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		for ctx.Err() == nil {
			fs := cl.PollFetches(ctx)
			now := time.Now()
			fs.EachRecord(func(r *kgo.Record) { e.hear(r.Value, now) })
		}
	}()
	// Its offsets are resolved by the time that a poll has been answered: the warm-up waits for what it has heard.
	return func() { cancel(); cl.Close() }, pause(ctx, time.Second)
}

// pushFast is as many updates as there may be, to watchers of one prefix each: whether the cache, and they, keep up.
func (b *bench) pushFast(ctx context.Context) error {
	f := newFlow(100_000, 100)
	p, err := b.pushTopic(ctx, "push-fast")
	if err != nil {
		return err
	}
	defer p.close()
	heard := newEar(f)
	for i := range prefixes {
		w, err := dialWatch(p.address, fmt.Sprintf("%s?since=now&prefix=%d-", p.watch, i))
		if err != nil {
			return err
		}
		defer w.Close()
		go w.follow(heard)
	}
	rate, err := f.produce(ctx, p.producer, updateRate, b.pushTime/6)
	if err != nil {
		return err
	}
	acked := time.Now()
	for {
		n, err := positions(ctx, p.address, p.topic.Name)
		if err != nil {
			return err
		}
		if n >= int64(f.sent) {
			break
		}
		if time.Since(acked) > pushWait {
			return fmt.Errorf("kkv has read %d of %d records %v after the last was acknowledged", n, f.sent, pushWait)
		}
	}
	behind := time.Since(acked)
	ms, err := heard.metrics(ctx, pushWait)
	if err != nil {
		return err
	}
	err = b.results.add("Updates/watchers=10", append(ms, metric{round(rate, 0), "records/s"}, metric{float64(behind.Nanoseconds()), "behind-ns"})...)
	if err != nil {
		return err
	}
	return b.remove(ctx, p.topic)
}
