package demo

import (
	"bytes"
	"cmp"
	"embed"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
)

//go:embed assets
var assets embed.FS

var pages = template.Must(template.ParseFS(assets, "assets/*.html"))

// assetPath is where the script and the style sheet are.
const assetPath = "/-/"

const maxForm = 64 << 10 // bytes of a posted form

// policy lets a page run the embedded script and nothing else, whatever a key or a value contains. Boxes need their
// style attribute.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; style-src-attr 'unsafe-inline'; connect-src 'self'; " +
	"img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// page is what the templates show.
type page struct {
	Topic    string
	Try      string
	Ready    bool
	Live     bool
	Events   string   // the path of the page's event stream
	Replicas []column // of /
	Dev      *devPage // of / in `kkv dev`
	Key      string   // of a key's page, and what the form has
	Color    string
	Box      *box // nil: the key has no value
	Error    string
}

// column is one replica on /.
type column struct {
	N     int    // from 0
	Name  string // "Replica 1"
	Host  string
	Boxes []box
	Dev   bool
}

// devPage is what / has in `kkv dev` besides.
type devPage struct {
	LagBy                     string
	LagOff, KafkaOff, LoadOff string // why a button cannot be pressed, "" if it can
}

// index is the page of all keys, with what the form said.
func (a *App) index(p page) page {
	for _, r := range a.replicas {
		c := column{N: r.n, Name: fmt.Sprint("Replica ", r.n+1), Boxes: r.all(), Dev: a.dev != nil}
		if a.dev != nil {
			c.Host = strings.TrimPrefix(r.o.Servers[0], "http://")
		}
		p.Replicas = append(p.Replicas, c)
	}
	if a.dev != nil {
		p.Key = cmp.Or(p.Key, "A")
		o := a.dev.o
		p.Dev = &devPage{LagBy: fmt.Sprintf("%.0f s", LagBy.Seconds()), LagOff: cmp.Or(o.Locked, o.Lag.Off), KafkaOff: cmp.Or(o.Locked, o.Kafka.Off), LoadOff: o.Locked}
	}
	return p
}

// Empty reports whether there is no box.
func (p page) Empty() bool {
	return !slices.ContainsFunc(p.Replicas, func(c column) bool { return len(c.Boxes) > 0 })
}

// route is by hand, for a key may look like any path: http.ServeMux would redirect "a//b" to another key.
func (a *App) route(w http.ResponseWriter, r *http.Request) {
	p := r.URL.Path
	read := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch {
	case a.dev != nil && strings.HasPrefix(p, devPath):
		a.dev.route(w, r)
	case p == "/" && r.Method == http.MethodPost:
		a.post(w, r)
	case !read:
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "POST a key and a color to /", http.StatusMethodNotAllowed)
	case p == "/" && r.URL.Query().Has("id"):
		a.keyPage(w, r.URL.Query().Get("id"))
	case p == "/":
		a.render(w, http.StatusOK, "index.html", a.index(page{}))
	case p == "/events":
		a.events(w, r)
	case p == "/healthz":
		a.health(w)
	case p == "/favicon.ico":
		w.WriteHeader(http.StatusNoContent)
	case strings.HasPrefix(p, assetPath):
		asset(w, r, p[len(assetPath):])
	default:
		a.keyPage(w, strings.TrimPrefix(p, "/"))
	}
}

func (a *App) keyPage(w http.ResponseWriter, key string) {
	p := page{Key: key, Events: "/events?key=" + url.QueryEscape(key)}
	status := http.StatusNotFound
	if b, ok := a.replicas[0].get(key); ok {
		p.Box = &b
		status = http.StatusOK
	} else if !a.hub.current().Ready {
		status = http.StatusServiceUnavailable // nobody knows yet whether there is such a key
	}
	a.render(w, status, "key.html", p)
}

func (a *App) render(w http.ResponseWriter, status int, name string, p page) {
	st := a.hub.current()
	p.Topic, p.Try, p.Ready, p.Live = a.o.Topic, a.try, st.Ready, st.Live
	if p.Events == "" {
		p.Events = "/events"
	}
	p.Key = strings.ToValidUTF8(p.Key, "\uFFFD")
	var b bytes.Buffer
	if err := pages.ExecuteTemplate(&b, name, p); err != nil {
		http.Error(w, "the page cannot be shown: "+err.Error(), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = b.WriteTo(w)
}

func asset(w http.ResponseWriter, r *http.Request, name string) {
	if ext := path.Ext(name); ext != ".js" && ext != ".css" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	http.ServeFileFS(w, r, assets, "assets/"+name)
}

// health is 200 once the first state is there, and stays so while the cache is away: the pages still work.
func (a *App) health(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if !a.hub.current().Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, "waiting for the cache\n")
		return
	}
	_, _ = io.WriteString(w, "ok\n")
}

// post takes the form. A browser without script is sent back to the page, all others get JSON.
func (a *App) post(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		http.Error(w, "not a form: "+err.Error(), http.StatusBadRequest)
		return
	}
	key, color := r.PostForm.Get("key"), strings.TrimSpace(r.PostForm.Get("color"))
	status, pos, err := a.put(r.Context(), key, color)
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		if err == nil {
			http.Redirect(w, r, "/", http.StatusSeeOther)
			return
		}
		a.render(w, status, "index.html", a.index(page{Key: key, Color: color, Error: err.Error()}))
		return
	}
	if err != nil {
		answer(w, status, map[string]string{"error": err.Error()})
		return
	}
	answer(w, status, map[string]string{"key": key, "color": color, "position": pos.String()})
}
