package verify

import (
	"errors"
	"fmt"
	"strings"
)

// Checker tests one promise.
type Checker struct {
	Promise string // as docs/guarantees.md names it
	Check   func(*History) error
}

// Checkers are all of them. Each finds what it looks for whatever the others say, but the watch's and the push's speak
// of states, and so presume Explain's log.
var Checkers = []Checker{
	{"Writes", Writes},
	{"Ready-complete", ReadyComplete},
	{"Explain", Explain},
	{"Snapshot", Snapshot},
	{"Log-order", LogOrder},
	{"Read-your-writes", ReadYourWrites},
	{"Fresh", Fresh},
	{"Linearizable", Linearizable},
	{"Bounded-stale", BoundedStale},
	{"Watch", Watch},
	{"Push-eventually", PushEventually},
	{"Convergence", Convergence},
}

// Check calls all Checkers; its error names each promise that h breaks.
func Check(h *History) error {
	var all []error
	for _, c := range Checkers {
		if err := c.Check(h); err != nil {
			all = append(all, fmt.Errorf("%s is broken:\n%w", c.Promise, err))
		}
	}
	return errors.Join(all...)
}

// shown is how many contradictions a checker spells out.
const shown = 5

// faults gathers contradictions.
type faults struct {
	texts []string
	n     int
}

func (f *faults) add(format string, args ...any) {
	if f.n++; f.n <= shown {
		f.texts = append(f.texts, "  "+fmt.Sprintf(format, args...))
	}
}

func (f *faults) err() error {
	if f.n == 0 {
		return nil
	}
	text := strings.Join(f.texts, "\n")
	if f.n > shown {
		text += fmt.Sprintf("\n  and %d more", f.n-shown)
	}
	return errors.New(text)
}

// who names a read in a fault.
func (h *History) who(r *Read) string {
	what := [...]string{Get: "get", List: "list", Batch: "batch get"}[r.Kind]
	if r.Kind == List {
		what += fmt.Sprintf(" %q", r.Prefix)
	} else if len(r.Items) == 1 {
		what += fmt.Sprintf(" %q", r.Items[0].Key)
	}
	return fmt.Sprintf("%s at %s, calls %d to %d, answered %d from %s", what, h.run(r.Run), r.Call.Seq, r.Return.Seq, r.Status, r.Position)
}

// run names a run in a fault.
func (h *History) run(i int) string { return fmt.Sprintf("%s (run %d)", h.Runs[i].Replica, i) }

func (w *Write) String() string {
	return fmt.Sprintf("write %s of %q at %d:%d, calls %d to %d", w.ID, w.Key, w.Partition, w.Offset, w.Call.Seq, w.Return.Seq)
}
