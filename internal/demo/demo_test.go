package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kkv-project/kkv/internal/cachetest"
)

// world is a cache on host "cache" and the application on host "app", in virtual time.
type world struct {
	*testing.T
	net   *cachetest.Network
	cache *cachetest.Server
	app   *App
	stop  context.CancelFunc
	ran   chan error
}

func bubble(t *testing.T, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, net: &cachetest.Network{}, cache: cachetest.New("sidecar-demo"), ran: make(chan error, 1)}
		defer w.net.Close()
		w.net.Serve("cache", w.cache)
		var err error
		w.app, err = New(Options{Server: []string{"http://cache"}, Topic: "sidecar-demo", HTTPClient: w.net.Client()})
		if err != nil {
			t.Fatal(err)
		}
		w.net.Serve("app", w.app.Handler())
		f(w)
		if w.stop != nil {
			w.stop()
			if err := <-w.ran; err != nil {
				t.Errorf("Run: %v", err)
			}
		}
	})
}

func (w *world) run() {
	ctx, stop := context.WithCancel(w.Context())
	w.stop = stop
	go func() { w.ran <- w.app.Run(ctx) }()
	synctest.Wait()
}

func (w *world) do(method, path string, form url.Values, header ...string) (*http.Response, string) {
	w.Helper()
	req, err := http.NewRequest(method, "http://app"+path, strings.NewReader(form.Encode()))
	if err != nil {
		w.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := w.net.Client().Do(req)
	if err != nil {
		w.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.Fatal(err)
	}
	return resp, string(b)
}

func (w *world) get(path string, status int, want ...string) string {
	w.Helper()
	resp, body := w.do("GET", path, nil)
	if resp.StatusCode != status {
		w.Errorf("GET %s: %d, want %d", path, resp.StatusCode, status)
	}
	for _, s := range want {
		if !strings.Contains(body, s) {
			w.Errorf("GET %s lacks %q:\n%s", path, s, body)
		}
	}
	return body
}

// events is an open stream.
type events struct {
	w     *world
	body  io.Closer
	lines chan string
}

func (w *world) events(query string) *events {
	w.Helper()
	resp, err := w.net.Client().Get("http://app/events" + query)
	if err != nil {
		w.Fatal(err)
	}
	e := &events{w: w, body: resp.Body, lines: make(chan string, 10000)}
	go func() {
		defer close(e.lines)
		r := bufio.NewScanner(resp.Body)
		r.Buffer(nil, 1<<20)
		name := ""
		for r.Scan() {
			if n, ok := strings.CutPrefix(r.Text(), "event: "); ok {
				name = n
			} else if d, ok := strings.CutPrefix(r.Text(), "data: "); ok {
				e.lines <- name + " " + short(d)
			} else if r.Text() == ":" {
				e.lines <- "heartbeat"
			}
		}
	}()
	return e
}

// short is an event's data as "key=color/text" and the status.
func short(data string) string {
	var d struct {
		status
		box
		Boxes []box
	}
	if err := json.Unmarshal([]byte(data), &d); err != nil {
		return err.Error()
	}
	if d.ID != "" || d.Href != "" {
		return d.Key + "=" + d.Text
	}
	s := fmt.Sprintf("ready:%v live:%v", d.Ready, d.Live)
	for _, b := range d.Boxes {
		s += " " + b.Key + "=" + b.Text
	}
	return s
}

// take is what came since the last take.
func (e *events) take() string {
	synctest.Wait()
	var got []string
	for {
		select {
		case l, ok := <-e.lines:
			if ok {
				got = append(got, l)
				continue
			}
			got = append(got, "end")
		default:
		}
		return strings.Join(got, "; ")
	}
}

func (w *world) equal(what, got, want string) {
	w.Helper()
	if d := cmp.Diff(want, got); d != "" {
		w.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func TestPages(t *testing.T) {
	bubble(t, func(w *world) {
		w.get("/healthz", 503, "waiting for the cache")
		w.get("/", 200, "waiting for the cache", "<title>KKV Demo</title>")
		w.get("/A", 503)
		w.cache.SetReady(false)
		w.run()
		w.get("/healthz", 503)
		w.cache.SetReady(true)
		time.Sleep(2 * time.Second)
		w.get("/healthz", 200, "ok")
		w.get("/", 200, `<section class="empty">`, `curl -X PUT http://cache/v1/topics/sidecar-demo/keys/A -d &#39;{ &#34;id&#34;: &#34;A&#34;, &#34;color&#34;: &#34;red&#34; }&#39;`,
			`name="key"`, `name="color"`, `<button type="submit">`, `class="status live"`)
		w.get("/A", 404, "There is no <q>A</q>", `action="/"`)

		w.cache.Put("A", `{ "id": "A", "color": "red" }`)
		w.cache.Put("B", `{"color":"rgb(1, 2, 3)"}`)
		w.cache.Put("C", `no colour`)
		synctest.Wait()
		body := w.get("/", 200,
			`data-key="A" data-id="QQ" style="background-color: red">`,
			`data-key="B" data-id="Qg" style="background-color: rgb(1, 2, 3)">`,
			`data-key="C" data-id="Qw" style="background-color: var(--neutral)">`,
			`<span class="text">no colour</span>`, `<small class="offset">0</small>`, `<section class="empty" hidden>`)
		if a, b := strings.Index(body, `data-key="A"`), strings.Index(body, `data-key="B"`); a > b {
			t.Error("the boxes are out of order")
		}
		w.get("/A", 200, `<div style="background-color: red">Hello Kafka!</div>`)
		w.get("/C", 200, `<div style="background-color: var(--neutral)">Hello Kafka!</div>`)
		w.get("/-/app.js", 200, "EventSource")
		w.get("/-/style.css", 200, ".box")
		w.get("/-/index.html", 404)
		w.get("/-/../demo.go", 404)
		w.get("/favicon.ico", 204)
		resp, _ := w.do("DELETE", "/A", nil)
		if resp.StatusCode != 405 || resp.Header.Get("Allow") == "" {
			t.Errorf("DELETE: %v", resp.Status)
		}
	})
}

// Every key has a page of its own, and that the boxes link to.
func TestKeys(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		keys := []string{"", "A", "a b", "a+b", "a/b", "a//b", "/", "//", ".", "..", "%", "%2F", "?", "#x", "ü", "日本", "events", "healthz",
			"favicon.ico", "-/app.js", "\xff", `"`, "a;b", "a&b"}
		for _, k := range keys {
			w.get(href(k), 404)
		}
		for i, k := range keys {
			w.cache.Put(k, fmt.Sprintf(`{"color":"#%03d"}`, i))
		}
		synctest.Wait()
		index := w.get("/", 200)
		for i, k := range keys {
			want := fmt.Sprintf(`<div style="background-color: #%03d">Hello Kafka!</div>`, i)
			w.get(href(k), 200, want)
			if _, after, ok := strings.Cut(index, fmt.Sprintf(`style="background-color: #%03d"`, i)); !ok || after == "" {
				t.Errorf("no box of %q", k)
			}
			page := "/events?key=" + url.QueryEscape(k)
			e := w.events(page[len("/events"):])
			if got := e.take(); !strings.HasSuffix(got, fmt.Sprintf("=#%03d", i)) {
				t.Errorf("events of %q: %s", k, got)
			}
			_ = e.body.Close()
		}
		w.get("/a/b", 200, "#004") // unescaped, as people type it
		w.get("/a//b", 200, "#005")
	})
}

var styles = regexp.MustCompile(`style=(?:"[^"]*"|[^"][^ >]*)`)

// Neither keys nor values can put markup, script or style into a page.
func TestHostile(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		const script = `"><script>alert(1)</script>`
		colors := []string{"red;background:url(http://evil)", "red}</style>", "url(http://evil)", "expression(alert(1))", "var(--x)",
			"rgb(1,2,3);x:y", script, "rgb(1,2,3) url(x)", "\\72 ed", "red/**/", "#12", "inherit", "nosuchcolor"}
		for i, c := range colors {
			v, _ := json.Marshal(map[string]string{"color": c})
			w.cache.Put(fmt.Sprintf("c%d", i), string(v))
		}
		w.cache.Put(script, script)
		w.cache.Put(`' onmouseover='alert(1)`, `{"color":5}`)
		synctest.Wait()
		for _, p := range []string{"/", href(script), href("c0"), "/" + url.PathEscape(script+"absent")} {
			resp, body := w.do("GET", p, nil)
			for _, bad := range []string{"<script>alert", "</style>", "ZgotmplZ", "onmouseover='"} {
				if strings.Contains(body, bad) {
					t.Errorf("%s has %q:\n%s", p, bad, body)
				}
			}
			for _, style := range styles.FindAllString(body, -1) {
				w.equal("style", style, `style="background-color: var(--neutral)"`)
			}
			if !strings.Contains(resp.Header.Get("Content-Security-Policy"), "script-src 'self'") {
				t.Errorf("%s: policy %q", p, resp.Header.Get("Content-Security-Policy"))
			}
		}
		for _, b := range w.app.replicas[0].all() { // what /events sends
			w.equal("colour of "+b.Text, b.Color, "")
		}
	})
}

func TestSafeColor(t *testing.T) {
	for _, c := range []string{"red", "RebeccaPurple", "#fff", "#FFFA", "#a1b2c3", "#a1b2c3d4", "rgb(1,2,3)", "rgb(1 2 3 / 50%)",
		"rgba(1, 2, 3, .5)", "hsl(120deg 50% 50%)", "hsla(120, 50%, 50%, 0.3)", "transparent"} {
		if !safeColor(c) {
			t.Errorf("%q refused", c)
		}
	}
	for _, c := range []string{"", " ", "redd", "red ", "#ff", "#fffff", "#ggg", "rgb()", "rgb(1)", "rgb(a,b,c)", "rgb(1,2,3", "rgb(1,2,3))",
		"url(x)", "rgb(1,2,3)\n", "rgb(\n1,2,3)", strings.Repeat("1", 100), "rgb(" + strings.Repeat("1", 70) + ",2,3)"} {
		if safeColor(c) {
			t.Errorf("%q let pass", c)
		}
	}
}

func FuzzSafeColor(f *testing.F) {
	f.Add("rgb(1,2,3)")
	f.Add("red;")
	f.Fuzz(func(t *testing.T, s string) {
		if safeColor(s) && strings.ContainsAny(s, "\"'<>;:{}\\\n\r*@!&") {
			t.Errorf("%q let pass", s)
		}
	})
}

func TestForm(t *testing.T) {
	bubble(t, func(w *world) {
		f := func(key, color string, status int, header ...string) (*http.Response, string) {
			t.Helper()
			resp, body := w.do("POST", "/", url.Values{"key": {key}, "color": {color}}, header...)
			if resp.StatusCode != status {
				t.Errorf("%q %q: %s, want %d\n%s", key, color, resp.Status, status, body)
			}
			return resp, body
		}
		html := []string{"Accept", "text/html,*/*;q=0.8"}
		f("A", "red", 503)
		w.run()
		f("A", "red", 200)
		v, _ := w.cache.Value("A")
		w.equal("value", v, `{ "id": "A", "color": "red" }`)
		w.get("/A", 200, "background-color: red") // visible as soon as it is answered
		resp, _ := f("\"ü/", " #0a7 ", 303, html...)
		w.equal("location", resp.Header.Get("Location"), "/")
		v, _ = w.cache.Value("\"ü/")
		w.equal("value", v, `{ "id": "\"ü/", "color": "#0a7" }`)
		w.get(href("\"ü/"), 200, "background-color: #0a7")
		if _, body := f("A", "red;", 422); !strings.Contains(body, `"error":"\"red;\" is not a colour; `) {
			t.Error(body)
		}
		if _, body := f("A", `"><script>`, 422, html...); !strings.Contains(body, `role="alert">&#34;\&#34;&gt;`) || !strings.Contains(body, `value="A"`) {
			t.Error(body)
		}
		f("", "red", 422)
		f("A", strings.Repeat("x", maxForm), 400)

		f("A", "blue", 403, "Sec-Fetch-Site", "cross-site")
		f("A", "blue", 403, "Origin", "http://evil")
		f("A", "blue", 200, "Sec-Fetch-Site", "same-origin")

		w.cache.Hold(true) // acknowledged, but not shown in time
		f("A", "green", 202)
		w.cache.Hold(false)
		w.cache.Intercept(func(rw http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPut {
				return false
			}
			cachetest.Problem(rw, 405, "read-only", "start it with --writable")
			return true
		})
		if _, body := f("A", "red", 405); !strings.Contains(body, "start it with --writable") {
			t.Error(body)
		}
		w.cache.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPut {
				panic(http.ErrAbortHandler)
			}
			return false
		})
		f("A", "red", 504)
		synctest.Wait() // until green is here, which nobody waited for
		w.get("/A", 200, "background-color: green")
	})
}

func TestEvents(t *testing.T) {
	bubble(t, func(w *world) {
		before := w.events("") // a page that was open before the cache was there
		w.equal("at first", before.take(), "state ready:false live:false")
		w.cache.Put("B", `{"color":"red"}`)
		w.cache.Put("A", `{"color":"red"}`)
		w.run()
		w.equal("ready", before.take(), "state ready:true live:true A=red B=red")
		e, one := w.events(""), w.events("?key=A")
		w.equal("state", e.take(), "state ready:true live:true A=red B=red")
		w.equal("state of A", one.take(), "state ready:true live:true A=red")

		w.cache.Put("A", `{"color":"green"}`)
		w.equal("put", e.take(), "put A=green")
		w.equal("put of A", one.take(), "put A=green")
		w.cache.Put("C", `{"color":"gold"}`)
		w.cache.Delete("B")
		if got := e.take(); got != "put C=gold; delete B=" && got != "delete B=; put C=gold" {
			t.Error(got)
		}
		w.equal("other keys", one.take(), "")

		w.net.Stop("cache")
		time.Sleep(time.Second)
		w.equal("away", e.take(), "status ready:true live:false")
		w.get("/", 200, `class="status reconnecting"`)
		w.get("/healthz", 200)
		w.cache.Put("A", `{"color":"navy"}`)
		w.net.Serve("cache", w.cache)
		time.Sleep(10 * time.Second)
		w.equal("back", e.take(), "put A=navy; status ready:true live:true")
		time.Sleep(30 * time.Second)
		w.equal("quiet", strings.ReplaceAll(e.take(), "heartbeat", "h"), "h; h")

		w.stop()
		synctest.Wait()
		for _, e := range []*events{before, e, one} {
			if got := e.take(); !strings.HasSuffix(got, "end") {
				t.Errorf("still open after Run ended: %s", got)
			}
		}
		late := w.events("")
		if got := late.take(); !strings.HasSuffix(got, "end") {
			t.Errorf("opened after Run ended: %s", got)
		}
	})
}

// A browser that takes nothing holds up neither others nor the application, and gets the newest state of every key
// when it reads on.
func TestSlowBrowser(t *testing.T) {
	bubble(t, func(w *world) {
		w.run()
		resp, err := w.net.Client().Get("http://app/events")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		fast := w.events("")
		_ = fast.take()
		const n = 2000
		for i := range n {
			w.cache.Put(fmt.Sprint("k", i%3), fmt.Sprint(i))
		}
		if got := fast.take(); !strings.Contains(got, fmt.Sprint("=", n-1)) {
			t.Errorf("the other browser missed the last put: %s", got)
		}
		b, _ := w.app.replicas[0].get(fmt.Sprint("k", (n-1)%3))
		w.equal("the application", b.Text, fmt.Sprint(n-1))
		time.Sleep(writeTimeout / 2)
		// Now it reads on.
		last := make(map[string]string)
		events := 0
		r := bufio.NewScanner(resp.Body)
		for r.Scan() && (last["k0"] == "" || last["k1"] != fmt.Sprint(n-1)) {
			if d, ok := strings.CutPrefix(r.Text(), "data: "); ok {
				events++
				k, v, _ := strings.Cut(short(d), "=")
				last[k] = v
			}
		}
		w.equal("k1", last["k1"], fmt.Sprint(n-1))
		if events > 100 {
			t.Errorf("%d events; they should have been merged", events)
		}
	})
}

func TestRunEnds(t *testing.T) {
	bubble(t, func(w *world) { // before the cache is ready
		w.cache.SetReady(false)
		w.run()
		time.Sleep(time.Minute)
	})
	bubble(t, func(w *world) { // refused
		w.cache.Token = "secret"
		w.run()
		if err := <-w.ran; err == nil || !strings.Contains(err.Error(), "401") {
			t.Error(err)
		}
		w.ran <- nil
		e := w.events("")
		if got := e.take(); !strings.HasSuffix(got, "end") {
			t.Error(got)
		}
	})
	if _, err := New(Options{Server: []string{"nonsense"}}); err == nil {
		t.Error("a server that is no URL")
	}
}

// The script must know the background of boxes without a colour as the templates do.
func TestScriptKnowsNeutral(t *testing.T) {
	js, err := os.ReadFile("assets/app.js")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(js), `const neutral = "`+neutral+`"`) {
		t.Errorf("app.js lacks %s", neutral)
	}
}

func TestBeginning(t *testing.T) {
	for in, want := range map[string]string{"": "", "x": "x", "\xff": "\uFFFD",
		strings.Repeat("ü", 80):       strings.Repeat("ü", 80),
		strings.Repeat("ü", 81):       strings.Repeat("ü", 79) + "…",
		"x" + strings.Repeat("ü", 80): "x" + strings.Repeat("ü", 79) + "…"} {
		if got := beginning([]byte(in)); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
