package httpapi

import (
	"encoding/json"
	"net/http"
)

// titles of the problems, by type (RFC 9457, CONTRACT section 3).
var titles = map[string]string{
	"not-ready":       "The topic is still being read",
	"not-found":       "Not found",
	"read-only":       "This server takes no writes",
	"bad-key":         "The key cannot be read",
	"bad-position":    "The position cannot be read",
	"bad-request":     "The request cannot be read",
	"too-large":       "The value is too large",
	"outcome-unknown": "It is not known whether the write happened",
	"not-sent":        "The write was not sent",
	"refused":         "Kafka refused the write",
	"cross-origin":    "Cross-origin request refused",
	"foreign-host":    "Host name refused",
	"draining":        "This server is shutting down",
}

type problemBody struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
}

// problem answers with application/problem+json. Its type is relative to the documentation's page of problems.
func problem(w http.ResponseWriter, r *http.Request, status int, kind, detail string) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-cache")
	if status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	b, _ := json.Marshal(problemBody{Type: "/problems/" + kind, Title: titles[kind], Status: status, Detail: detail}) // strings and an int: cannot fail
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(append(b, '\n')) // the client is gone if this fails
	}
}
