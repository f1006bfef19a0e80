package kkv

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	minBackoff     = 50 * time.Millisecond
	startupBackoff = time.Second     // the most while nothing was read yet: an application waits for it
	maxBackoff     = 5 * time.Second // the most later, when state is at hand
)

// backoff counts the failures in a row of one thing that is tried for ever.
type backoff struct {
	failures int
}

// wait waits between half and the whole of a time that doubles with every failure up to limit; so that many clients
// which lost one server at one moment do not come back at one moment. It waits no less than least.
func (b *backoff) wait(ctx context.Context, limit, least time.Duration) error {
	d := minBackoff << min(b.failures, 10)
	b.failures++
	d = min(d, limit)
	return sleep(ctx, max(least, d/2+rand.N(d/2+1)))
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
