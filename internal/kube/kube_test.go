package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// server is an API server that answers what the test puts in. It is used within a synctest bubble.
type server struct {
	mu     sync.Mutex
	list   string // the body of the next lists
	refuse func(r *http.Request) *http.Response
	asked  []string // "list" or "watch VERSION"
	tokens []string
	watch  *io.PipeWriter // of the watch that is open
}

func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.URL.Path != "/apis/discovery.k8s.io/v1/namespaces/ns/endpointslices" || r.URL.Query().Get("labelSelector") != "kubernetes.io/service-name=app" {
		return answer(404, "no such route: "+r.URL.String()), nil
	}
	q := r.URL.Query()
	what := "list"
	if q.Get("watch") == "true" {
		what = "watch " + q.Get("resourceVersion")
	}
	s.asked = append(s.asked, what)
	s.tokens = append(s.tokens, r.Header.Get("Authorization"))
	if s.refuse != nil {
		if res := s.refuse(r); res != nil {
			return res, nil
		}
	}
	if what == "list" {
		return answer(200, s.list), nil
	}
	pr, pw := io.Pipe()
	s.watch = pw
	seconds, err := time.ParseDuration(q.Get("timeoutSeconds") + "s")
	if err != nil || q.Get("allowWatchBookmarks") != "true" {
		return answer(400, err.Error()), nil
	}
	over := time.AfterFunc(seconds, func() { pw.Close() })
	context.AfterFunc(r.Context(), func() { over.Stop(); pw.CloseWithError(r.Context().Err()) })
	return &http.Response{StatusCode: 200, Body: pr}, nil
}

func answer(code int, body string) *http.Response {
	return &http.Response{StatusCode: code, Body: io.NopCloser(strings.NewReader(body))}
}

// send writes one event to the open watch.
func (s *server) send(event string) { _, _ = io.WriteString(s.open(), event+"\n") }

func (s *server) open() *io.PipeWriter {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.watch
}

func (s *server) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *server) takeAsked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}

// slice is an EndpointSlice as JSON; each endpoint is "uid ip" with " !" behind it when it is not ready.
func slice(name, version string, endpoints ...string) string {
	s := map[string]any{"metadata": map[string]any{"name": name, "resourceVersion": version}, "addressType": "IPv4"}
	var list []any
	for _, e := range endpoints {
		f := strings.Fields(e)
		if strings.Contains(f[1], ":") {
			s["addressType"] = "IPv6"
		}
		list = append(list, map[string]any{"addresses": []string{f[1]}, "conditions": map[string]any{"ready": len(f) == 2},
			"targetRef": map[string]any{"kind": "Pod", "uid": f[0], "name": "pod-" + f[0]}})
	}
	s["endpoints"] = list
	b, _ := json.Marshal(s)
	return string(b)
}

func list(version string, slices ...string) string {
	return fmt.Sprintf(`{"kind":"EndpointSliceList","metadata":{"resourceVersion":%q},"items":[%s]}`, version, strings.Join(slices, ","))
}

func event(kind, object string) string {
	return fmt.Sprintf(`{"type":%q,"object":%s}`, kind, object)
}

const status = `{"kind":"Status","code":%d,"reason":"R","message":"%s"}`

// rig is a Watcher under way on a server.
type rig struct {
	*server
	w    *Watcher
	log  bytes.Buffer
	dir  string
	mu   sync.Mutex
	sets [][]Endpoint
}

// run runs f in a bubble beside a Watcher that has had the time to list and watch.
func run(t *testing.T, o Options, f func(r *rig)) {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "token", "one")
	synctest.Test(t, func(t *testing.T) {
		r := &rig{server: &server{list: list("10", slice("a", "9", "u1 10.0.0.1"))}, dir: dir}
		o.Account, o.Namespace, o.Service, o.Transport = Account{Server: "http://api", Dir: dir}, "ns", "app", r.server
		o.Logger = slog.New(slog.NewTextHandler(&r.log, nil))
		r.w = New(o)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			done <- r.w.Run(ctx, func(e []Endpoint) { r.mu.Lock(); r.sets = append(r.sets, e); r.mu.Unlock() })
		}()
		synctest.Wait()
		f(r)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// last is what set heard last, as "uid ip" with " !" when not ready.
func (r *rig) last() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.sets) == 0 {
		return nil
	}
	return texts(r.sets[len(r.sets)-1])
}

func texts(endpoints []Endpoint) []string {
	out := []string{}
	for _, e := range endpoints {
		text := e.UID + " " + e.IP.String()
		if !e.Ready {
			text += " !"
		}
		out = append(out, text)
	}
	return out
}

func equal[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestFollowsTheSlices(t *testing.T) {
	run(t, Options{}, func(r *rig) {
		equal(t, "asked", r.takeAsked(), []string{"list", "watch 10"})
		equal(t, "listed", r.last(), []string{"u1 10.0.0.1"})
		r.send(event("ADDED", slice("b", "11", "u2 10.0.0.2 !")))
		synctest.Wait()
		equal(t, "added", r.last(), []string{"u1 10.0.0.1", "u2 10.0.0.2 !"})
		r.send(event("MODIFIED", slice("b", "12", "u2 10.0.0.2")))
		synctest.Wait()
		equal(t, "ready", r.last(), []string{"u1 10.0.0.1", "u2 10.0.0.2"})
		r.send(event("MODIFIED", slice("b", "13", "u2 10.0.0.2")))
		r.send(event("BOOKMARK", `{"metadata":{"resourceVersion":"50"}}`))
		synctest.Wait()
		equal(t, "calls of set", len(r.sets), 3) // none for a change that is none to us
		r.send(event("DELETED", slice("a", "51", "u1 10.0.0.1")))
		synctest.Wait()
		equal(t, "deleted", r.last(), []string{"u2 10.0.0.2"})
		equal(t, "stats", r.w.Stats(), Stats{Events: 4})
		equal(t, "log", r.log.String(), "")
	})
}

// A watch that ends at its time, or is cut off, goes on at the last version, and is no failure.
func TestResumesAtTheLastVersion(t *testing.T) {
	run(t, Options{}, func(r *rig) {
		r.send(event("BOOKMARK", `{"metadata":{"resourceVersion":"50"}}`))
		pass(2*watchTimeout + time.Second)
		r.send(event("MODIFIED", slice("a", "60", "u1 10.0.0.1")))
		pass(2 * time.Second)
		r.open().CloseWithError(errors.New("connection reset by peer"))
		synctest.Wait()
		equal(t, "asked", r.takeAsked(), []string{"list", "watch 10", "watch 50", "watch 60"})
		equal(t, "down", r.w.Stats().Down, false)
		equal(t, "log", r.log.String(), "")
	})
}

// A server whose watches never end by themselves, behind a box that forgot the connection.
func TestSilentWatchIsGivenUp(t *testing.T) {
	run(t, Options{}, func(r *rig) {
		silent, _ := io.Pipe()
		r.set(func() {
			r.refuse = func(q *http.Request) *http.Response {
				context.AfterFunc(q.Context(), func() { silent.CloseWithError(q.Context().Err()) })
				return &http.Response{StatusCode: 200, Body: silent}
			}
		})
		r.open().Close() // at once, so this is a failure: the silent one is asked for after a pause
		pass(minPause)
		equal(t, "asked", r.takeAsked(), []string{"list", "watch 10", "watch 10"})
		pass(2*watchTimeout + watchGrace + time.Second)
		if asked := r.takeAsked(); len(asked) == 0 || asked[0] != "watch 10" {
			t.Errorf("after the deadline: %q", asked)
		}
	})
}

func TestTooOldListsAgain(t *testing.T) {
	for name, gone := range map[string]func(r *rig){
		"event": func(r *rig) { r.send(event("ERROR", fmt.Sprintf(status, 410, "too old"))) },
		"answer": func(r *rig) {
			once := true
			r.set(func() {
				r.refuse = func(q *http.Request) *http.Response {
					if q.URL.Query().Get("watch") == "" || !once {
						return nil
					}
					once = false
					return answer(410, fmt.Sprintf(status, 410, "too old"))
				}
			})
			r.open().Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, Options{}, func(r *rig) {
				pass(2 * time.Second)
				r.takeAsked()
				r.set(func() { r.list = list("99", slice("c", "98", "u3 10.0.0.3")) })
				gone(r)
				synctest.Wait()
				asked := r.takeAsked()
				equal(t, "asked", asked[max(0, len(asked)-2):], []string{"list", "watch 99"})
				equal(t, "endpoints", r.last(), []string{"u3 10.0.0.3"})
				equal(t, "log", r.log.String(), "")
			})
		})
	}
}

// A server that answers each watch with 410, or ends it at once, is not asked in a hot loop.
func TestNoHotLoop(t *testing.T) {
	for name, res := range map[string]func() *http.Response{
		"gone":       func() *http.Response { return answer(410, fmt.Sprintf(status, 410, "too old")) },
		"ends":       func() *http.Response { return answer(200, "") },
		"gone event": func() *http.Response { return answer(200, event("ERROR", fmt.Sprintf(status, 410, "too old"))) },
		"garbage":    func() *http.Response { return answer(200, "<html>") },
		"no object":  func() *http.Response { return answer(200, `{"type":"ADDED"}`) },
		"unknown":    func() *http.Response { return answer(200, event("NEWS", slice("a", "11"))) },
		"overloaded": func() *http.Response { return answer(429, "slow down") },
	} {
		t.Run(name, func(t *testing.T) {
			run(t, Options{}, func(r *rig) {
				r.set(func() {
					r.refuse = func(q *http.Request) *http.Response {
						if q.URL.Query().Get("watch") != "" {
							return res()
						}
						return nil
					}
				})
				r.open().Close()
				pass(10 * time.Minute)
				if n := len(r.takeAsked()); n < 20 || n > 200 {
					t.Errorf("%d requests in 10 minutes", n)
				}
				equal(t, "down", r.w.Stats().Down, true)
				equal(t, "endpoints", r.last(), []string{"u1 10.0.0.1"})
				r.set(func() { r.refuse = nil })
				pass(maxPause + watchTooShort)
				equal(t, "down at the end", r.w.Stats().Down, false)
			})
		})
	}
}

// What cannot be understood is followed by a list, since what was missed is unknown.
func TestGarbageListsAgain(t *testing.T) {
	run(t, Options{}, func(r *rig) {
		pass(2 * time.Second)
		r.takeAsked()
		r.send("}{")
		pass(minPause)
		equal(t, "asked", r.takeAsked(), []string{"list", "watch 10"})
		if !strings.Contains(r.log.String(), "watch the EndpointSlices of service ns/app: invalid character") {
			t.Errorf("log: %s", r.log.String())
		}
	})
}

// Denied, it says once which Role is missing, keeps what it knew, and goes on when it is allowed.
func TestForbiddenNamesTheRole(t *testing.T) {
	run(t, Options{Resync: time.Minute}, func(r *rig) {
		r.set(func() {
			r.refuse = func(*http.Request) *http.Response {
				return answer(403, fmt.Sprintf(status, 403, `endpointslices is forbidden: User \"system:serviceaccount:ns:default\" cannot list`))
			}
		})
		pass(10 * time.Minute)
		equal(t, "down", r.w.Stats().Down, true)
		equal(t, "endpoints", r.last(), []string{"u1 10.0.0.1"})
		log := r.log.String()
		for _, want := range []string{"cannot list", "apiGroups [discovery.k8s.io]", "resources [endpointslices]", "verbs [list, watch]", "kubectl -n ns create role"} {
			if strings.Count(log, want) != 1 {
				t.Errorf("%d times %q in the log:\n%s", strings.Count(log, want), want, log)
			}
		}
		r.set(func() { r.refuse, r.list = nil, list("77", slice("a", "70", "u9 10.0.0.9")) })
		pass(maxPause + watchTooShort)
		equal(t, "endpoints", r.last(), []string{"u9 10.0.0.9"})
		equal(t, "down", r.w.Stats().Down, false)
		if !strings.Contains(r.log.String(), "works again") {
			t.Errorf("log: %s", r.log.String())
		}
	})
}

func TestResync(t *testing.T) {
	run(t, Options{Resync: time.Minute}, func(r *rig) {
		equal(t, "asked", r.takeAsked(), []string{"list", "watch 10"})
		r.set(func() { r.list = list("20") })
		pass(61 * time.Second)
		equal(t, "asked", r.takeAsked(), []string{"list", "watch 20"})
		equal(t, "endpoints", r.last(), nil)
		pass(61 * time.Second)
		equal(t, "asked", r.takeAsked(), []string{"list", "watch 20"})
	})
}

// The kubelet replaces the token; the next request has the new one.
func TestTokenIsReadAnew(t *testing.T) {
	run(t, Options{}, func(r *rig) {
		write(t, r.dir, "token", "two\n")
		pass(2*watchTimeout + time.Second)
		equal(t, "tokens", r.tokens, []string{"Bearer one", "Bearer one", "Bearer two"})
		if err := os.Remove(filepath.Join(r.dir, "token")); err != nil {
			t.Fatal(err)
		}
		pass(2*watchTimeout + time.Second)
		equal(t, "down without a token", r.w.Stats().Down, true)
		if !strings.Contains(r.log.String(), "automountServiceAccountToken") {
			t.Errorf("log: %s", r.log.String())
		}
		write(t, r.dir, "token", "three")
		pass(maxPause + watchTooShort)
		equal(t, "last token", r.tokens[len(r.tokens)-1], "Bearer three")
		equal(t, "down", r.w.Stats().Down, false)
	})
}

func TestMerge(t *testing.T) {
	parse := func(texts ...string) map[string]*endpointSlice {
		out := map[string]*endpointSlice{}
		for _, text := range texts {
			s := &endpointSlice{}
			if err := json.Unmarshal([]byte(text), s); err != nil {
				t.Fatal(err)
			}
			out[s.Metadata.Name] = s
		}
		return out
	}
	for _, c := range []struct {
		name   string
		slices []string
		before []Endpoint
		want   []string
	}{
		{"nothing", nil, nil, nil},
		{"in two slices, once ready", []string{slice("a", "1", "u1 10.0.0.1 !", "u2 10.0.0.2 !"), slice("b", "1", "u1 10.0.0.1")}, nil, []string{"u1 10.0.0.1", "u2 10.0.0.2 !"}},
		{"both families", []string{slice("4", "1", "u1 10.0.0.1"), slice("6", "1", "u1 fd00::1", "u2 fd00::2")}, nil, []string{"u1 10.0.0.1", "u2 fd00::2"}},
		{"both families, known by the other", []string{slice("4", "1", "u1 10.0.0.1"), slice("6", "1", "u1 fd00::1")}, []Endpoint{{UID: "u1", IP: netip.MustParseAddr("fd00::1")}}, []string{"u1 fd00::1"}},
		{"known by an address that is gone", []string{slice("4", "1", "u1 10.0.0.1")}, []Endpoint{{UID: "u1", IP: netip.MustParseAddr("fd00::1")}}, []string{"u1 10.0.0.1"}},
		{"without pods", []string{`{"metadata":{"name":"a"},"addressType":"IPv4","endpoints":[{"addresses":["10.0.0.2","10.0.0.3"]},{"addresses":["10.0.0.1"]}]}`}, nil, []string{" 10.0.0.1", " 10.0.0.2"}},
		{"terminating", []string{`{"metadata":{"name":"a"},"addressType":"IPv4","endpoints":[{"addresses":["10.0.0.1"],"conditions":{"ready":true,"serving":true,"terminating":true}}]}`}, nil, []string{" 10.0.0.1 !"}},
		{"not addresses", []string{`{"metadata":{"name":"a"},"addressType":"FQDN","endpoints":[{"addresses":["example.com"]}]}`, `{"metadata":{"name":"b"},"addressType":"IPv4","endpoints":[{"addresses":["nonsense"]},{}]}`}, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) { equal(t, "merged", texts(merge(parse(c.slices...), c.before)), c.want) })
	}
}

func TestInPod(t *testing.T) {
	dir := t.TempDir()
	env := map[string]string{}
	if _, err := InPod(func(k string) string { return env[k] }, dir); err == nil || !strings.Contains(err.Error(), "KUBERNETES_SERVICE_HOST") {
		t.Errorf("outside a pod: %v", err)
	}
	env["KUBERNETES_SERVICE_HOST"], env["KUBERNETES_SERVICE_PORT"] = "fd00::1", "443"
	got, err := InPod(func(k string) string { return env[k] }, dir)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "no service account", got, Account{Server: "https://[fd00::1]:443", Dir: dir})
	write(t, dir, "namespace", "kkv-demo")
	if got, err = InPod(func(k string) string { return env[k] }, dir); err != nil {
		t.Fatal(err)
	}
	equal(t, "in a pod", got, Account{Server: "https://[fd00::1]:443", Dir: dir, Namespace: "kkv-demo"})
}
