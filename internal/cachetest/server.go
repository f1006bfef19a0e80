// Package cachetest is a small cache in memory, without Kafka, that speaks the native routes (CONTRACT.md section 3)
// for the tests of package kkv and of the demo application, and fails as told. It is no part of any program.
package cachetest

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kkv-project/kkv/internal/position"
	"github.com/kkv-project/kkv/internal/wire"
)

// Server is one replica of one topic. It is an http.Handler and safe for concurrent use. Two Servers of one topic
// name have the same topic ID, so that Put and Delete on both make them replicas.
type Server struct {
	Topic string
	Token string // wanted in requests, if not empty

	mu        sync.Mutex
	topicID   [16]byte
	parts     []position.Partition
	keys      map[string]wire.Change
	changed   chan struct{} // closed at every change of what is below or above
	log       []wire.Change // every change since the start, each with its Position
	intercept func(http.ResponseWriter, *http.Request) bool
	unready   bool
	mute      bool
	hold      bool // writes are acknowledged, but not shown
	held      []wire.Change
	epoch     int // of watches: they end when it grows
	reset     int // the log's length at the last Reset; 0: none
	reason    string
	history   []wire.Change // every record of this incarnation, for since
	horizon   string        // the reason to answer every since with a reset; "": it is known what happened since
}

// New makes a ready Server of a topic with three empty partitions.
func New(topic string) *Server {
	s := &Server{Topic: topic, keys: make(map[string]wire.Change), changed: make(chan struct{})}
	sum := sha256.Sum256([]byte(topic))
	copy(s.topicID[:], sum[:])
	s.parts = make([]position.Partition, 3)
	return s
}

func (s *Server) touch() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Put appends a record and shows it.
func (s *Server) Put(key, value string, headers ...wire.Header) (partition int32, offset int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.record(wire.Change{Type: wire.Put, Key: []byte(key), Value: []byte(value), Headers: headers})
	s.show(c)
	return c.Partition, c.Offset
}

// Delete appends a tombstone and shows it.
func (s *Server) Delete(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.show(s.record(wire.Change{Type: wire.Delete, Key: []byte(key)}))
}

// Batch appends records that become visible together: key and value by turns.
func (s *Server) Batch(kv ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := 0; i < len(kv); i += 2 {
		c := s.record(wire.Change{Type: wire.Put, Key: []byte(kv[i]), Value: []byte(kv[i+1])})
		s.apply(&c)
		if i+2 < len(kv) {
			c.Position = ""
		}
		s.log = append(s.log, c)
	}
	s.touch()
}

func (s *Server) record(c wire.Change) wire.Change {
	h := fnv.New32()
	_, _ = h.Write(c.Key)
	c.Partition = int32(h.Sum32() % uint32(len(s.parts)))
	c.Offset = s.parts[c.Partition].Next
	for _, o := range s.held {
		if o.Partition == c.Partition {
			c.Offset++
		}
	}
	c.Timestamp = time.Now().UnixMilli()
	return c
}

func (s *Server) show(c wire.Change) {
	s.apply(&c)
	s.log = append(s.log, c)
	s.touch()
}

func (s *Server) apply(c *wire.Change) {
	s.history = append(s.history, *c)
	s.parts[c.Partition].Next = c.Offset + 1
	c.Position = s.pos().String()
	if c.Type == wire.Put {
		s.keys[string(c.Key)] = *c
	} else {
		delete(s.keys, string(c.Key))
	}
}

func (s *Server) pos() position.Position { return position.New(s.topicID, time.Now(), s.parts) }

// Position is where the server stands.
func (s *Server) Position() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pos().String()
}

// Value is what the server shows for key.
func (s *Server) Value(key string) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.keys[key]
	return string(c.Value), ok
}

// Intercept makes f answer requests in the server's stead where it returns true; nil ends that.
func (s *Server) Intercept(f func(http.ResponseWriter, *http.Request) bool) {
	s.set(func() { s.intercept = f })
}

// SetReady makes the server answer as while it loads, or no longer so.
func (s *Server) SetReady(yes bool) { s.set(func() { s.unready = !yes }) }

// Mute makes watches say nothing, without ending them, from now on or no longer.
func (s *Server) Mute(yes bool) { s.set(func() { s.mute = yes }) }

// Hold makes writes be acknowledged before they are shown; letting go shows them.
func (s *Server) Hold(yes bool) {
	s.set(func() {
		s.hold = yes
		if !yes {
			for _, c := range s.held {
				s.apply(&c)
				s.log = append(s.log, c)
			}
			s.held = nil
		}
	})
}

// ResetSince makes watches that resume be answered with a reset for this reason and the state, whichever position they
// resume from; "" ends that.
func (s *Server) ResetSince(reason string) { s.set(func() { s.horizon = reason }) }

// Drop ends every watch.
func (s *Server) Drop() { s.set(func() { s.epoch++ }) }

// Replace forgets every key and record, as a topic does that is made again, and puts key and value by turns. Watches
// hear a Reset if tell, and nothing but the end of their connection if not.
func (s *Server) Replace(tell bool, kv ...string) {
	s.set(func() {
		s.topicID[0]++
		s.parts = make([]position.Partition, len(s.parts))
		clear(s.keys)
		s.history = nil
		for i := 0; i < len(kv); i += 2 {
			c := s.record(wire.Change{Type: wire.Put, Key: []byte(kv[i]), Value: []byte(kv[i+1])})
			s.apply(&c)
		}
		s.log = append(s.log, wire.Change{}) // the place of the reset
		if tell {
			s.reset, s.reason = len(s.log), "topic-recreated"
		} else {
			s.epoch++
		}
	})
}

func (s *Server) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.touch()
}

// ServeHTTP answers the native routes.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	unready, intercept := s.unready, s.intercept
	s.mu.Unlock()
	if intercept != nil && intercept(w, r) {
		return
	}
	path, topicPath := r.URL.EscapedPath(), "/v1/topics/"+url.PathEscape(s.Topic)+"/"
	rest, ok := strings.CutPrefix(path, topicPath)
	key, isKey := strings.CutPrefix(rest, "keys/")
	switch {
	case s.Token != "" && r.Header.Get("Authorization") != "Bearer "+s.Token:
		Problem(w, http.StatusUnauthorized, "", "no valid token")
	case path == "/v1/topics":
		fmt.Fprintf(w, `{"topics":[{"topic":%q}]}`, s.Topic)
	case path == "/q/health/ready" && !unready:
		_, _ = io.WriteString(w, `{"status":"UP"}`)
	case path != "/q/health/ready" && !ok:
		Problem(w, http.StatusNotFound, "not-found", "this server serves "+s.Topic)
	case unready:
		Problem(w, http.StatusServiceUnavailable, "not-ready", "loading")
	case rest == "watch":
		s.watch(w, r)
	case rest == "keys":
		s.list(w, r)
	case ok && isKey:
		raw, err := url.PathUnescape(key)
		if r.URL.Query().Get("keyEncoding") == "base64url" {
			var b []byte
			b, err = base64.RawURLEncoding.DecodeString(key)
			raw = string(b)
		}
		if err != nil || key == "." || key == ".." || strings.Contains(key, "/") {
			Problem(w, http.StatusBadRequest, "bad-key", "escape it")
			return
		}
		s.key(w, r, raw)
	default:
		Problem(w, http.StatusNotFound, "", "no such route")
	}
}

// Problem answers a problem document.
func Problem(w http.ResponseWriter, status int, typ, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	if typ != "" {
		typ = "https://example.org/problems/" + typ
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"type": typ, "title": "no", "detail": detail, "status": status})
}

func (s *Server) key(w http.ResponseWriter, r *http.Request, key string) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		s.write(w, r, key)
		return
	}
	s.mu.Lock()
	c, ok := s.keys[key]
	pos := s.pos().String()
	s.mu.Unlock()
	w.Header().Set("Kkv-Position", pos)
	if !ok {
		Problem(w, http.StatusNotFound, "not-found", "no such key")
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Kkv-Record", fmt.Sprintf("%d:%d", c.Partition, c.Offset))
	w.Header().Set("Kkv-Timestamp", strconv.FormatInt(c.Timestamp, 10))
	for _, h := range c.Headers {
		if h.Key == "content-type" {
			w.Header().Set("Content-Type", string(h.Value))
			continue
		}
		w.Header().Add("X-Kafka-"+h.Key, base64.StdEncoding.EncodeToString(h.Value))
	}
	_, _ = w.Write(c.Value)
}

func (s *Server) write(w http.ResponseWriter, r *http.Request, key string) {
	value, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	c := wire.Change{Type: wire.Put, Key: []byte(key), Value: value}
	switch r.Method {
	case http.MethodPut:
	case http.MethodDelete:
		c.Type, c.Value = wire.Delete, nil
	default:
		Problem(w, http.StatusMethodNotAllowed, "", "PUT or DELETE")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c = s.record(c)
	status := http.StatusOK
	if s.hold {
		s.held = append(s.held, c)
		w.Header().Set("Kkv-Position", position.FromWrite(s.topicID, c.Partition, c.Offset).String())
		status = http.StatusAccepted
	} else {
		s.show(c)
		w.Header().Set("Kkv-Position", s.pos().String())
	}
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"partition":%d,"offset":%d,"timestamp":%d}`, c.Partition, c.Offset, c.Timestamp)
}

// list answers every key that begins with prefix, in key order. A fresh one waits for what is held back.
func (s *Server) list(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if r.Header.Get("Kkv-Consistency") == "fresh" && !s.await(r, func() bool { return len(s.held) == 0 }) {
		Problem(w, http.StatusGatewayTimeout, "behind", "records are held back")
		return
	}
	limit, err := strconv.Atoi(q.Get("limit"))
	if err != nil {
		limit = math.MaxInt
	}
	s.mu.Lock()
	w.Header().Set("Kkv-Position", s.pos().String())
	var out []byte
	for _, key := range slices.Sorted(maps.Keys(s.keys)) {
		if c := s.keys[key]; strings.HasPrefix(key, q.Get("prefix")) && limit > 0 {
			limit--
			c.Position = ""
			if q.Get("values") != "true" {
				c.Value = nil
			}
			out = wire.AppendNDJSON(out, &c)
		}
	}
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/x-ndjson")
	_, _ = w.Write(out)
}

// await reports whether ok, which is called under the lock, came to hold within five seconds.
func (s *Server) await(r *http.Request, ok func() bool) bool {
	limit := time.NewTimer(5 * time.Second)
	defer limit.Stop()
	for {
		s.mu.Lock()
		done, changed := ok(), s.changed
		s.mu.Unlock()
		if done {
			return true
		}
		select {
		case <-changed:
		case <-limit.C:
			return false
		case <-r.Context().Done():
			return false
		}
	}
}

// watch sends the state, in no order, or exactly the keys that were put or deleted since a position; then the log from
// there on, and progress every 10 s.
func (s *Server) watch(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	match := func(c *wire.Change) bool {
		return (!q.Has("key") || q.Get("key") == string(c.Key)) && bytes.HasPrefix(c.Key, []byte(q.Get("prefix")))
	}
	var since position.Position
	if v := q.Get("since"); v != "" && v != "now" {
		var err error
		if since, err = position.Parse(v); err != nil || since.AsOf().IsZero() {
			Problem(w, http.StatusBadRequest, "bad-position", "resume from a read or a watch")
			return
		}
		// GUARANTEES rule 15.
		if !s.await(r, func() bool { return s.horizon != "" || since.TopicID() != s.topicID || s.pos().Covers(since) }) {
			Problem(w, http.StatusServiceUnavailable, "behind", "this replica has not come so far")
			return
		}
	}
	if p, err := position.Parse(r.Header.Get("Kkv-At-Least")); err == nil && !p.IsZero() {
		other := false
		reached := s.await(r, func() bool {
			other = p.TopicID() != s.topicID
			return other || s.pos().Covers(p)
		})
		switch {
		case other:
			Problem(w, http.StatusConflict, "position-from-another-topic", "forget it")
			return
		case !reached:
			Problem(w, http.StatusGatewayTimeout, "behind", "this replica has not come so far")
			return
		}
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	s.mu.Lock()
	out, at := s.begin(q, since, match)
	epoch := s.epoch
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	progress := false
	for {
		if s.reset > at {
			lines, n := s.stateLines(q, match)
			out = append(wire.AppendNDJSON(out, &wire.Change{Type: wire.Reset, Reason: s.reason}), lines...)
			at = n
		}
		for ; at < len(s.log); at++ {
			if c := s.log[at]; c.Type != "" && match(&c) {
				out = line(out, c, q)
			}
		}
		if progress {
			out = wire.AppendNDJSON(out, &wire.Change{Type: wire.Progress, Position: s.pos().String(), AgeMs: 1})
		}
		changed, mute, over := s.changed, s.mute, s.epoch != epoch
		s.mu.Unlock()
		if over {
			return
		}
		if !mute {
			if _, err := w.Write(out); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			out = out[:0]
		}
		progress = false
		select {
		case <-changed:
		case <-tick.C:
			progress = true
		case <-r.Context().Done():
			return
		}
		s.mu.Lock()
	}
}

// begin is what a watch starts with, up to its synced, and where in the log it goes on.
func (s *Server) begin(q url.Values, since position.Position, match func(*wire.Change) bool) (lines []byte, at int) {
	switch reason := s.horizon; {
	case q.Get("since") == "now":
		return wire.AppendNDJSON(nil, &wire.Change{Type: wire.Synced, Position: s.pos().String()}), len(s.log)
	case since.IsZero():
		return s.stateLines(q, match)
	case reason != "", since.TopicID() != s.topicID:
		if reason == "" {
			reason = "topic-recreated"
		}
		lines, at = s.stateLines(q, match)
		return append(wire.AppendNDJSON(nil, &wire.Change{Type: wire.Reset, Reason: reason}), lines...), at
	}
	last := make(map[string]wire.Change)
	for _, c := range s.history {
		if match(&c) && c.Offset >= since.Partition(c.Partition).Next {
			last[string(c.Key)] = c
		}
	}
	for _, key := range slices.Sorted(maps.Keys(last)) {
		c := last[key]
		c.Position = ""
		lines = line(lines, c, q)
	}
	return wire.AppendNDJSON(lines, &wire.Change{Type: wire.Synced, Position: s.pos().String(), Keys: len(last)}), len(s.log)
}

func (s *Server) stateLines(q url.Values, match func(*wire.Change) bool) (lines []byte, at int) {
	n := 0
	for _, c := range s.keys {
		if match(&c) {
			n++
			c.Position = ""
			lines = line(lines, c, q)
		}
	}
	return wire.AppendNDJSON(lines, &wire.Change{Type: wire.Synced, Position: s.pos().String(), Keys: n}), len(s.log)
}

func line(out []byte, c wire.Change, q url.Values) []byte {
	if q.Get("values") == "false" {
		c.Value = nil
	}
	return wire.AppendNDJSON(out, &c)
}

// Keys are the keys that the server shows, in order.
func (s *Server) Keys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.keys))
}
