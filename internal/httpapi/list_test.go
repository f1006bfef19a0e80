package httpapi

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/kkv-project/kkv/internal/position"
	"github.com/kkv-project/kkv/internal/wire"
)

// keysOf is an NDJSON answer as "type key=value" a line.
func keysOf(t *testing.T, body string) string {
	t.Helper()
	var out []string
	for line := range strings.Lines(body) {
		c, err := wire.ParseNDJSON([]byte(line))
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		s := c.Type + " " + string(c.Key)
		if c.Value != nil {
			s += "=" + string(c.Value)
		}
		out = append(out, s)
	}
	return strings.Join(out, "; ")
}

func TestList(t *testing.T) {
	inBubble(t, func(t *testing.T, g *rig) {
		for _, k := range []string{"b", "a/1", "a/2", "a", "\xff"} {
			g.put(0, k, []byte("v"+k))
		}
		for query, want := range map[string]string{
			"":                            "put a; put a/1; put a/2; put b; put \xff",
			"?prefix=a/":                  "put a/1; put a/2",
			"?prefix=a&after=a":           "put a/1; put a/2",
			"?limit=2":                    "put a; put a/1",
			"?limit=2&after=a/1":          "put a/2; put b",
			"?after=b&values=true":        "put \xff=v\xff",
			"?prefix=%FF":                 "put \xff",
			"?prefix=nothing":             "",
			"?after=%FF":                  "",
			"?prefix=a&values=true&after": "put a=va; put a/1=va/1; put a/2=va/2",
		} {
			r := g.get("/v1/topics/fixture/keys" + query)
			if got := keysOf(t, r.body); got != want || r.StatusCode != 200 || r.Header.Get("Content-Type") != "application/x-ndjson" {
				t.Errorf("%s: %d %q, want %q", query, r.StatusCode, got, want)
			}
			if p, err := position.Parse(r.Header.Get("Kkv-Position")); err != nil || p.Partition(0).Next != 5 {
				t.Errorf("%s: position %v, %v", query, p, err)
			}
		}
		g.get("/v1/topics/fixture/keys?limit=0").wantProblem(t, 400, "bad-request")
		g.get("/v1/topics/fixture/keys?values=1").wantProblem(t, 400, "bad-request")
		if r := g.do("HEAD", "/v1/topics/fixture/keys", ""); r.StatusCode != 200 || r.body != "" {
			t.Errorf("HEAD: %d %q", r.StatusCode, r.body)
		}
	})
}

func TestBatchGet(t *testing.T) {
	inBubble(t, func(t *testing.T, g *rig) {
		g.put(0, "a", []byte("1"))
		g.put(0, "empty", []byte{})
		g.put(0, "\xff", []byte("2"))
		r := g.do("POST", "/v1/topics/fixture/keys:batchGet", `{"keys":["no","a","empty","a"],"keysBase64":["/w=="]}`)
		if got, want := keysOf(t, r.body), "absent no; put a=1; put empty=; put a=1; put \xff=2"; got != want || r.Header.Get("Kkv-Position") == "" {
			t.Errorf("%d %q, want %q", r.StatusCode, got, want)
		}
		for body, kind := range map[string]string{"": "bad-request", "[]": "bad-request", `{"keys":[]}`: "bad-request",
			`{"keys":["` + strings.Repeat("x", batchBytes) + `"]}`:                            "too-large",
			`{"keys":[` + strings.TrimSuffix(strings.Repeat(`"a",`, batchKeys+1), ",") + `]}`: "bad-request"} {
			if r := g.do("POST", "/v1/topics/fixture/keys:batchGet", body); !strings.Contains(r.body, "/problems/"+kind) {
				t.Errorf("%.40s: %d %s", body, r.StatusCode, r.body)
			}
		}
		g.get("/v1/topics/fixture/keys:batchGet").wantProblem(t, 405, "bad-request")
		<-time.After(time.Second) // net/http lingers on a connection whose request it has not read
	})
}

// TestListIsOnePosition: what is written while a list streams is not in it.
func TestListIsOnePosition(t *testing.T) {
	inBubble(t, func(t *testing.T, g *rig) {
		big := bytes.Repeat([]byte("x"), 10_000)
		for i := range 100 {
			g.put(0, fmt.Sprintf("k%03d", i), big)
		}
		resp, err := g.client.Get("http://localhost:8091/v1/topics/fixture/keys?values=true")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		first := make([]byte, 1)
		if _, err := io.ReadFull(resp.Body, first); err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			g.put(0, fmt.Sprintf("k%03d", i), []byte("new"))
		}
		g.put(0, "k999", []byte("new"))
		rest, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if body := string(first) + string(rest); strings.Contains(body, "new") || strings.Count(body, "\n") != 100 {
			t.Errorf("%d lines, or new ones", strings.Count(body, "\n"))
		}
	})
}

// TestListTimeout: a list that nobody reads does not hold its snapshot for ever.
func TestListTimeout(t *testing.T) {
	inBubble(t, func(t *testing.T, g *rig) {
		g.client.Transport.(*http.Transport).DisableCompression = true
		big := bytes.Repeat([]byte("x"), 40_000)
		for i := range 100 {
			g.put(0, fmt.Sprintf("k%03d", i), big)
		}
		resp, err := g.client.Get("http://localhost:8091/v1/topics/fixture/keys?values=true")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		var body []byte
		chunk := make([]byte, 50_000)
		for err == nil { // to the end of the body, which is no multiple of the chunk
			var n int
			<-time.After(2 * time.Second) // slow, but not so slow that a write times out
			n, err = io.ReadFull(resp.Body, chunk)
			body = append(body, chunk[:n]...)
		}
		lines := strings.Split(strings.TrimSpace(string(body)), "\n")
		if last := lines[len(lines)-1]; err != io.ErrUnexpectedEOF || !strings.Contains(last, `"type":"error"`) || !strings.Contains(last, "after=") {
			t.Errorf("%d lines, the last %.200s, %v", len(lines), last, err)
		}
	})
}

func TestCompressionOnlyWhenAsked(t *testing.T) {
	inBubble(t, func(t *testing.T, g *rig) {
		g.client.Transport.(*http.Transport).DisableCompression = true
		text := strings.Repeat("never stale ", 1000)
		g.put(0, "long", []byte(text))
		g.put(0, "short", []byte("short"))
		plain := g.get("/v1/topics/fixture/keys/long")
		plain.want(t, 200, text)
		if !strings.Contains(plain.Header.Get("Vary"), "Accept-Encoding") || plain.Header.Get("Content-Encoding") != "" {
			t.Errorf("headers %v", plain.Header)
		}
		unzip := map[string]func(string) string{
			"gzip": func(s string) string {
				z, err := gzip.NewReader(strings.NewReader(s))
				if err != nil {
					t.Fatal(err)
				}
				b, _ := io.ReadAll(z)
				return string(b)
			},
			"zstd": func(s string) string {
				z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
				if err != nil {
					t.Fatal(err)
				}
				defer z.Close()
				b, _ := z.DecodeAll([]byte(s), nil)
				return string(b)
			},
		}
		for asked, want := range map[string]string{"gzip": "gzip", "zstd": "zstd", "gzip, deflate, br, zstd": "zstd", "gzip;q=0, zstd;q=0": "", "br": "", "identity": ""} {
			r := g.get("/v1/topics/fixture/keys/long", "Accept-Encoding", asked)
			if got := r.Header.Get("Content-Encoding"); got != want {
				t.Errorf("%s: %q", asked, got)
			}
			if want != "" {
				if unzip[want](r.body) != text || !strings.HasSuffix(r.Header.Get("ETag"), "-"+want+`"`) || len(r.body) > len(text)/10 {
					t.Errorf("%s: %d bytes, %s", asked, len(r.body), r.Header.Get("ETag"))
				}
				if l := g.get("/v1/topics/fixture/keys?values=true", "Accept-Encoding", asked); !strings.Contains(unzip[want](l.body), text) {
					t.Errorf("%s: list of %d bytes", asked, len(l.body))
				}
			}
		}
		if r := g.get("/v1/topics/fixture/keys/short", "Accept-Encoding", "gzip"); r.Header.Get("Content-Encoding") != "" {
			t.Error("a short value is not worth it")
		}
		g.get("/cache/v1/raw/long", "Accept-Encoding", "gzip").want(t, 200, text) // the old routes' bytes stay as they are
	})
}

// TestGetAllocations: at most three more than a bare handler that answers with as many header fields.
func TestGetAllocations(t *testing.T) {
	inBubble(t, func(t *testing.T, g *rig) {
		g.put(0, "A", []byte(`{ "id": "A", "color": "red" }`))
		for _, target := range []string{"/v1/topics/fixture/keys/A", "/cache/v1/raw/A"} {
			r := httptest.NewRequest("GET", target, nil)
			w := httptest.NewRecorder()
			g.server.ServeHTTP(w, r)
			header, value := w.Header().Clone(), w.Body.Bytes()
			bare := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				for k, v := range header {
					w.Header().Set(k, v[0])
				}
				_, _ = w.Write(value)
			})
			count := func(h http.Handler) float64 {
				return testing.AllocsPerRun(200, func() {
					w := discard{h: make(http.Header, 16)}
					h.ServeHTTP(&w, r)
				})
			}
			if kkv, b := count(g.server), count(bare); kkv > b+3 {
				t.Errorf("GET %s allocates %v times, a bare handler %v", target, kkv, b)
			} else {
				t.Logf("GET %s allocates %v times, a bare handler %v", target, kkv, b)
			}
		}
	})
}

type discard struct{ h http.Header }

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(int)             {}
