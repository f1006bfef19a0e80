package webhook

import "context"

// Target is one receiver.
type Target struct {
	// ID names the receiver for as long as it lives; a new ID has heard nothing.
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

// Static is a fixed list of receivers, ready always. A URL is its receiver's ID.
func Static(urls ...string) Targets { return static(urls) }

type static []string

func (s static) Run(ctx context.Context, set func([]Target)) error {
	list := make([]Target, len(s))
	for i, u := range s {
		list[i] = Target{ID: u, URL: u, Ready: true}
	}
	set(list)
	<-ctx.Done()
	return nil
}
