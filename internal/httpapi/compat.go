package httpapi

import (
	"bufio"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/kkv-project/kkv/internal/cache"
	"github.com/kkv-project/kkv/internal/store"
)

// compatRaw: everything after /raw/ in the request target is the key, its query string included, for the old
// clients do not escape.
func (s *Server) compatRaw(w http.ResponseWriter, r *http.Request, escaped string) {
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		escaped += "?" + r.URL.RawQuery
	}
	key, err := url.PathUnescape(escaped)
	if err != nil {
		w.Header()["Cache-Control"] = noCache
		http.Error(w, "the key is not percent-encoded: "+err.Error()+"; write a bare % as %25", http.StatusBadRequest)
		return
	}
	var rec store.Record
	ok, mark, err := s.cache.Get([]byte(key), &rec)
	if err != nil {
		s.compatNotReady(w, err)
		return
	}
	h := w.Header()
	h["Cache-Control"] = noCache
	h["X-Kkv-Last-Seen-Offsets"] = s.offsets.of(s.topic, mark)
	var f fields
	f.mark(mark)
	if !ok {
		f.into(h)
		h["Content-Length"] = zeroLength
		w.WriteHeader(http.StatusNotFound)
		return
	}
	f.number("Content-Length", int64(len(rec.Value)))
	if rec.Conflict {
		f.text("Kkv-Conflict", "true")
	}
	f.into(h)
	h["Content-Type"] = octetStream
	if r.Method != http.MethodHead {
		_, _ = w.Write(rec.Value) // the client is gone if this fails
	}
}

func (s *Server) compatKeys(w http.ResponseWriter, r *http.Request, _ string) {
	s.compatList(w, r, "application/octet-stream", func(rec *store.Record) []byte { return rec.Key })
}

func (s *Server) compatValues(w http.ResponseWriter, r *http.Request, _ string) {
	s.compatList(w, r, "text/plain;charset=UTF-8", func(rec *store.Record) []byte { return rec.Value })
}

// compatList writes one field of every live record, each followed by a line break, at one position.
func (s *Server) compatList(w http.ResponseWriter, r *http.Request, contentType string, field func(*store.Record) []byte) {
	snap, mark, err := s.cache.Snapshot()
	if err != nil {
		s.compatNotReady(w, err)
		return
	}
	s.compatMark(w.Header(), mark)
	w.Header().Set("Content-Type", contentType)
	if r.Method == http.MethodHead {
		return
	}
	b := bufio.NewWriterSize(w, flushBytes)
	rc := http.NewResponseController(w)
	until := time.Now().Add(s.o.ListTimeout)
	for rec := range snap.All(nil, nil) {
		value := field(rec)
		if b.Available() <= len(value) { // it is about to be written
			if time.Now().After(until) {
				panic(http.ErrAbortHandler) // cut off: these routes have no other way to say that the list is not whole
			}
			_ = rc.SetWriteDeadline(time.Now().Add(writeTimeout)) // not every ResponseWriter has one
		}
		_, _ = b.Write(value)
		if b.WriteByte('\n') != nil {
			return // the client is gone; a bufio.Writer keeps its first error
		}
	}
	_ = rc.SetWriteDeadline(time.Now().Add(writeTimeout))
	_ = b.Flush()
}

// compatOffset: the last offset seen, which is the position less one; answered while loading, too.
func (s *Server) compatOffset(w http.ResponseWriter, _ *http.Request, args [2]string) {
	w.Header().Set("Content-Type", "text/plain;charset=UTF-8")
	w.Header().Set("Cache-Control", "no-cache")
	name, err := url.PathUnescape(args[0])
	n, err2 := strconv.ParseInt(args[1], 10, 32)
	if err != nil || err2 != nil || n < 0 {
		http.Error(w, "want /cache/v1/offset/{topic}/{partition}", http.StatusBadRequest)
		return
	}
	st := s.cache.Status()
	if name != s.topic || int(n) >= len(st.Partitions) || st.Partitions[n].Next == 0 {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	_, _ = w.Write(strconv.AppendInt(nil, st.Partitions[n].Next-1, 10))
}

func (s *Server) compatNotReady(w http.ResponseWriter, err error) {
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("Retry-After", "1")
	http.Error(w, err.Error(), http.StatusServiceUnavailable)
}

func (s *Server) compatMark(h http.Header, m *cache.Mark) {
	var f fields
	f.mark(m)
	f.into(h)
	h["Cache-Control"] = noCache
	h["X-Kkv-Last-Seen-Offsets"] = s.offsets.of(s.topic, m)
}

// offsetsHeader is the value of x-kkv-last-seen-offsets, made once a position.
type offsetsHeader struct {
	last atomic.Pointer[offsetsAt]
}

type offsetsAt struct {
	mark  *cache.Mark
	value []string // as http.Header has it
}

// of names position − 1 of every partition that is not at 0, in the order of the original's answers.
func (o *offsetsHeader) of(topic string, m *cache.Mark) []string {
	if at := o.last.Load(); at != nil && at.mark == m {
		return at.value
	}
	name := strconv.Quote(topic) // topic names are [a-zA-Z0-9._-]
	b := []byte{'['}
	for i := m.Position.Len() - 1; i >= 0; i-- {
		next := m.Position.Partition(int32(i)).Next
		if next <= 0 {
			continue
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(b, `{"offset":`...)
		b = strconv.AppendInt(b, next-1, 10)
		b = append(b, `,"partition":`...)
		b = strconv.AppendInt(b, int64(i), 10)
		b = append(b, `,"topic":`...)
		b = append(b, name...)
		b = append(b, '}')
	}
	b = append(b, ']')
	at := &offsetsAt{m, []string{string(b)}}
	o.last.Store(at)
	return at.value
}
