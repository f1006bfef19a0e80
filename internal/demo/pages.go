package demo

import (
	"bytes"
	"embed"
	"encoding/json"
	"html/template"
	"io"
	"net/http"
	"net/url"
	"path"
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
	Topic  string
	Try    string
	Ready  bool
	Live   bool
	Events string // the path of the page's event stream
	Boxes  []box  // of /
	Key    string // of a key's page, and what the form has
	Color  string
	Box    *box // nil: the key has no value
	Error  string
}

// route is by hand, for a key may look like any path: http.ServeMux would redirect "a//b" to another key.
func (a *App) route(w http.ResponseWriter, r *http.Request) {
	p := r.URL.Path
	read := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch {
	case p == "/" && r.Method == http.MethodPost:
		a.post(w, r)
	case !read:
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "POST a key and a color to /", http.StatusMethodNotAllowed)
	case p == "/" && r.URL.Query().Has("id"):
		a.keyPage(w, r.URL.Query().Get("id"))
	case p == "/":
		a.render(w, http.StatusOK, "index.html", page{Boxes: a.all()})
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
	if b, ok := a.get(key); ok {
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
	status, err := a.put(r.Context(), key, color)
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		if err == nil {
			http.Redirect(w, r, "/", http.StatusSeeOther)
			return
		}
		a.render(w, status, "index.html", page{Boxes: a.all(), Key: key, Color: color, Error: err.Error()})
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	answer := map[string]string{"key": key, "color": color}
	if err != nil {
		answer = map[string]string{"error": err.Error()}
	}
	_ = json.NewEncoder(w).Encode(answer)
}
