package store

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

func million(b *testing.B, n, valueLen int) []Record {
	recs := make([]Record, n)
	value := make([]byte, valueLen)
	for i := range recs {
		recs[i] = Record{Key: fmt.Appendf(nil, "key-%010d", i), Value: value, Partition: int32(i % 4), Offset: int64(i / 4), Timestamp: 1795485600000 + int64(i/10)}
	}
	rand.Shuffle(n, func(i, j int) { recs[i], recs[j] = recs[j], recs[i] })
	b.ResetTimer()
	return recs
}

// BenchmarkLoad takes a million records of 215 bytes in, without their order.
func BenchmarkLoad(b *testing.B) {
	recs := million(b, 1_000_000, 201)
	for b.Loop() {
		s := New()
		for i := range recs {
			s.Apply(&recs[i])
		}
		b.ReportMetric(float64(s.Memory().Total()-s.Bytes())/float64(s.Len()), "overhead-B/key")
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1e6, "ns/record")
}

// BenchmarkOrder sorts a million keys.
func BenchmarkOrder(b *testing.B) {
	recs := million(b, 1_000_000, 201)
	s := New()
	for i := range recs {
		s.Apply(&recs[i])
	}
	for b.Loop() {
		s.FinishOrder(s.StartOrder()())
	}
}

// BenchmarkOverwrite overwrites random keys of a million, slab rewrites included.
func BenchmarkOverwrite(b *testing.B) {
	recs := million(b, 1_000_000, 201)
	s := New()
	for i := range recs {
		s.Apply(&recs[i])
	}
	s.FinishOrder(s.StartOrder()())
	i := 0
	for b.Loop() {
		s.Apply(&recs[rand.IntN(len(recs))])
		i++
	}
}

// BenchmarkGet reads random keys of a million.
func BenchmarkGet(b *testing.B) {
	recs := million(b, 1_000_000, 201)
	s := New()
	for i := range recs {
		s.Apply(&recs[i])
	}
	var r Record
	for b.Loop() {
		s.Get(recs[rand.IntN(len(recs))].Key, &r)
	}
}

// BenchmarkExpire takes away what one of four partitions holds of a million keys, 1,000 under each lock.
func BenchmarkExpire(b *testing.B) {
	recs := million(b, 1_000_000, 201)
	for b.Loop() {
		b.StopTimer()
		s := New()
		for i := range recs {
			s.Apply(&recs[i])
		}
		s.FinishOrder(s.StartOrder()())
		b.StartTimer()
		var most time.Duration
		for all := false; !all; {
			began := time.Now()
			all = s.Expire(1, 250_000, 1000, func(*Record, Effect) {})
			most = max(most, time.Since(began))
		}
		b.ReportMetric(most.Seconds()*1e3, "ms-longest")
	}
}
