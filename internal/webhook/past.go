package webhook

import (
	"sync"
	"time"

	"github.com/kkv-project/kkv/internal/position"
)

// past remembers where the cache was, for receivers that are first seen: they start some time back (rule 17). It is
// safe for concurrent use.
type past struct {
	back time.Duration // how far it is asked for

	mu    sync.Mutex
	marks []mark
}

// mark: at that time the cache was at pos or further.
type mark struct {
	at  time.Time
	pos position.Position
}

// perBack is how many marks there are in the time that past goes back.
const perBack = 60

func (p *past) add(now time.Time, pos position.Position) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.marks); n > 0 && now.Sub(p.marks[n-1].at) < p.back/perBack {
		return
	}
	for len(p.marks) > 1 && now.Sub(p.marks[1].at) >= p.back {
		p.marks = p.marks[1:]
	}
	p.marks = append(p.marks, mark{now, pos})
}

// before is a position that the cache had reached when back had still to pass until now, or the oldest that is known, and
// whether that is as old; ok is false if none is known, or none was asked for.
func (p *past) before(now time.Time) (pos position.Position, reaches, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.marks) == 0 || p.back == 0 {
		return position.Position{}, p.back == 0, false
	}
	pos = p.marks[0].pos
	for _, m := range p.marks {
		if now.Sub(m.at) < p.back {
			break
		}
		pos, reaches = m.pos, true
	}
	return pos, reaches, true
}
