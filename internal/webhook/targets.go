package webhook

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
)

// Target is one receiver.
type Target struct {
	// ID names the receiver for as long as it lives; a new ID has heard nothing. It stands in logs and metrics.
	ID string
	// URL is where to POST, path included.
	URL string
	// Ready: send now. A target that is not ready accumulates, and gets the merged update when it is.
	Ready bool
}

// Targets says who the receivers are.
type Targets interface {
	// Run calls set with the whole list at its start and at each change, from one goroutine at a time, until ctx
	// ends. Of several targets with one ID the first counts. An error that it returns before ctx ended ends the
	// Dispatcher; after nil the last list stays.
	Run(ctx context.Context, set func([]Target)) error
}

// Static is a fixed list of receivers, ready always. A receiver's ID is its URL without the password.
func Static(urls ...string) Targets { return static(urls) }

type static []string

func (s static) Run(ctx context.Context, set func([]Target)) error {
	list := make([]Target, len(s))
	owner := map[string]string{} // ID -> URL
	for i, u := range s {
		id := redacted(u)
		for n := 2; owner[id] != "" && owner[id] != u; n++ { // they differ in the password alone
			id = fmt.Sprintf("%s (%d)", redacted(u), n)
		}
		owner[id] = u
		list[i] = Target{ID: id, URL: u, Ready: true}
	}
	set(list)
	<-ctx.Done()
	return nil
}

// Merge is the receivers of all of them. Those of one are there before another has said who its are.
func Merge(all ...Targets) Targets { return merged(all) }

type merged []Targets

func (m merged) Run(ctx context.Context, set func([]Target)) error {
	var mu sync.Mutex
	lists := make([][]Target, len(m))
	g, gctx := errgroup.WithContext(ctx)
	for i, targets := range m {
		g.Go(func() error {
			return targets.Run(gctx, func(list []Target) {
				mu.Lock()
				defer mu.Unlock()
				lists[i] = list
				set(slices.Concat(lists...))
			})
		})
	}
	return g.Wait()
}
