package httpapi

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/kkv-project/kkv/internal/kafka"
	"github.com/kkv-project/kkv/internal/position"
	"github.com/kkv-project/kkv/internal/store"
	"github.com/kkv-project/kkv/internal/wire"
)

// topics and status answer how far the cache is.
func (s *Server) topics(w http.ResponseWriter, _ *http.Request, _ [2]string) {
	s.answerJSON(w, map[string]any{"topics": []any{s.topicStatus()}})
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request, _ url.Values, _ string) {
	s.answerJSON(w, s.topicStatus())
}

func (s *Server) watchTopic(w http.ResponseWriter, r *http.Request, q url.Values, _ string) {
	// Whoever has written, or read elsewhere, can ask for a state that is not older.
	asks := len(r.Header["Kkv-At-Least"])+len(r.Header["Kkv-Consistency"])+len(r.Header["Kkv-Max-Stale"]) > 0 ||
		q.Has("atLeast") || q.Has("consistency") || q.Has("maxStale")
	if asks && !s.await(w, r, q) {
		return
	}
	s.watch(w, r, q)
}

func (s *Server) answerJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-cache")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v) // the client is gone if this fails
}

// topicJSON and partitionJSON are the status routes' answer.
type topicJSON struct {
	Topic      string          `json:"topic"`
	TopicID    string          `json:"topicId,omitempty"` // as Kafka's tools print it; left out while it is not known
	Stage      string          `json:"stage"`
	Ready      bool            `json:"ready"`
	Trouble    string          `json:"trouble,omitempty"`
	Keys       int             `json:"keys"`
	Bytes      int64           `json:"bytes"`
	Conflicts  int             `json:"conflicts"` // keys that live in several partitions
	Memory     memoryJSON      `json:"memory"`
	Held       []int32         `json:"heldPartitions,omitempty"` // stand still: the memory limit is reached
	Replay     *replayJSON     `json:"replay,omitempty"`         // while loading
	Partitions []partitionJSON `json:"partitions"`
}

// memoryJSON is in bytes.
type memoryJSON struct {
	Slabs      int64 `json:"slabs"` // records, dead ones and room to come included
	Dead       int64 `json:"dead"`  // of slabs
	Index      int64 `json:"index"`
	Tombstones int64 `json:"tombstones"`
	Limit      int64 `json:"limit,omitempty"` // --max-bytes
}

type replayJSON struct {
	Records          int64   `json:"records"`
	Bytes            int64   `json:"bytes"`
	RecordsPerSecond int64   `json:"recordsPerSecond"`
	Percent          float64 `json:"percent"`
	EtaMs            *int64  `json:"etaMs"` // null: not known yet
}

type partitionJSON struct {
	Partition int32  `json:"partition"`
	Position  int64  `json:"position"`
	End       *int64 `json:"end"`
	LogStart  int64  `json:"logStart"`
	Behind    string `json:"behind,omitempty"` // why position is below end: behind, open-transaction, memory-limit
	AgeMs     *int64 `json:"ageMs"`            // null: not known
}

func (s *Server) topicStatus() topicJSON {
	st := s.cache.Status()
	t := topicJSON{Topic: st.Topic, Stage: st.Stage.String(), Ready: st.Ready, Keys: st.Keys, Bytes: st.Bytes, Conflicts: st.Conflicts,
		Partitions: []partitionJSON{}}
	if st.TopicID != [16]byte{} {
		t.TopicID = base64.RawURLEncoding.EncodeToString(st.TopicID[:])
	}
	if st.Trouble != nil {
		t.Trouble = st.Trouble.Error()
	}
	t.Held = st.Held
	t.Memory = memoryJSON{Slabs: st.Memory.Slabs, Dead: st.Memory.Dead, Index: st.Memory.Index, Tombstones: st.Memory.Tombstones, Limit: st.MaxBytes}
	if r := st.Replay; r != nil {
		t.Replay = &replayJSON{Records: r.Records, Bytes: r.Bytes, Percent: math.Round(r.Done*1000) / 10}
		if s := r.Took.Seconds(); s > 0 {
			t.Replay.RecordsPerSecond = int64(float64(r.Records) / s)
		}
		if r.Left >= 0 {
			ms := r.Left.Milliseconds()
			t.Replay.EtaMs = &ms
		}
	}
	for _, p := range st.Partitions {
		pj := partitionJSON{Partition: p.Partition, Position: p.Next, LogStart: p.LogStart, Behind: p.Behind}
		if p.End >= 0 {
			pj.End = &p.End
		}
		if p.Age >= 0 {
			ms := p.Age.Milliseconds()
			pj.AgeMs = &ms
		}
		t.Partitions = append(t.Partitions, pj)
	}
	return t
}

// key answers one key's route; escaped is the key as sent.
func (s *Server) key(w http.ResponseWriter, r *http.Request, q url.Values, escaped string) {
	w.Header()["Vary"] = varyKey
	key, err := decodeKey(escaped, q.Get("keyEncoding"))
	if err != nil {
		problem(w, r, http.StatusBadRequest, "bad-key", err.Error())
		return
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		if s.await(w, r, q) && s.longPoll(w, r, q, key) {
			s.getKey(w, r, key)
		}
		return
	}
	if s.o.Producer == nil {
		w.Header().Set("Allow", "GET, HEAD")
		problem(w, r, http.StatusMethodNotAllowed, "read-only", "Start the server with --writable to write through it, or write through the gateway.")
		return
	}
	s.writeKey(w, r, q, key)
}

func decodeKey(escaped, encoding string) ([]byte, error) {
	key, err := url.PathUnescape(escaped)
	if err != nil {
		return nil, errors.New("The key is not percent-encoded: " + err.Error() + ".")
	}
	switch encoding {
	case "":
		return []byte(key), nil
	case "base64url":
		b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(key, "="))
		if err != nil {
			return nil, errors.New("The key is not base64url (RFC 4648 section 5): " + err.Error() + ".")
		}
		return b, nil
	}
	return nil, errors.New("The only keyEncoding is base64url, not " + strconv.Quote(encoding) + ".")
}

// appendETag names one record: "<topic ID, 8 hex>-<partition>-<epoch>-<offset>[-gzip|-zstd]", opaque to clients
// (GUARANTEES rule 18).
func appendETag(b []byte, topicID [16]byte, r *store.Record, coding string) []byte {
	b = append(b, '"')
	b = hex.AppendEncode(b, topicID[:4])
	b = append(b, '-')
	b = strconv.AppendInt(b, int64(r.Partition), 10)
	b = append(b, '-')
	b = strconv.AppendInt(b, int64(r.Epoch), 10)
	b = append(b, '-')
	b = strconv.AppendInt(b, r.Offset, 10)
	if coding != "" {
		b = append(b, '-')
		b = append(b, coding...)
	}
	return append(b, '"')
}

func (s *Server) getKey(w http.ResponseWriter, r *http.Request, key []byte) {
	var rec store.Record
	ok, mark, err := s.cache.Get(key, &rec)
	if err != nil {
		problem(w, r, http.StatusServiceUnavailable, "not-ready", err.Error())
		return
	}
	h := w.Header()
	h["Cache-Control"] = noCache
	var f fields
	f.mark(mark)
	if !ok {
		f.into(h)
		problem(w, r, http.StatusNotFound, "not-found", "The key has no value at this position.")
		return
	}
	coding := codingFor(r, &rec)
	f.begin("Etag")
	from := len(f.buf)
	f.buf = appendETag(f.buf, mark.Position.TopicID(), &rec, coding)
	tag := f.buf[from:]
	f.end()
	f.date("Last-Modified", rec.Timestamp)
	f.begin("Kkv-Record")
	f.buf = strconv.AppendInt(f.buf, int64(rec.Partition), 10)
	f.buf = append(f.buf, ':')
	f.buf = strconv.AppendInt(f.buf, rec.Offset, 10)
	f.end()
	f.number("Kkv-Timestamp", rec.Timestamp)
	if rec.Conflict {
		f.text("Kkv-Conflict", "true")
	}
	if inm := r.Header["If-None-Match"]; len(inm) > 0 && matches(inm, string(tag)) {
		f.into(h)
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h["Content-Type"] = octetStream
	h["X-Content-Type-Options"] = nosniff
	if len(rec.Headers) > 0 {
		exportHeaders(h, rec.Headers)
	}
	if coding != "" {
		f.text("Content-Encoding", coding)
		f.into(h)
		if r.Method != http.MethodHead {
			compress(w, coding, rec.Value)
		}
		return
	}
	f.number("Content-Length", int64(len(rec.Value)))
	f.into(h)
	if r.Method != http.MethodHead {
		_, _ = w.Write(rec.Value) // the client is gone if this fails
	}
}

// exportHeaders answers a record's headers as X-Kafka-…, and its content-type as what it is.
func exportHeaders(h http.Header, headers wire.Headers) {
	for name, value := range headers.All() {
		if strings.EqualFold(name, "content-type") {
			if headerSafe(string(value)) {
				h.Set("Content-Type", string(value))
				h["Content-Security-Policy"] = sandbox // a record that is a page must not write here in its reader's name
			}
			continue
		}
		if name = "X-Kafka-" + name; token(name) {
			h.Add(name, base64.StdEncoding.EncodeToString(value))
		}
	}
}

// matches: one of the entity tags listed is tag, compared weakly, or "*" (RFC 9110 section 13.1.2).
func matches(lines []string, tag string) bool {
	for _, l := range lines {
		for t := range strings.SplitSeq(l, ",") {
			t = strings.TrimPrefix(strings.TrimSpace(t), "W/")
			if t == tag || t == "*" {
				return true
			}
		}
	}
	return false
}

// token: may stand as the name of an HTTP field (RFC 9110 section 5.6.2).
func token(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

func headerSafe(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c >= 0x7f {
			return false
		}
	}
	return s != ""
}

// writeKey is PUT and DELETE: produce, then wait until this cache serves what was written (GUARANTEES rule 8).
func (s *Server) writeKey(w http.ResponseWriter, r *http.Request, q url.Values, key []byte) {
	limit, err := timeout(r, q)
	if err != nil {
		problem(w, r, http.StatusBadRequest, "bad-request", err.Error())
		return
	}
	for _, h := range []string{"If-Match", "If-Unmodified-Since", "If-None-Match"} {
		if r.Header.Get(h) != "" {
			problem(w, r, http.StatusBadRequest, "bad-request", "Kafka has no conditional write, so "+h+" cannot be kept; leave it out.")
			return
		}
	}
	msg := kafka.Message{Topic: s.topic, Key: key}
	if msg.Headers, err = recordHeaders(r.Header); err != nil {
		problem(w, r, http.StatusBadRequest, "bad-request", err.Error())
		return
	}
	if r.Method == http.MethodPut {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.o.MaxBody))
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			problem(w, r, http.StatusRequestEntityTooLarge, "too-large", "A value may be of "+strconv.FormatInt(s.o.MaxBody, 10)+" bytes at most.")
			return
		} else if err != nil {
			problem(w, r, http.StatusBadRequest, "bad-request", "The value did not arrive whole: "+err.Error()+".")
			return
		}
		msg.Value = append([]byte{}, body...) // never nil: an empty body is an empty value, not a tombstone
	}
	ctx, cancel := context.WithTimeout(r.Context(), limit)
	defer cancel()
	acks, err := s.produce(ctx, msg)
	switch {
	case err != nil && len(acks) > 0:
		problem(w, r, http.StatusGatewayTimeout, "outcome-unknown", "The key was deleted in some of the partitions where it lives, not in all; delete it again: "+err.Error())
	case err != nil:
		s.writeFailed(w, r, err)
	default:
		s.writeDone(ctx, w, key, acks)
	}
}

// produce writes to the partition where the key lives, so that its log order is one; a tombstone goes to each one
// where it lives (GUARANTEES rule 14).
func (s *Server) produce(ctx context.Context, msg kafka.Message) (acks []kafka.Ack, err error) {
	partitions := s.cache.Partitions(msg.Key)
	switch {
	case len(partitions) == 0:
		partitions = []int32{-1} // by the key's hash
	case msg.Value != nil:
		partitions = partitions[:1]
	}
	for _, p := range partitions {
		msg.Partition = p
		ack, err := s.o.Producer.Produce(ctx, msg)
		if err != nil {
			return acks, err
		}
		acks = append(acks, ack)
	}
	return acks, nil
}

// recordHeaders are the request's X-Kafka-… fields, and its content type unless it is what curl -d sends unasked.
func recordHeaders(h http.Header) ([]kafka.Header, error) {
	var out []kafka.Header
	for name, values := range h {
		name = textproto.CanonicalMIMEHeaderKey(name)
		rest, ok := strings.CutPrefix(name, "X-Kafka-")
		if !ok {
			continue
		}
		for _, v := range values {
			b, err := base64.StdEncoding.DecodeString(v)
			if err != nil {
				return nil, errors.New("The header " + name + " is not base64: " + err.Error() + ".")
			}
			out = append(out, kafka.Header{Key: rest, Value: b})
		}
	}
	if ct := h.Get("Content-Type"); ct != "" && ct != "application/x-www-form-urlencoded" {
		out = append(out, kafka.Header{Key: "content-type", Value: []byte(ct)})
	}
	return out, nil
}

func (s *Server) writeFailed(w http.ResponseWriter, r *http.Request, err error) {
	detail := kafka.Explain(err).Error()
	switch {
	case kafka.OutcomeUnknown(err):
		problem(w, r, http.StatusGatewayTimeout, "outcome-unknown", detail)
	case errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge):
		problem(w, r, http.StatusRequestEntityTooLarge, "too-large", detail)
	case kafka.Classify(err) == kafka.Fatal:
		problem(w, r, http.StatusForbidden, "refused", detail)
	default:
		problem(w, r, http.StatusServiceUnavailable, "not-sent", detail)
	}
}

func (s *Server) writeDone(ctx context.Context, w http.ResponseWriter, key []byte, acks []kafka.Ack) {
	h := w.Header()
	status := http.StatusOK
	var pos position.Position
	for _, a := range acks {
		if err := s.cache.WaitFor(ctx, a.TopicID, a.Partition, a.Offset); err != nil {
			status = http.StatusAccepted // acknowledged, and never an error: clients would write it twice
		}
		pos = pos.Merge(position.FromWrite(a.TopicID, a.Partition, a.Offset))
	}
	ack := acks[len(acks)-1]
	var rec store.Record
	if ok, mark, err := s.cache.Get(key, &rec); err == nil && status == http.StatusOK {
		// The cache's own position is of use beyond the write's: what this client reads next may not go back.
		pos = mark.Position.Merge(pos)
		if ok && rec.Partition == ack.Partition && rec.Offset == ack.Offset {
			h.Set("ETag", string(appendETag(nil, mark.Position.TopicID(), &rec, "")))
		}
		if rec.Conflict {
			h.Set("Kkv-Conflict", "true")
		}
		if age, ok := mark.Age(); ok {
			h.Set("Kkv-Age-Ms", strconv.FormatInt(age.Milliseconds(), 10))
		}
	}
	h.Set("Kkv-Position", pos.String())
	h.Set("Cache-Control", "no-cache")
	h.Set("Content-Type", "application/json")
	w.WriteHeader(status)
	b := append([]byte(nil), `{"partition":`...)
	b = strconv.AppendInt(b, int64(ack.Partition), 10)
	b = append(b, `,"offset":`...)
	b = strconv.AppendInt(b, ack.Offset, 10)
	b = append(b, `,"timestamp":`...)
	b = strconv.AppendInt(b, ack.Timestamp.UnixMilli(), 10)
	_, _ = w.Write(append(b, '}', '\n')) // the client is gone if this fails
}
