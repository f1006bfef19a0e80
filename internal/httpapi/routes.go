package httpapi

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// route is one line of the cache listener's table, which api/openapi.yaml describes.
type route struct {
	// path has names in braces, as in api/openapi.yaml: {key} is all that is left, {topic} and {partition} are one segment
	// that is not empty. They are matched as sent and handed on escaped.
	path    string
	methods []string
	serve   func(s *Server, w http.ResponseWriter, r *http.Request, args [2]string)
	parts   []string // of the path, around the names
	rest    bool     // the last name takes all that is left
}

var (
	get  = []string{http.MethodGet}
	read = []string{http.MethodGet, http.MethodHead}
	post = []string{http.MethodPost}
	all  = []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete}
)

// routes are those of the cache listener, the busiest first.
var routes = compile([]route{
	{path: "/v1/topics/{topic}/keys/{key}", methods: all, serve: onTopic((*Server).key)},
	{path: "/cache/v1/raw/{key}", methods: read, serve: compatRead((*Server).compatRaw)},
	{path: "/v1/topics/{topic}/keys", methods: read, serve: onTopic((*Server).list)},
	{path: "/v1/topics/{topic}/keys:batchGet", methods: post, serve: onTopic((*Server).batchGet)},
	{path: "/v1/topics/{topic}/watch", methods: get, serve: onTopic((*Server).watchTopic)},
	{path: "/v1/topics/{topic}", methods: read, serve: onTopic((*Server).status)},
	{path: "/v1/topics", methods: read, serve: (*Server).topics},
	{path: "/cache/v1/keys", methods: read, serve: compatRead((*Server).compatKeys)},
	{path: "/cache/v1/values", methods: read, serve: compatRead((*Server).compatValues)},
	{path: "/cache/v1/offset/{topic}/{partition}", methods: read, serve: (*Server).compatOffset},
	{path: "/q/health/ready", methods: read, serve: (*Server).healthReady},
	{path: "/health/ready", methods: read, serve: (*Server).healthReady},
	{path: "/readyz", methods: read, serve: (*Server).healthReady},
	{path: "/ready", methods: read, serve: (*Server).healthReady},
	{path: "/q/health/live", methods: read, serve: (*Server).healthLive},
	{path: "/health/live", methods: read, serve: (*Server).healthLive},
	{path: "/livez", methods: read, serve: (*Server).healthLive},
	{path: "/q/health", methods: read, serve: (*Server).healthLive},
	{path: "/health", methods: read, serve: (*Server).healthLive},
	{path: "/q/metrics", methods: read, serve: (*Server).serveMetrics},
	{path: "/metrics", methods: read, serve: (*Server).serveMetrics},
})

func compile(rs []route) []route {
	for i := range rs {
		rt := &rs[i]
		rt.rest = strings.HasSuffix(rt.path, "{key}")
		for part := range strings.SplitSeq(rt.path, "{") {
			_, after, named := strings.Cut(part, "}")
			if !named {
				after = part
			}
			rt.parts = append(rt.parts, after)
		}
	}
	return rs
}

// match reports whether an escaped path is the route's, and what stands for its names.
func (rt *route) match(path string) (args [2]string, ok bool) {
	if path, ok = strings.CutPrefix(path, rt.parts[0]); !ok {
		return args, false
	}
	for i, after := range rt.parts[1:] {
		if rt.rest && i == len(rt.parts)-2 {
			args[i] = path
			return args, true
		}
		n := strings.IndexByte(path, '/')
		if n < 0 {
			n = len(path)
		}
		if n == 0 {
			return args, false
		}
		args[i] = path[:n]
		if path, ok = strings.CutPrefix(path[n:], after); !ok {
			return args, false
		}
	}
	return args, path == ""
}

// route finds the route by the escaped path as sent.
func (s *Server) route(w http.ResponseWriter, r *http.Request) {
	path := r.URL.EscapedPath()
	for i := range routes {
		args, ok := routes[i].match(path)
		switch {
		case !ok:
		case slices.Contains(routes[i].methods, r.Method):
			routes[i].serve(s, w, r, args)
			return
		default:
			allowed := strings.Join(routes[i].methods, ", ")
			w.Header().Set("Allow", allowed)
			noRoute(w, r, path, http.StatusMethodNotAllowed, "bad-request", "Use one of the methods "+allowed+".")
			return
		}
	}
	noRoute(w, r, path, http.StatusNotFound, "not-found", "There is no such route; api/openapi.yaml lists them: /v1/topics/"+s.topic+"/keys, /keys/{key}, /keys:batchGet, /watch, and others.")
}

// noRoute answers a call that no route takes: in the native surface with a problem, elsewhere without a body, as the original.
func noRoute(w http.ResponseWriter, r *http.Request, path string, status int, kind, detail string) {
	if strings.HasPrefix(path, "/v1/") {
		problem(w, r, status, kind, detail)
		return
	}
	w.Header()["Cache-Control"] = noCache
	w.Header()["Content-Length"] = zeroLength
	w.WriteHeader(status)
}

// onTopic makes a route of a handler of the topic that is served; arg is what follows, escaped as sent.
func onTopic(f func(s *Server, w http.ResponseWriter, r *http.Request, q url.Values, arg string)) func(*Server, http.ResponseWriter, *http.Request, [2]string) {
	return func(s *Server, w http.ResponseWriter, r *http.Request, args [2]string) {
		if args[0] != s.topic {
			name, err := url.PathUnescape(args[0])
			if err != nil {
				problem(w, r, http.StatusBadRequest, "bad-request", "The topic is not percent-encoded.")
				return
			}
			if name != s.topic {
				problem(w, r, http.StatusNotFound, "not-found", "This server serves the topic "+strconv.Quote(s.topic)+", not "+strconv.Quote(name)+".")
				return
			}
		}
		var q url.Values
		if r.URL.RawQuery != "" {
			var err error
			if q, err = url.ParseQuery(r.URL.RawQuery); err != nil {
				problem(w, r, http.StatusBadRequest, "bad-request", "The query string cannot be read: "+err.Error()+".")
				return
			}
		}
		f(s, w, r, q, args[1])
	}
}

// compatRead makes a route of one of the original's reads, which ask for freshness by header alone: the query is part of
// the key.
func compatRead(f func(s *Server, w http.ResponseWriter, r *http.Request, arg string)) func(*Server, http.ResponseWriter, *http.Request, [2]string) {
	return func(s *Server, w http.ResponseWriter, r *http.Request, args [2]string) {
		w.Header()["Vary"] = varyFresh
		if s.await(w, r, nil) {
			f(s, w, r, args[0])
		}
	}
}
