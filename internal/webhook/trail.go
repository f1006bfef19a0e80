package webhook

import (
	"math"

	"github.com/kkv-project/kkv/internal/position"
)

// maxTrail bounds how many positions a trail holds. With more, every second goes: a cursor is then further back than
// need be, which repeats but never loses.
const maxTrail = 64

// trail says up to which position a target has been told, given the oldest change of which it was not.
type trail []step

// step: the changes up to number seq are those up to pos.
type step struct {
	seq uint64
	pos position.Position
}

// add appends a step and forgets those that no longer matter, everything below oldest having been told.
func (t *trail) add(seq uint64, pos position.Position, oldest uint64) {
	s := *t
	if n := len(s); n > 0 && s[n-1].seq == seq {
		s = s[:n-1]
	}
	s = append(s, step{seq, pos})
	first := 0
	for first+1 < len(s) && s[first+1].seq < oldest {
		first++
	}
	s = append(s[:0], s[first:]...)
	if len(s) > maxTrail {
		kept := s[:0]
		for i := range s {
			if i%2 == 0 || i == len(s)-1 {
				kept = append(kept, s[i])
			}
		}
		s = kept
	}
	*t = s
}

// before is the newest position whose changes are all below oldest; zero if there is none, since a state is being
// told. ok is false with no step at all.
func (t trail) before(oldest uint64) (at position.Position, ok bool) {
	for i := len(t) - 1; i >= 0; i-- {
		if t[i].seq < oldest {
			return t[i].pos, true
		}
	}
	return position.Position{}, len(t) > 0
}

// last is the position of the newest step.
func (t trail) last() position.Position {
	at, _ := t.before(math.MaxUint64)
	return at
}

func (t *trail) clear() { *t = nil }
