// Package wire is the form of a change on the wire, shared by the server and the Go client: one line of JSON
// (NDJSON), or the same as a server-sent event (WHATWG HTML, section 9.2). CLIENT.md shows both.
//
// It is a leaf. A value travels verbatim when it is JSON on one line, else as text, else as base64; so a reader
// gets back exactly the record's bytes.
package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// The kinds of Change.
const (
	Put      = "put"      // a key has this value
	Delete   = "delete"   // a key is gone; Reason "expired" where retention took it
	Synced   = "synced"   // the state is whole; Keys counts it
	Progress = "progress" // everything up to Position has been written to this stream
	Reset    = "reset"    // forget every key that is not sent again before the next synced
	Closing  = "closing"  // the server ends the stream; come back after RetryMs
	Absent   = "absent"   // a batch get's key that has no value
)

// Header is a Kafka record header.
type Header struct {
	Key   string `json:"key"`
	Value []byte `json:"value"` // base64 in JSON, as kafka-pixy writes it
}

// Change is one line of a watch, a list or a batch get. Which fields mean something depends on Type.
type Change struct {
	Type      string
	Position  string // opaque; "" where the line has none
	Key       []byte
	Value     []byte // nil: not sent (a delete, or keys only)
	Partition int32
	Offset    int64
	Timestamp int64 // milliseconds since the Unix epoch: the record's own
	Headers   []Header
	Keys      int    // Synced
	AgeMs     int64  // Progress; -1: unknown
	Merged    uint64 // Progress: changes since the last position of which only the outcome was told
	Reason    string // Delete, Reset
	RetryMs   int64  // Closing
}

// HasKey reports whether lines of c's type are about one key.
func (c *Change) HasKey() bool { return c.Type == Put || c.Type == Delete || c.Type == Absent }

// AppendNDJSON appends c as one line, its line break included.
func AppendNDJSON(dst []byte, c *Change) []byte {
	dst = append(dst, `{"type":"`...)
	dst = append(dst, c.Type...)
	dst = append(dst, '"')
	if c.Position != "" {
		dst = append(dst, `,"position":`...)
		dst = AppendString(dst, c.Position)
	}
	dst = append(dst, ',')
	n := len(dst)
	dst = appendFields(dst, c)
	if len(dst) == n {
		dst = dst[:n-1]
	}
	return append(dst, '}', '\n')
}

// AppendSSE appends c as one server-sent event. A Reset clears the reader's last event ID; other events without
// a Position leave it as it was.
func AppendSSE(dst []byte, c *Change) []byte {
	if c.Type == Closing { // a reconnection time is a field of its own, not an event
		dst = append(dst, "retry: "...)
		dst = strconv.AppendInt(dst, c.RetryMs, 10)
		return append(dst, '\n', '\n')
	}
	dst = append(dst, "event: "...)
	dst = append(dst, c.Type...)
	dst = append(dst, '\n')
	switch {
	case c.Type == Reset:
		dst = append(dst, "id:\n"...)
	case c.Position != "":
		dst = append(dst, "id: "...)
		dst = append(dst, c.Position...)
		dst = append(dst, '\n')
	}
	dst = append(dst, "data: {"...)
	dst = appendFields(dst, c)
	return append(dst, "}\n\n"...)
}

func appendFields(dst []byte, c *Change) []byte {
	switch c.Type {
	case Synced:
		dst = append(dst, `"keys":`...)
		return strconv.AppendInt(dst, int64(c.Keys), 10)
	case Progress:
		n := len(dst)
		if c.AgeMs >= 0 {
			dst = append(dst, `"ageMs":`...)
			dst = strconv.AppendInt(dst, c.AgeMs, 10)
		}
		if c.Merged > 0 {
			if len(dst) > n {
				dst = append(dst, ',')
			}
			dst = append(dst, `"merged":`...)
			dst = strconv.AppendUint(dst, c.Merged, 10)
		}
		return dst
	case Reset:
		dst = append(dst, `"reason":`...)
		return AppendString(dst, c.Reason)
	case Closing:
		dst = append(dst, `"retryMs":`...)
		return strconv.AppendInt(dst, c.RetryMs, 10)
	}
	if utf8.Valid(c.Key) {
		dst = append(dst, `"key":`...)
		dst = AppendString(dst, string(c.Key))
	} else {
		dst = append(dst, `"keyBase64":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, c.Key)
		dst = append(dst, '"')
	}
	if c.Type == Absent {
		return dst
	}
	dst = AppendValue(dst, c.Value)
	dst = append(dst, `,"partition":`...)
	dst = strconv.AppendInt(dst, int64(c.Partition), 10)
	dst = append(dst, `,"offset":`...)
	dst = strconv.AppendInt(dst, c.Offset, 10)
	dst = append(dst, `,"timestamp":`...)
	dst = strconv.AppendInt(dst, c.Timestamp, 10)
	if len(c.Headers) > 0 {
		dst = append(dst, `,"headers":`...)
		dst = appendHeaders(dst, c.Headers)
	}
	if c.Reason != "" {
		dst = append(dst, `,"reason":`...)
		dst = AppendString(dst, c.Reason)
	}
	return dst
}

// AppendValue appends `,"value":…`, `,"text":…` or `,"base64":…`, whichever carries v exactly; nothing for nil.
func AppendValue(dst, v []byte) []byte {
	switch {
	case v == nil:
		return dst
	case !utf8.Valid(v):
		dst = append(dst, `,"base64":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, v)
		return append(dst, '"')
	case verbatim(v):
		dst = append(dst, `,"value":`...)
		return append(dst, v...)
	}
	dst = append(dst, `,"text":`...)
	return AppendString(dst, string(v))
}

// verbatim: JSON without a line break. A JSON reader drops white space around a value, so such a value would
// not come back byte for byte; it goes as text.
func verbatim(v []byte) bool {
	if len(v) == 0 || blank(v[0]) || blank(v[len(v)-1]) {
		return false
	}
	return bytes.IndexByte(v, '\n') < 0 && bytes.IndexByte(v, '\r') < 0 && json.Valid(v)
}

func blank(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

func appendHeaders(dst []byte, hs []Header) []byte {
	dst = append(dst, '[')
	for i, h := range hs {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"key":`...)
		dst = AppendString(dst, h.Key)
		dst = append(dst, `,"value":`...)
		if h.Value == nil {
			dst = append(dst, `null}`...)
			continue
		}
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, h.Value)
		dst = append(dst, `"}`...)
	}
	return append(dst, ']')
}

// AppendString appends s, which is UTF-8, as a JSON string that leaves <, > and & alone, without a detour for the usual plain text.
func AppendString(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			b := bytes.NewBuffer(dst)
			enc := json.NewEncoder(b)
			enc.SetEscapeHTML(false)
			_ = enc.Encode(s) // a string and a bytes.Buffer: neither can fail
			return b.Bytes()[:b.Len()-1]
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

type line struct {
	Type      string          `json:"type"`
	Position  string          `json:"position"`
	Key       *string         `json:"key"`
	KeyBase64 []byte          `json:"keyBase64"`
	Value     json.RawMessage `json:"value"`
	Text      *string         `json:"text"`
	Base64    []byte          `json:"base64"`
	Partition int32           `json:"partition"`
	Offset    int64           `json:"offset"`
	Timestamp int64           `json:"timestamp"`
	Headers   []Header        `json:"headers"`
	Keys      int             `json:"keys"`
	AgeMs     *int64          `json:"ageMs"`
	Merged    uint64          `json:"merged"`
	Reason    string          `json:"reason"`
	RetryMs   int64           `json:"retryMs"`
}

// ParseNDJSON reads one line that AppendNDJSON wrote, with or without its line break. Unknown members are
// ignored, so that a server may say more. The Change owns its bytes.
func ParseNDJSON(b []byte) (Change, error) {
	var l line
	if err := json.Unmarshal(b, &l); err != nil {
		return Change{}, fmt.Errorf("parse a watch line: %w", err)
	}
	if l.Type == "" {
		return Change{}, errors.New("parse a watch line: no \"type\"")
	}
	c := Change{Type: l.Type, Position: l.Position, Partition: l.Partition, Offset: l.Offset, Timestamp: l.Timestamp,
		Headers: l.Headers, Keys: l.Keys, AgeMs: -1, Merged: l.Merged, Reason: l.Reason, RetryMs: l.RetryMs}
	if l.AgeMs != nil {
		c.AgeMs = *l.AgeMs
	}
	switch {
	case l.Key != nil:
		c.Key = []byte(*l.Key)
	case l.KeyBase64 != nil:
		c.Key = l.KeyBase64
	case c.HasKey():
		return Change{}, fmt.Errorf("parse a watch line: %q without a key", l.Type)
	}
	switch {
	case l.Value != nil:
		c.Value = l.Value
	case l.Text != nil:
		c.Value = []byte(*l.Text)
	case l.Base64 != nil:
		c.Value = l.Base64
	}
	return c, nil
}
