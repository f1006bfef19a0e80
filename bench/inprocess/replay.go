package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"runtime"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kkv-project/kkv/bench/dataset"
	"github.com/kkv-project/kkv/internal/cache"
	"github.com/kkv-project/kkv/internal/ingest"
	"github.com/kkv-project/kkv/internal/kafka"
)

// take times how fast new keys are taken in, without any Kafka.
func take(t dataset.Topic) {
	bs := batches(t, 0, 1)
	runtime.GC()
	began := time.Now()
	c := loading(t)
	for _, b := range bs {
		c.Apply(b)
	}
	c.Loaded()
	kkv := time.Since(began)
	if _, _, err := c.Snapshot(); err != nil {
		panic(err) // it is loaded
	}
	ordered := time.Since(began)
	c = nil
	runtime.GC()
	began = time.Now()
	m := goMap(bs)
	gomap := time.Since(began)
	runtime.KeepAlive(m)
	runtime.KeepAlive(c)
	n := float64(t.Records())
	fmt.Printf("BenchmarkTake/by=kkv 1 %.1f ns/op %.0f records/s %.1f ordered-ns/op\n", float64(kkv.Nanoseconds())/n, n/kkv.Seconds(), float64(ordered.Nanoseconds())/n)
	fmt.Printf("BenchmarkTake/by=gomap 1 %.1f ns/op %.0f records/s\n", float64(gomap.Nanoseconds())/n, n/gomap.Seconds())
}

// replay times reading a topic without end from a kfake in this process: its answers cost next to nothing, so this is the
// bound without a broker. All records are of a few thousand keys, since kfake sends one batch again and again; and there is one
// partition, since every partition gets that batch, and no key lives in several as a rule.
func replay(d time.Duration) error {
	const partitions = 1
	t := dataset.Topic{Keys: 4096, Writes: 1, ValueBytes: 215 - dataset.KeyBytes, Partitions: partitions}
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, "t"), kfake.SyntheticFetch(kfake.SyntheticBatch{Batch: recordBatch(t)}))
	if err != nil {
		return err
	}
	defer fake.Close()
	for _, by := range []struct {
		name string
		run  func(context.Context, []string) (int64, error)
	}{{"poll", poll}, {"gomap", pollIntoMap}, {"kkv", ingestInto}} {
		runtime.GC()
		ctx, cancel := context.WithTimeout(context.Background(), d)
		began := time.Now()
		n, err := by.run(ctx, fake.ListenAddrs())
		cancel()
		if err != nil {
			return fmt.Errorf("replay by %s: %w", by.name, err)
		}
		rate := float64(n) / time.Since(began).Seconds()
		fmt.Printf("BenchmarkReplay/by=%s 1 %.0f records/s %.1f MB/s\n", by.name, rate, rate*215/1e6)
	}
	return nil
}

func consumer(seeds []string) (*kgo.Client, error) {
	return kgo.NewClient(kgo.SeedBrokers(seeds...), kgo.ConsumeTopics("t"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
}

// poll only counts: what franz-go itself can do.
func poll(ctx context.Context, seeds []string) (n int64, err error) {
	cl, err := consumer(seeds)
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	for ctx.Err() == nil {
		n += int64(cl.PollFetches(ctx).NumRecords())
	}
	return n, nil
}

func pollIntoMap(ctx context.Context, seeds []string) (n int64, err error) {
	cl, err := consumer(seeds)
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	m := map[string][]byte{}
	for ctx.Err() == nil {
		cl.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			m[string(r.Key)] = bytes.Clone(r.Value)
			n++
		})
	}
	return n, nil
}

func ingestInto(ctx context.Context, seeds []string) (n int64, err error) {
	c := cache.New(cache.Options{Ingest: ingest.Options{Kafka: kafka.Config{Bootstrap: seeds}, Topic: "t"}})
	if err := c.Run(ctx); err != nil {
		return 0, err
	}
	for _, p := range c.Status().Partitions {
		n += p.Next
	}
	return n, nil
}

// recordBatch is a batch of every key of t, as Kafka stores it (message format 2).
func recordBatch(t dataset.Topic) []byte {
	var records []byte
	for i := range t.Keys {
		key, version := t.Record(i)
		r := kmsg.Record{OffsetDelta: int32(i), Key: dataset.AppendKey(nil, key), Value: t.AppendValue(nil, key, version)}
		r.Length = int32(len(r.AppendTo(nil)) - 1) // what follows the length, which is one byte when 0
		records = r.AppendTo(records)
	}
	now := time.Now().UnixMilli()
	b := kmsg.RecordBatch{PartitionLeaderEpoch: -1, Magic: 2, LastOffsetDelta: int32(t.Keys) - 1, FirstTimestamp: now, MaxTimestamp: now,
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: int32(t.Keys), Records: records}
	raw := b.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-12))
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	return raw
}
