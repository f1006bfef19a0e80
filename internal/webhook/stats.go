package webhook

import (
	"cmp"
	"net/url"
	"slices"
	"time"
)

// Stats are plain numbers for any metrics library. Those of type uint64 only grow.
type Stats struct {
	// Dispatched counts the batches of the feed that held something to push, whether or not there was a target
	// (the original's kkv_onupdate_dispatch_total: one per poll with an update).
	Dispatched uint64
	// OK and Failures count POSTs by how they ended (kkv_target_update_ok_total, kkv_target_update_failure_total);
	// one that was cancelled because its target went or Run ended is in neither.
	OK, Failures uint64
	// Suppressed counts changes to an equal value (kkv_onupdate_suppressed_total, value_deduplication).
	Suppressed uint64
	// InvalidKeys counts changes left out because their key is not UTF-8.
	InvalidKeys uint64
	Targets     []TargetStats // by ID
}

// TargetStats is the state of one listed target.
type TargetStats struct {
	ID            string
	URL           string // without its password
	Ready         bool
	Merged        uint64        // changes that took the place of an older one of their key which it had not yet heard
	Retries       uint64        // POSTs that followed a failed one
	PendingKeys   int           // keys to tell, those in a POST under way included
	OldestPending time.Duration // for how long the first of them has been waiting; 0 with none
	Failing       int           // failures in a row
	LastError     string        // of the last failure; "" once a POST has succeeded
}

// Stats returns the counters and the listed targets.
func (d *Dispatcher) Stats() Stats {
	s := Stats{Dispatched: d.dispatched.Load(), OK: d.ok.Load(), Failures: d.failures.Load(),
		Suppressed: d.suppressed.Load(), InvalidKeys: d.invalid.Load()}
	d.mu.Lock()
	targets := make([]*target, 0, len(d.targets))
	for _, t := range d.targets {
		targets = append(targets, t)
	}
	d.mu.Unlock()
	for _, t := range targets {
		s.Targets = append(s.Targets, t.stats())
	}
	slices.SortFunc(s.Targets, func(a, b TargetStats) int { return cmp.Compare(a.ID, b.ID) })
	return s
}

func (t *target) stats() TargetStats {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := TargetStats{ID: t.id, URL: redacted(t.url), Ready: t.ready, PendingKeys: len(t.pending.keys),
		Merged: t.merged, Retries: t.retries,
		Failing: t.failing, LastError: t.lastErr}
	if oldest := t.pending.age.front; oldest != nil {
		s.OldestPending = time.Since(oldest.since)
	}
	return s
}

func redacted(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "(not a URL)"
	}
	return u.Redacted()
}
