package main

import (
	"io"
	"net/http"
	"runtime/debug"
	"sync"
	"time"
)

// event is one in a chain; told is closed when the next is there.
type event struct {
	body []byte
	told chan struct{}
	next *event
}

// streams is a handler that sends what is POSTed to all who GET.
type streams struct {
	mu   sync.Mutex
	last *event
}

func newStreams() *streams {
	// As kkv, it gives memory back when nothing happens.
	go func() {
		for range time.Tick(time.Second) {
			debug.FreeOSMemory()
		}
	}()
	return &streams{last: &event{told: make(chan struct{})}}
}

func (s *streams) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.last.next = &event{body: body, told: make(chan struct{})}
		close(s.last.told)
		s.last = s.last.next
		return
	}
	s.mu.Lock()
	at := s.last
	s.mu.Unlock()
	w.Header().Set("Content-Type", "text/event-stream")
	rc := http.NewResponseController(w)
	for {
		if rc.Flush() != nil {
			return
		}
		select {
		case <-at.told:
		case <-r.Context().Done():
			return
		}
		at = at.next
		if _, err := w.Write(at.body); err != nil {
			return
		}
	}
}
