package kkv

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The errors that callers tell apart, with [errors.Is]. Those that a server answers come wrapped in a *[StatusError].
var (
	// ErrNotFound: the key has no value.
	ErrNotFound = errors.New("not found")
	// ErrNotReady: the topic's first state is not whole yet; try again.
	ErrNotReady = errors.New("not ready")
	// ErrBehind: the server, or the mirror, did not reach a position in time. A write that ended so is acknowledged.
	ErrBehind = errors.New("behind the position asked for")
	// ErrTooStale: the server cannot show that its data is as new as was asked for.
	ErrTooStale = errors.New("too stale")
	// ErrReset: a position belongs to an earlier incarnation of the topic, or to records that it lost.
	ErrReset = errors.New("the topic was reset since that position")
	// ErrReadOnly: the server takes no writes.
	ErrReadOnly = errors.New("read-only")
	// ErrOutcomeUnknown: a write was sent and nobody knows whether Kafka has it. Read the key before writing again.
	ErrOutcomeUnknown = errors.New("outcome unknown")
	// ErrClosed: the mirror was closed.
	ErrClosed = errors.New("closed")
)

// StatusError is an answer of a server that is no success: its problem document (RFC 9457), as far as it sent one.
// errors.Is finds the sentinel that its Type stands for.
type StatusError struct {
	Status     int           // HTTP status
	Type       string        // the problem's type, a URI reference; "" if the answer was no problem document
	Title      string        // what is wrong, in few words
	Detail     string        // what is wrong here, and what to do
	Position   Position      // where the server stood; zero if it did not say
	RetryAfter time.Duration // when the server wants to be asked again; 0 if it did not say
}

// Error says status, type and what the server said.
func (e *StatusError) Error() string {
	var b strings.Builder
	b.WriteString("the server answered ")
	b.WriteString(strconv.Itoa(e.Status))
	switch {
	case e.Type != "":
		b.WriteString(" " + e.name())
	case e.Title == "":
		b.WriteString(" " + http.StatusText(e.Status))
	}
	for _, s := range []string{e.Title, e.Detail} {
		if s != "" {
			b.WriteString(": " + s)
		}
	}
	return b.String()
}

// Unwrap is the sentinel of e's Type, or nil.
func (e *StatusError) Unwrap() error {
	switch e.name() {
	case "not-found":
		return ErrNotFound
	case "not-ready":
		return ErrNotReady
	case "behind":
		return ErrBehind
	case "too-stale":
		return ErrTooStale
	case "position-from-another-topic", "position-truncated":
		return ErrReset
	case "read-only":
		return ErrReadOnly
	case "outcome-unknown":
		return ErrOutcomeUnknown
	}
	return nil
}

// name is the last part of the type's URI.
func (e *StatusError) name() string {
	return e.Type[strings.LastIndexAny(e.Type, "/#:")+1:]
}

const maxProblem = 64 << 10 // bytes of an error's body that are read

// statusError makes an error of a response. It reads its body, and leaves closing it to the caller.
func statusError(r *http.Response) *StatusError {
	e := &StatusError{Status: r.StatusCode}
	e.Position, _ = ParsePosition(r.Header.Get("Kkv-Position")) // an error is an error without it, too
	if s := r.Header.Get("Retry-After"); s != "" {
		if n, err := strconv.Atoi(s); err == nil {
			e.RetryAfter = max(0, time.Duration(n)*time.Second)
		} else if t, err := http.ParseTime(s); err == nil {
			e.RetryAfter = max(0, time.Until(t))
		}
	}
	body, _ := io.ReadAll(io.LimitReader(r.Body, maxProblem))
	switch typ, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); typ {
	case "application/problem+json":
		var p struct{ Type, Title, Detail string }
		if json.Unmarshal(body, &p) == nil {
			e.Type, e.Title, e.Detail = p.Type, p.Title, p.Detail
		}
	case "text/plain", "":
		e.Detail = firstLine(string(body))
	}
	return e
}

// firstLine keeps an error on one line of a log.
func firstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	if len(s) > 200 {
		s = s[:200] + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
