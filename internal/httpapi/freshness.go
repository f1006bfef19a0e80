package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/kkv-project/kkv/internal/cache"
	"github.com/kkv-project/kkv/internal/position"
)

// ask is how fresh a request wants its answer (CONTRACT section 3).
type ask struct {
	fresh    bool
	maxStale time.Duration // -1: not asked
	atLeast  []position.Position
	offsets  []recordAt
}

// recordAt is what a producer that knows nothing of positions knows: where its record lies.
type recordAt struct {
	partition int32
	offset    int64
}

// asked reports whether a request says anything about freshness, without allocating, for most do not.
func (s *Server) asked(r *http.Request, q url.Values) bool {
	return s.o.Fresh || len(q) > 0 || len(r.Header["Kkv-At-Least"]) > 0 || len(r.Header["Kkv-Consistency"]) > 0 || len(r.Header["Kkv-Max-Stale"]) > 0
}

// await waits until the cache is as fresh as the request asks; q may be nil where the query is no place to ask in.
// Where that is not to be had it answers with what is, and reports false.
func (s *Server) await(w http.ResponseWriter, r *http.Request, q url.Values) bool {
	if !s.asked(r, q) {
		return true
	}
	a, kind, err := s.parseAsk(r.Header, q)
	if err != nil {
		problem(w, r, http.StatusBadRequest, kind, err.Error())
		return false
	}
	limit, err := timeout(r, q)
	if err != nil {
		problem(w, r, http.StatusBadRequest, "bad-request", err.Error())
		return false
	}
	ctx, cancel := context.WithTimeout(r.Context(), limit)
	defer cancel()
	for _, p := range a.atLeast {
		if err := s.cache.AtLeast(ctx, p); err != nil {
			s.refuse(w, r, err)
			return false
		}
	}
	for _, o := range a.offsets {
		if err := s.cache.WaitFor(ctx, [16]byte{}, o.partition, o.offset); err != nil {
			s.refuse(w, r, err)
			return false
		}
	}
	switch {
	case a.fresh:
		err = s.cache.Fresh(ctx)
	case a.maxStale >= 0:
		err = s.cache.MaxStale(ctx, a.maxStale)
	}
	if err != nil {
		s.refuse(w, r, err)
		return false
	}
	for _, p := range a.atLeast { // again: while another was waited for, the topic may have been made anew
		if err := s.cache.AtLeast(ctx, p); err != nil {
			s.refuse(w, r, err)
			return false
		}
	}
	return true
}

// parseAsk reads header and query; on an error it names the problem's type.
func (s *Server) parseAsk(h http.Header, q url.Values) (a ask, kind string, err error) {
	a.maxStale = -1
	values := func(header, param string) []string {
		var out []string
		for _, v := range append(append([]string(nil), h[header]...), q[param]...) {
			for part := range strings.SplitSeq(v, ",") {
				if part = strings.TrimSpace(part); part != "" {
					out = append(out, part)
				}
			}
		}
		return out
	}
	modes := values("Kkv-Consistency", "consistency")
	stale := values("Kkv-Max-Stale", "maxStale")
	a.fresh = s.o.Fresh && len(modes) == 0 && len(stale) == 0
	for _, m := range modes {
		switch m {
		case "fresh":
			a.fresh = true
		case "local":
		default:
			return a, "bad-request", errors.New("consistency is local or fresh, not " + strconv.Quote(m) + ".")
		}
	}
	for _, v := range stale {
		d, err := time.ParseDuration(v)
		if err != nil || d < 0 {
			return a, "bad-request", errors.New("The longest age " + strconv.Quote(v) + " is not a duration such as 500ms or 2s.") //nolint:staticcheck // a sentence for the client
		}
		if a.maxStale < 0 || d < a.maxStale {
			a.maxStale = d
		}
	}
	for _, v := range values("Kkv-At-Least", "atLeast") {
		if p, o, ok := strings.Cut(v, ":"); ok {
			partition, err := strconv.ParseInt(p, 10, 32)
			offset, err2 := strconv.ParseInt(o, 10, 64)
			if err != nil || err2 != nil || partition < 0 || offset < 0 || offset == math.MaxInt64 { // what comes after it is waited for
				return a, "bad-position", errors.New(strconv.Quote(v) + " is not <partition>:<offset>.")
			}
			a.offsets = append(a.offsets, recordAt{int32(partition), offset})
			continue
		}
		p, err := position.Parse(v)
		if err != nil {
			return a, "bad-position", err
		}
		a.atLeast = append(a.atLeast, p)
	}
	return a, "", nil
}

// behindBody is a problem with where a wait stood.
type behindBody struct {
	problemBody
	Partition int32  `json:"partition"`
	Wanted    int64  `json:"wanted"`
	Have      int64  `json:"have"`
	Reason    string `json:"reason"`
}

// refuse answers what a wait ended with.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	behind, isBehind := errors.AsType[*cache.Behind](err)
	switch {
	case errors.Is(err, cache.ErrNotReady):
		problem(w, r, http.StatusServiceUnavailable, "not-ready", err.Error())
	case errors.Is(err, cache.ErrOtherTopic):
		problem(w, r, http.StatusConflict, "position-from-another-topic", "The topic was created anew since that position; forget it and read again.")
	case errors.Is(err, cache.ErrTruncated):
		problem(w, r, http.StatusConflict, "position-truncated", "Records that the position covers were lost when the log was truncated; forget it and read again.")
	case errors.Is(err, cache.ErrTooStale):
		problem(w, r, http.StatusServiceUnavailable, "too-stale", err.Error())
	case isBehind:
		body := behindBody{problemBody: problemBody{Type: "/problems/behind", Title: titles["behind"], Status: http.StatusGatewayTimeout, Detail: behind.Error()},
			Partition: behind.Partition, Wanted: behind.Wanted, Have: behind.Have, Reason: behind.Reason}
		writeProblem(w, r, http.StatusGatewayTimeout, body)
	default:
		problem(w, r, http.StatusInternalServerError, "bad-request", fmt.Sprintf("waiting for freshness: %v", err))
	}
}

// writeProblem writes any problem document.
func writeProblem(w http.ResponseWriter, r *http.Request, status int, body any) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-cache")
	if status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	b, _ := json.Marshal(body) // strings and numbers: cannot fail
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(append(b, '\n')) // the client is gone if this fails
	}
}
