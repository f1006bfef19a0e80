package feed

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
)

func batch(offset int64, size int) *Batch {
	return &Batch{Changes: []Change{{Key: []byte("k"), Value: make([]byte, size), Offset: offset}}}
}

func TestEveryReaderSeesEverythingAfterItsStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(0)
		f.Publish(batch(0, 1))
		const readers, n = 4, 100
		var wg sync.WaitGroup
		for range readers {
			r := f.Reader()
			wg.Go(func() {
				for want := int64(1); want <= n; want++ {
					b, err := r.Next(t.Context())
					if err != nil || b.Changes[0].Offset != want {
						t.Errorf("got %v, %v; want offset %d", b, err, want)
						return
					}
				}
			})
		}
		for i := int64(1); i <= n; i++ {
			f.Publish(batch(i, 1))
			if i%7 == 0 {
				synctest.Wait()
			}
		}
		wg.Wait()
	})
}

func TestAReaderThatFallsOffIsTold(t *testing.T) {
	f := New(10_000)
	slow, quick := f.Reader(), f.Reader()
	for i := range int64(100) {
		f.Publish(batch(i, 1000))
		if b, _, err := quick.TryNext(); err != nil || b.Changes[0].Offset != i {
			t.Fatalf("quick reader: %v, %v", b, err)
		}
	}
	f.Limit(5000)
	f.Publish(batch(99, 1000))
	if _, _, err := quick.TryNext(); err != nil {
		t.Fatal(err)
	}
	if f.Bytes() > 5000 {
		t.Errorf("the ring holds %d bytes", f.Bytes())
	}
	for range 2 {
		if _, err := slow.Next(t.Context()); !errors.Is(err, ErrLagged) {
			t.Fatalf("slow reader: %v", err)
		}
	}
	f.Publish(batch(100, 1_000_000)) // larger than the ring: the newest is always there
	if b, _, err := quick.TryNext(); err != nil || b.Changes[0].Offset != 100 {
		t.Fatalf("quick reader: %v, %v", b, err)
	}
}

func TestNextEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		r := New(0).Reader()
		go func() { _, err := r.Next(ctx); done <- err }()
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Next: %v", err)
		}
	})
}

// TestSeqCountsWhatALaggingReaderMissed: also what fell off the ring.
func TestSeqCountsWhatALaggingReaderMissed(t *testing.T) {
	f := New(1) // the newest batch alone
	f.Publish(batch(0, 1))
	r := f.Reader()
	for i := range int64(5) {
		f.Publish(batch(1+i, 1))
	}
	if _, _, err := r.TryNext(); !errors.Is(err, ErrLagged) || f.Lagged() != 1 {
		t.Errorf("%v; %d lagged", err, f.Lagged())
	}
	if now := f.Reader(); now.Seq-r.Seq != 5 {
		t.Errorf("from %d to %d, and 5 changes have passed", r.Seq, now.Seq)
	}
}

// TestFormIsMadeOnce by whoever comes first, for each form; large batches are nobody's.
func TestFormIsMadeOnce(t *testing.T) {
	b := batch(0, 1)
	made := 0
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if e, ok := b.Form(1, func() []byte { made++; return []byte("one") }); !ok || string(e) != "one" {
				t.Errorf("%q, %v", e, ok)
			}
		})
	}
	wg.Wait()
	if e, _ := b.Form(2, func() []byte { made++; return []byte("two") }); string(e) != "two" || made != 2 {
		t.Errorf("%q, made %d times", e, made)
	}
	if _, ok := batch(0, memoMost).Form(1, func() []byte { t.Error("made"); return nil }); ok {
		t.Error("a large batch is kept in another form")
	}
}
