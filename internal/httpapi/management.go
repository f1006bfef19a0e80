package httpapi

import (
	"io"
	"net/http"
	"net/http/pprof"
	"strconv"
	"strings"
)

// Management answers what must not be reachable for everybody: the original's shutdown, profiles (net/http/pprof)
// and the configuration in force. shutdown is called once with the exit code that was asked for.
func Management(shutdown func(code int), config func(io.Writer) error) http.Handler {
	mux := http.NewServeMux()
	m := &management{shutdown, config}
	for pattern, serve := range managementRoutes {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { serve(m, w, r) })
	}
	return http.NewCrossOriginProtection().Handler(mux)
}

type management struct {
	shutdown func(code int)
	config   func(io.Writer) error
}

// managementRoutes are http.ServeMux's patterns: no key stands in a path here. Not among them is pprof's cmdline, which would
// show the passwords that /config masks.
var managementRoutes = map[string]func(m *management, w http.ResponseWriter, r *http.Request){
	"POST /_admin/v1/shutdown":        (*management).stop,
	"POST /_admin/v1/shutdown/{code}": (*management).stop,
	"GET /config":                     (*management).settings,
	"GET /debug/pprof/{profile...}":   func(_ *management, w http.ResponseWriter, r *http.Request) { pprof.Index(w, r) },
	"GET /debug/pprof/profile":        func(_ *management, w http.ResponseWriter, r *http.Request) { pprof.Profile(w, r) },
	"GET /debug/pprof/symbol":         func(_ *management, w http.ResponseWriter, r *http.Request) { pprof.Symbol(w, r) },
	"GET /debug/pprof/trace":          func(_ *management, w http.ResponseWriter, r *http.Request) { pprof.Trace(w, r) },
}

func (m *management) stop(w http.ResponseWriter, r *http.Request) {
	code := 0
	if v := r.PathValue("code"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 || n > 255 {
			http.Error(w, "an exit code is a number from 0 to 255", http.StatusBadRequest)
			return
		}
		code = n
	}
	w.WriteHeader(http.StatusAccepted)
	m.shutdown(code)
}

func (m *management) settings(w http.ResponseWriter, _ *http.Request) {
	var b strings.Builder
	if err := m.config(&b); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = io.WriteString(w, b.String()) // the client is gone if this fails
}
