package cache

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kkv-project/kkv/internal/feed"
	"github.com/kkv-project/kkv/internal/position"
)

// changed is what ChangedSince tells, sorted, and after its reason if it is a reset.
func changed(c *Cache, since position.Position) string {
	var out []string
	_, reset, _ := c.ChangedSince(since, func(ch feed.Change) {
		switch {
		case ch.Deleted:
			out = append(out, "-"+string(ch.Key)+ch.Reason)
		default:
			out = append(out, fmt.Sprintf("%s=%s", ch.Key, ch.Value))
		}
	})
	slices.Sort(out)
	if reset != "" {
		out = append([]string{reset + ":"}, out...)
	}
	return strings.Join(out, " ")
}

func at(c *Cache) position.Position {
	m, err := c.Mark()
	if err != nil {
		panic(err)
	}
	return m.Position
}

func wantChanged(t *testing.T, c *Cache, since position.Position, want string) {
	t.Helper()
	if got := changed(c, since); got != want {
		t.Errorf("since %v: %q, want %q", since, got, want)
	}
}

func TestChangedSince(t *testing.T) {
	bubble(t, 2, func(t *testing.T, w *world) {
		w.put(0, "a", "1")
		w.put(1, "b", "1")
		w.put(0, "gone", "1")
		w.put(0, "both", "in 0")
		c := w.start()
		if p, reset, rd := c.ChangedSince(position.Position{}, nil); !p.IsZero() || reset != "" || rd == nil {
			t.Errorf("before ready: %v %q", p, reset)
		}
		w.ready(c)
		before := at(c)
		w.put(0, "c", "1")
		w.put(1, "b", "2")
		w.del(0, "gone")
		w.put(0, "came and went", "1")
		w.del(0, "came and went")
		w.fresh(c)
		w.wantState(c, "a=1 b=2 both=in 0 c=1")
		now := at(c)
		wantChanged(t, c, before, "-came and went -gone b=2 c=1")
		wantChanged(t, c, now, "")
		wantChanged(t, c, position.Position{}, "a=1 b=2 both=in 0 c=1")
		w.put(1, "both", "in 1") // of equal timestamp or a later one: wins
		w.fresh(c)
		w.wantState(c, "a=1 b=2 both=in 1 c=1")
		wantChanged(t, c, now, "both=in 1")
		later := at(c)
		w.del(1, "both") // the other partition's is the value again
		w.fresh(c)
		w.wantState(c, "a=1 b=2 both=in 0 c=1")
		wantChanged(t, c, later, "both=in 0")
		w.AddPartitions(3)
		w.put(2, "new partition", "1")
		w.fresh(c)
		w.wantState(c, "a=1 b=2 both=in 0 c=1 new partition=1")
		wantChanged(t, c, later, "both=in 0 new partition=1")
	})
}

// TestResumeRefused: what is not of this log, or says too little, is answered by everything.
func TestResumeRefused(t *testing.T) {
	bubble(t, 2, func(t *testing.T, w *world) {
		w.put(0, "a", "1")
		w.put(1, "b", "1")
		c := w.start()
		w.ready(c)
		id, asOf := at(c).TopicID(), time.Now()
		all := " a=1 b=1"
		for _, tc := range []struct {
			since position.Position
			want  string
		}{
			{position.New([16]byte{1}, asOf, []position.Partition{{Next: 1}, {Next: 1}}), ResetRecreated + ":" + all},
			{position.New(id, asOf, []position.Partition{{Next: position.Absent}, {Next: 1}}), ResetPartial + ":" + all},
			{position.New(id, asOf, []position.Partition{{Next: 2}, {Next: 1}}), ResetTruncated + ":" + all},
			{position.New(id, asOf, []position.Partition{{Next: 1}}), "b=1"}, // partition 1 was added since
			{position.New(id, asOf, []position.Partition{{Next: 1}, {Next: 0}}), "b=1"},
		} {
			wantChanged(t, c, tc.since, tc.want)
		}
		if st := c.Status(); st.Resumes != 2 || st.Resets != 3 {
			t.Errorf("counted %d resumes and %d resets", st.Resumes, st.Resets)
		}
	})
}

// TestEra is rule 9, for one partition.
func TestEra(t *testing.T) {
	now := time.Now()
	const day = 24 * time.Hour
	for name, tc := range map[string]struct {
		era       era
		since     position.Partition
		asOf      time.Time
		retention time.Duration
		want      bool
	}{
		"it ran since":                      {era{loaded: 100, gap: 90, at: now, until: math.MaxInt64}, position.Partition{Next: 100}, now.Add(-10 * day), 0, true},
		"a gap, and no tombstone memory":    {era{loaded: 100, gap: 90, at: now, until: math.MaxInt64}, position.Partition{Next: 80}, now.Add(-10 * day), day, false},
		"no gap from there on":              {era{loaded: 100, gap: 80, at: now, until: math.MaxInt64}, position.Partition{Next: 80}, now.Add(-10 * day), 0, true},
		"tombstones of that time are there": {era{loaded: 100, gap: 90, at: now, until: math.MaxInt64}, position.Partition{Next: 80}, now.Add(6*time.Minute - day), day, true},
		"just not":                          {era{loaded: 100, gap: 90, at: now, until: math.MaxInt64}, position.Partition{Next: 80}, now.Add(5*time.Minute - day), day, false},
		"unreadable delete.retention.ms":    {era{loaded: 100, gap: 90, at: now, until: math.MaxInt64}, position.Partition{Next: 80}, now, 0, false},
		"below the log start at its load":   {era{start: 85, loaded: 100, gap: 90, at: now, until: math.MaxInt64}, position.Partition{Next: 80, LogStart: 85}, now, day, false},
		"expired before its load":           {era{start: 10, loaded: 100, gap: 90, at: now, until: math.MaxInt64}, position.Partition{Next: 100, LogStart: 9}, now, day, false},
		"not current yet, no gap":           {era{loaded: math.MaxInt64, gap: 50, until: math.MaxInt64}, position.Partition{Next: 60}, now.Add(-day), 0, true},
		"after it ended":                    {era{loaded: 100, gap: 90, at: now, until: 120}, position.Partition{Next: 121}, now, day, false},
		"before it ended":                   {era{loaded: 100, gap: 90, at: now, until: 120}, position.Partition{Next: 120}, now, day, true},
	} {
		if got := tc.era.knows(tc.since, tc.asOf, tc.retention); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestResumeAfterARestart: kfake compacts as Kafka does, but that its log start moves up to what is left.
func TestResumeAfterARestart(t *testing.T) {
	for _, tc := range []struct {
		retention string
		wait      time.Duration
		deny      bool
		want      string // of a replica that was restarted
	}{
		{retention: "600000", wait: time.Minute, want: "-b d=1"},
		{retention: "600000", wait: 6 * time.Minute, want: ResetHorizon + ": a=1 c=1 d=1"}, // the tombstone is there, but that is luck
		{retention: "60000", wait: 2 * time.Minute, want: ResetHorizon + ": a=1 c=1 d=1"},
		{retention: "600000", wait: time.Minute, deny: true, want: ResetHorizon + ": a=1 c=1 d=1"},
	} {
		bubble(t, 0, func(t *testing.T, w *world) {
			w.CreateTopic(1, map[string]string{"cleanup.policy": "compact", "delete.retention.ms": tc.retention})
			if tc.deny {
				w.Fail(kerr.TopicAuthorizationFailed, kmsg.DescribeConfigs)
			}
			w.put(0, "a", "1")
			w.put(0, "b", "1")
			w.put(0, "c", "0")
			w.put(0, "c", "1")
			stayed := w.start()
			w.ready(stayed)
			pass(time.Second)
			since := at(stayed)
			w.del(0, "b")
			w.put(0, "x", "1") // a gap above since
			w.del(0, "x")
			pass(tc.wait)
			w.put(0, "d", "1")
			w.Fake.Compact()
			w.Fake.Compact()
			pass(time.Second)
			restarted := w.start()
			w.ready(restarted)
			pass(time.Second)
			w.wantState(restarted, "a=1 c=1 d=1")
			wantChanged(t, stayed, since, "-b -x d=1")
			got := changed(restarted, since)
			if tc.want == "-b d=1" {
				got = strings.Replace(got, "-x ", "", 1)
			}
			if got != tc.want {
				t.Errorf("retention %s ms, %v later: %q, want %q", tc.retention, tc.wait, got, tc.want)
			}
		})
	}
}
