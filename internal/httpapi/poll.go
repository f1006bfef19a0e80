package httpapi

import (
	"bytes"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/kkv-project/kkv/internal/feed"
	"github.com/kkv-project/kkv/internal/store"
)

// preferWait is how long Prefer: wait=N allows an answer to take (RFC 7240 section 4.3), at most a minute; 0 if it is not there.
func preferWait(lines []string) time.Duration {
	for _, l := range lines {
		for p := range strings.FieldsFuncSeq(l, func(r rune) bool { return r == ',' || r == ';' }) {
			name, value, _ := strings.Cut(p, "=")
			if !strings.EqualFold(strings.TrimSpace(name), "wait") {
				continue
			}
			n, err := strconv.ParseUint(strings.Trim(strings.TrimSpace(value), `"`), 10, 31)
			if err != nil {
				return 0 // a preference that is not understood is ignored
			}
			return min(time.Duration(n)*time.Second, maxTimeout)
		}
	}
	return 0
}

// longPoll returns when key has changed from what the request names, or the time is over that it prefers to wait. Named is
// the record of If-None-Match; without it, whatever lies before the positions of Kkv-At-Least; without both, what
// there is now. It reports false where it has answered.
func (s *Server) longPoll(w http.ResponseWriter, r *http.Request, q url.Values, key []byte) bool {
	wait := preferWait(r.Header["Prefer"])
	if wait == 0 || s.isDraining() {
		return true
	}
	defer s.watchers.Add(-1) // it is one, for a time
	if n := s.watchers.Add(1); s.o.MaxWatchers > 0 && n > int64(s.o.MaxWatchers) {
		return true // a preference is no order
	}
	w.Header().Set("Preference-Applied", "wait="+strconv.FormatInt(int64(wait/time.Second), 10))
	from, kind, err := s.askedFrom(r.Header, q)
	if err != nil {
		problem(w, r, http.StatusBadRequest, kind, err.Error())
		return false
	}
	over := time.NewTimer(wait)
	defer over.Stop()
	rd := s.cache.Reader() // before looking, so that nothing gets lost between
	if s.changed(r, key, from) {
		return true
	}
	for {
		b, more, err := rd.TryNext()
		switch {
		case err != nil: // lagged: look instead
			if rd = s.cache.Reader(); s.changed(r, key, from) {
				return true
			}
		case b != nil:
			if b.Reset != "" || touches(b, key) {
				return true
			}
		default:
			select {
			case <-more:
			case <-over.C:
				return true
			case <-s.closing:
				return true
			case <-r.Context().Done():
				return true
			}
		}
	}
}

func touches(b *feed.Batch, key []byte) bool {
	for i := range b.Changes {
		if bytes.Equal(b.Changes[i].Key, key) {
			return true
		}
	}
	return false
}

// askedFrom is what the positions of a request cover: the highest fetch position of each partition. It is nil without any.
func (s *Server) askedFrom(h http.Header, q url.Values) (from func(partition int32) int64, kind string, err error) {
	a, kind, err := s.parseAsk(h, q)
	if err != nil || len(a.atLeast)+len(a.offsets) == 0 {
		return nil, kind, err
	}
	return func(partition int32) (next int64) {
		for _, p := range a.atLeast {
			next = max(next, p.Partition(partition).Next)
		}
		for _, o := range a.offsets {
			if o.partition == partition {
				next = max(next, o.offset+1)
			}
		}
		return next
	}, "", nil
}

// changed reports whether key is not as the request names it.
func (s *Server) changed(r *http.Request, key []byte, from func(partition int32) int64) bool {
	var rec store.Record
	ok, mark, err := s.cache.Get(key, &rec)
	if err != nil {
		return true // whoever answers will say so
	}
	if inm := r.Header["If-None-Match"]; len(inm) > 0 {
		return !ok || !matches(inm, string(appendETag(nil, mark.Position.TopicID(), &rec, codingFor(r, &rec))))
	}
	if from == nil {
		from = func(int32) int64 { return math.MaxInt64 }
	}
	return ok && rec.Offset >= from(rec.Partition)
}
