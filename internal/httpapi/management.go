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
	stop := func(w http.ResponseWriter, r *http.Request) {
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
		shutdown(code)
	}
	mux.HandleFunc("POST /_admin/v1/shutdown", stop)
	mux.HandleFunc("POST /_admin/v1/shutdown/{code}", stop)
	mux.HandleFunc("GET /config", func(w http.ResponseWriter, _ *http.Request) {
		var b strings.Builder
		if err := config(&b); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/yaml")
		_, _ = io.WriteString(w, b.String()) // the client is gone if this fails
	})
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	// Not cmdline: it would show the passwords that /config masks.
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return http.NewCrossOriginProtection().Handler(mux)
}
