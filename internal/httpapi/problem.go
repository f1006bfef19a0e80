package httpapi

import "net/http"

// titles of the problems, by type (RFC 9457, CONTRACT section 3).
var titles = map[string]string{
	"not-ready":                   "The topic is still being read",
	"not-found":                   "Not found",
	"behind":                      "This replica is behind what was asked for",
	"too-stale":                   "The data is older than was asked for",
	"position-from-another-topic": "The position is another topic's",
	"position-truncated":          "The position is no longer in the log",
	"read-only":                   "This server takes no writes",
	"bad-key":                     "The key cannot be read",
	"bad-position":                "The position cannot be read",
	"bad-request":                 "The request cannot be read",
	"too-large":                   "The value is too large",
	"outcome-unknown":             "It is not known whether the write happened",
	"not-sent":                    "The write was not sent",
	"refused":                     "Kafka refused the write",
	"cross-origin":                "Cross-origin request refused",
	"foreign-host":                "Host name refused",
	"too-many-watchers":           "This server has as many watchers as it takes",
	"draining":                    "This server is shutting down",
}

type problemBody struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
}

// problem answers with application/problem+json. Its type is relative to the documentation's page of problems.
func problem(w http.ResponseWriter, r *http.Request, status int, kind, detail string) {
	writeProblem(w, r, status, problemBody{Type: "/problems/" + kind, Title: titles[kind], Status: status, Detail: detail})
}
