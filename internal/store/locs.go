package store

// loc says where a record lies: slab<<32 | offset in it.
type loc uint64

func (l loc) slab() int   { return int(l >> 32) }
func (l loc) offset() int { return int(uint32(l)) }

const pageLen = 512

type page struct {
	gen  uint64
	locs [pageLen]loc
}

// locs maps a key's number to its record. Pages are copied before a change if a snapshot may share them.
type locs struct {
	gen   uint64 // of the slice pages
	pages []*page
}

func (l *locs) get(id uint32) loc { return l.pages[id/pageLen].locs[id%pageLen] }

// set changes the entry of id on behalf of generation gen, which is above that of every snapshot taken.
func (l *locs) set(gen uint64, id uint32, to loc) {
	i := int(id / pageLen)
	if i == len(l.pages) {
		l.pages = append(l.pages, &page{gen: gen}) // a snapshot reads no further than its own length
	}
	p := l.pages[i]
	if p.gen != gen {
		if l.gen != gen {
			l.pages, l.gen = append(make([]*page, 0, cap(l.pages)), l.pages...), gen
		}
		c := *p
		c.gen = gen
		p = &c
		l.pages[i] = p
	}
	p.locs[id%pageLen] = to
}

func (l *locs) bytes() int64 { return int64(len(l.pages))*(pageLen*8+8) + int64(cap(l.pages))*8 }
