package gateway

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/kkv-project/kkv/internal/kafka"
	"github.com/kkv-project/kkv/internal/position"
)

// messages handles /topics/{topic}/messages.
func (g *Gateway) messages(w http.ResponseWriter, r *http.Request, topic string, q query) {
	switch r.Method {
	case http.MethodPost:
		g.produce(w, r, topic, q)
	case http.MethodDelete:
		g.tombstone(w, r, topic, q)
	default:
		consuming(true)(w, r, topic, q)
	}
}

func (g *Gateway) produce(w http.ResponseWriter, r *http.Request, topic string, q query) {
	value, form, err := g.readValue(w, r, q)
	if err != nil {
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			writeError(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is larger than the %d bytes that this gateway takes", g.o.MaxBody))
			return
		}
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	headers, err := recordHeaders(r.Header)
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	// A form may carry the parameters too, as in the original.
	all := append(slices.Clone(q), form...)
	m := kafka.Message{Topic: topic, Partition: -1, Key: key(all), Value: value, Headers: headers}
	g.send(w, r, m, all.count("sync") > 0)
}

// tombstone deletes a key: it produces a record without a value. kafka-pixy
// has no such call.
func (g *Gateway) tombstone(w http.ResponseWriter, r *http.Request, topic string, q query) {
	k := key(q)
	if k == nil {
		writeError(w, http.StatusBadRequest, "which key? Add ?key=")
		return
	}
	headers, err := recordHeaders(r.Header)
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	g.send(w, r, kafka.Message{Topic: topic, Partition: -1, Key: k, Headers: headers}, q.count("sync") > 0)
}

// key is nil without the parameter, and empty but not nil for ?key=.
func key(q query) []byte {
	s, ok := q.get("key")
	if !ok {
		return nil
	}
	return append([]byte{}, s...)
}

// readValue reads the record's value from the body: its bytes, or the field
// msg of a form. The result is never nil, for that would be a tombstone.
func (g *Gateway) readValue(w http.ResponseWriter, r *http.Request, q query) (value []byte, form query, err error) {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	isForm := kind == "application/x-www-form-urlencoded"
	// net/http gives no body and a length of 0 both to "Content-Length: 0",
	// which is an empty value, and to a call without either header, which
	// more likely forgot it. Chunked bodies, which the original refuses,
	// have a length of -1.
	if !isForm && r.ContentLength == 0 && r.Header.Get("Content-Length") == "" {
		return nil, nil, errors.New("missing Content-Length header")
	}
	if r.ContentLength > g.o.MaxBody {
		return nil, nil, &http.MaxBytesError{Limit: g.o.MaxBody}
	}
	var body bytes.Buffer
	if n := r.ContentLength; n > 0 {
		body.Grow(int(min(n, 1<<20)) + bytes.MinRead)
	}
	if _, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, g.o.MaxBody)); err != nil {
		return nil, nil, fmt.Errorf("failed to read message: %w", err)
	}
	if !isForm {
		if body.Len() == 0 {
			return []byte{}, nil, nil
		}
		return body.Bytes(), nil, nil
	}
	if form, err = parseQuery(body.String()); err != nil {
		return nil, nil, err
	}
	msg, ok := form.get("msg")
	if !ok {
		msg, _ = q.get("msg")
	}
	if msg == "" {
		return nil, nil, errors.New("empty message")
	}
	return []byte(msg), form, nil
}

const headerPrefix = "X-Kafka-"

// recordHeaders turns X-Kafka-Name: <base64> into record headers. HTTP header
// names have no case: the record header's name comes out in Go's canonical
// form (x-kafka-trace-id gives Trace-Id), as it did from kafka-pixy. They are
// ordered by name, values of one name as they were sent.
func recordHeaders(h http.Header) ([]kafka.Header, error) {
	var names []string
	for name := range h {
		if strings.HasPrefix(name, headerPrefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var out []kafka.Header
	for _, name := range names {
		for _, v := range h[name] {
			b, err := base64.StdEncoding.DecodeString(v)
			if err != nil {
				return nil, fmt.Errorf("header %s is not base64: %w", name, err)
			}
			out = append(out, kafka.Header{Key: name[len(headerPrefix):], Value: b})
		}
	}
	return out, nil
}

type produced struct {
	Partition int32 `json:"partition"`
	Offset    int64 `json:"offset"`
}

func (g *Gateway) send(w http.ResponseWriter, r *http.Request, m kafka.Message, sync bool) {
	mode := "async"
	if sync {
		mode = "sync"
	}
	if !sync && g.o.Acked == nil {
		if err := g.promise(r.Context(), m); err != nil {
			g.refuse(w, m, err)
			return
		}
		writeJSON(w, http.StatusOK, struct{}{})
		return
	}
	ack, err := g.o.Producer.Produce(r.Context(), m)
	g.metrics.count(mode, err)
	if err != nil {
		g.refuse(w, m, err)
		return
	}
	if g.o.Acked != nil {
		g.o.Acked(r.Context(), m.Topic, ack)
	}
	w.Header().Set("Kkv-Position", position.FromWrite(ack.TopicID, ack.Partition, ack.Offset).String()) // GUARANTEES rule 6
	if sync {
		writeJSON(w, http.StatusOK, produced{ack.Partition, ack.Offset})
		return
	}
	writeJSON(w, http.StatusOK, struct{}{})
}

// promise hands a record to the producer without waiting for Kafka. An error
// means that it was refused; what goes wrong later is counted and logged.
func (g *Gateway) promise(ctx context.Context, m kafka.Message) error {
	g.open.Add(1) // safe beside Close's Wait: the call itself holds one
	var mu sync.Mutex
	returned := false
	var refused error
	g.o.Producer.ProduceAsync(ctx, m, func(_ kafka.Ack, err error) {
		defer g.open.Done()
		g.metrics.count("async", err)
		mu.Lock()
		defer mu.Unlock()
		if !returned {
			refused = err // the caller is still there to be told
			return
		}
		if err != nil {
			g.lost.add(m.Topic, err)
		}
	})
	mu.Lock()
	defer mu.Unlock()
	returned = true
	return refused
}

// refuse answers a produce that failed.
func (g *Gateway) refuse(w http.ResponseWriter, m kafka.Message, err error) {
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		writeError(w, http.StatusNotFound, noTopic(m.Topic))
	case errors.Is(err, kerr.MessageTooLarge):
		writeError(w, http.StatusRequestEntityTooLarge, err.Error())
	case errors.Is(err, kerr.InvalidRecord) && m.Key == nil:
		// The original: 500 "Unknown error, how did this happen? Error code = 87".
		writeError(w, http.StatusBadRequest, fmt.Sprintf("topic %s refuses a record without a key, since it is compacted: add ?key=", m.Topic))
	case errors.Is(err, kerr.InvalidRecord):
		writeError(w, http.StatusBadRequest, err.Error())
	case errors.Is(err, kafka.ErrClosed):
		writeError(w, http.StatusServiceUnavailable, "shutting down")
	default:
		kafkaFailed(w, err)
	}
}

func noTopic(topic string) string {
	return fmt.Sprintf("topic %s does not exist, and the gateway creates none: create it with "+
		"`kafka-topics --create --topic %s --config cleanup.policy=compact`", topic, topic)
}

// kafkaFailed answers 503 for what may pass by itself and 500 for the rest.
func kafkaFailed(w http.ResponseWriter, err error) {
	status := http.StatusServiceUnavailable
	if e, ok := errors.AsType[*kerr.Error](err); kafka.Classify(err) == kafka.Fatal || (ok && !e.Retriable && !kafka.OutcomeUnknown(err)) {
		status = http.StatusInternalServerError
	}
	text := err.Error()
	if hint := kafka.Hint(err); hint != "" {
		text += " (" + hint + ")"
	}
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	writeError(w, status, text)
}

// lostLog reports async records that were promised and then lost, at most one
// line in ten seconds: an outage loses many for one reason.
type lostLog struct {
	log  *slog.Logger
	mu   sync.Mutex
	n    int
	last time.Time
}

func (l *lostLog) add(topic string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n++
	if !l.last.IsZero() && time.Since(l.last) < 10*time.Second {
		return
	}
	l.last = time.Now()
	l.log.Error("async records were answered {} and are lost; callers that must know use ?sync", "records", l.n, "topic", topic, "error", err)
	l.n = 0
}
