package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kkv-project/kkv/test/harness"
)

// hostileKeys are keys that break routers, URL parsers and query decoders. None holds a line break, so that the old list of keys
// can show them.
var hostileKeys = []string{
	"a/b", "a//b", "/", "//", "/a", "a/", "?", "a?b=c", "a&b", "a=b", "a#b", "a;b", "%", "100%", "%41", "%2F", "%zz", "+", "a+b", "a b", " ",
	".", "..", "../a", "a/../b", "./a", "a/.", "å/ä?ö", "日本語", "🦉", "e\u0301", `"`, `\`, "<b>", "'", "{}", "[x]", ":", "@", "~", "*", "a,b", "|",
	strings.Repeat("k", 4000),
}

// native returns the target of a key on the native route.
func native(topic, key string) string {
	if key == "." || key == ".." {
		// URL parsers on the way eat these two however they are written.
		return "/v1/topics/" + topic + "/keys/" + base64.RawURLEncoding.EncodeToString([]byte(key)) + "?keyEncoding=base64url"
	}
	return "/v1/topics/" + topic + "/keys/" + harness.EscapeAll(key)
}

// raw returns the target of a key on the old route.
func raw(key string) string { return "/cache/v1/raw/" + harness.EscapeAll(key) }

// produceTo returns the target of a key on the gateway.
func produceTo(topic, key string) string {
	return "/topics/" + topic + "/messages?key=" + harness.EscapeAll(key) + "&sync"
}

// testHostileKeys takes each key through every route that has keys: written by the gateway and read by both reads, written by the
// native route and read by both reads, deleted by either.
func testHostileKeys(t *testing.T, e env) {
	d := e.dev(t)
	read := func(key, value string) {
		t.Helper()
		wantValue(t, fmt.Sprintf("raw %q", key), harness.Do(t, d.Cache, "GET", raw(key)), value)
		wantValue(t, fmt.Sprintf("native %q", key), harness.Do(t, d.Cache, "GET", native(d.Topic, key)), value)
	}
	gone := func(key string) {
		t.Helper()
		wantStatus(t, fmt.Sprintf("raw %q", key), harness.Do(t, d.Cache, "GET", raw(key)), 404)
		wantStatus(t, fmt.Sprintf("native %q", key), harness.Do(t, d.Cache, "GET", native(d.Topic, key)), 404)
	}
	for i, key := range hostileKeys {
		value := fmt.Sprintf("by the gateway: %d %q", i, key)
		res := harness.DoBody(t, d.Gateway, "POST", produceTo(d.Topic, key), []byte(value), "Content-Type: text/plain")
		wantStatus(t, fmt.Sprintf("produce %q", key), res, 200)
		read(key, value)
	}
	var want []string
	for i, key := range hostileKeys {
		value := fmt.Sprintf("by PUT: %d %q", i, key)
		res := harness.DoBody(t, d.Cache, "PUT", native(d.Topic, key), []byte(value))
		wantStatus(t, fmt.Sprintf("PUT %q", key), res, 200)
		want = append(want, key+"\n")
		read(key, value)
	}
	keys := string(harness.Do(t, d.Cache, "GET", "/cache/v1/keys").Body)
	if diff := cmp.Diff(sortedLines(strings.Join(want, "")), sortedLines(keys)); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	for i, key := range hostileKeys {
		if i%2 == 0 {
			res := harness.Do(t, d.Cache, "DELETE", native(d.Topic, key))
			wantStatus(t, fmt.Sprintf("DELETE %q", key), res, 200)
		} else {
			target := strings.TrimSuffix(produceTo(d.Topic, key), "&sync")
			wantStatus(t, fmt.Sprintf("gateway DELETE %q", key), harness.Do(t, d.Gateway, "DELETE", target), 200)
		}
		gone(key)
	}
	wantValue(t, "keys after all are deleted", harness.Do(t, d.Cache, "GET", "/cache/v1/keys"), "")
}

// testKeysAsTyped asks the old route for keys that are not percent-encoded, as its clients do: all that follows /raw/ in the request
// target is the key, and a plus is a plus.
func testKeysAsTyped(t *testing.T, e env) {
	d := e.dev(t)
	for _, key := range []string{"plain", "a/b", "a//b", "/a", "a?b=c", "a+b", "..", "../a", "a/../b", ".", "a?b?c", "a&b=c", "a:b@c;d,e"} {
		res := harness.DoBody(t, d.Gateway, "POST", produceTo(d.Topic, key), []byte("value of "+key))
		wantStatus(t, fmt.Sprintf("produce %q", key), res, 200)
		wantValue(t, fmt.Sprintf("raw/%s as typed", key), harness.Do(t, d.Cache, "GET", "/cache/v1/raw/"+key), "value of "+key)
	}
	// In a query a plus has always meant a space.
	harness.DoBody(t, d.Gateway, "POST", "/topics/"+d.Topic+"/messages?key=x+y&sync", []byte("spaced"))
	wantValue(t, "key=x+y", harness.Do(t, d.Cache, "GET", "/cache/v1/raw/x%20y"), "spaced")
	// What cannot be decoded is refused, not guessed, and kkv goes on.
	res := harness.Do(t, d.Cache, "GET", "/cache/v1/raw/%zz")
	if res.Status != 400 && res.Status != 404 {
		t.Errorf("raw/%%zz: got %s, want 400 or 404", res)
	}
	wantStatus(t, "after a bad escape", harness.Do(t, d.Cache, "GET", "/q/health/ready"), 200)
}

// testBinaryKeys takes keys that are no text, and the empty one, through the native route.
func testBinaryKeys(t *testing.T, e env) {
	d := e.dev(t)
	for _, key := range []string{"", "\x00", "\xff\x00", "\xc3", "a\nb", "\r\n", "\xed\xa0\x80"} {
		value := fmt.Sprintf("value of %q", key)
		what := fmt.Sprintf("key %q", key)
		wantStatus(t, "PUT "+what, harness.DoBody(t, d.Cache, "PUT", native(d.Topic, key), []byte(value)), 200)
		wantValue(t, "GET "+what, harness.Do(t, d.Cache, "GET", native(d.Topic, key)), value)
		b64 := base64.RawURLEncoding.EncodeToString([]byte(key))
		wantValue(t, "GET base64url "+what, harness.Do(t, d.Cache, "GET", "/v1/topics/"+d.Topic+"/keys/"+b64+"?keyEncoding=base64url"), value)
		if key != "" {
			wantValue(t, "raw "+what, harness.Do(t, d.Cache, "GET", raw(key)), value)
		}
		wantStatus(t, "DELETE "+what, harness.Do(t, d.Cache, "DELETE", native(d.Topic, key)), 200)
		wantStatus(t, "GET deleted "+what, harness.Do(t, d.Cache, "GET", native(d.Topic, key)), 404)
	}
}

// testNativeRoutes holds the shape of the native answers, and their refusals.
func testNativeRoutes(t *testing.T, e env) {
	d := e.dev(t)
	target := native(d.Topic, "k")
	put := harness.DoBody(t, d.Cache, "PUT", target, []byte("v1"), "X-Kafka-content-type: "+base64.StdEncoding.EncodeToString([]byte("text/x-test")))
	wantStatus(t, "PUT", put, 200)
	var ack struct{ Partition, Offset, Timestamp *int64 }
	if err := json.Unmarshal(put.Body, &ack); err != nil || ack.Partition == nil || ack.Offset == nil || ack.Timestamp == nil {
		t.Errorf("PUT answers %s, want partition, offset and timestamp", put)
	}
	wantHeaders(t, put, "Etag", "Kkv-Position")

	get := harness.Do(t, d.Cache, "GET", target)
	wantValue(t, "GET", get, "v1")
	wantHeaders(t, get, "Etag", "Kkv-Position", "Kkv-Age-Ms", "Last-Modified", "Content-Length")
	if get.Header.Get("Etag") != put.Header.Get("Etag") {
		t.Errorf("ETag of GET %q, of the PUT before %q", get.Header.Get("Etag"), put.Header.Get("Etag"))
	}
	if got := get.Header.Get("Cache-Control"); got != "no-cache" {
		t.Errorf("Cache-Control %q, want no-cache", got)
	}
	if got := get.Header.Get("Content-Type"); got != "text/x-test" {
		t.Errorf("Content-Type %q, want that of the record's header", got)
	}
	head := harness.Do(t, d.Cache, "HEAD", target)
	wantValue(t, "HEAD", head, "")
	if got := head.Header.Get("Content-Length"); got != "2" {
		t.Errorf("Content-Length of HEAD %q, want 2", got)
	}
	wantStatus(t, "If-None-Match", harness.Do(t, d.Cache, "GET", target, "If-None-Match: "+get.Header.Get("Etag")), 304)

	absent := harness.Do(t, d.Cache, "GET", native(d.Topic, "absent"))
	wantProblem(t, "absent key", absent, 404, "not-found")
	other := harness.Do(t, d.Cache, "GET", native("another-topic", "k"))
	wantProblem(t, "another topic", other, 404, "not-found")
	if !strings.Contains(string(other.Body), d.Topic) {
		t.Errorf("the answer for another topic does not name the one served: %s", other)
	}
	for _, topics := range []string{"/v1/topics", "/v1/topics/" + d.Topic} {
		res := harness.Do(t, d.Cache, "GET", topics)
		wantStatus(t, topics, res, 200)
		if !json.Valid(res.Body) || !strings.Contains(string(res.Body), d.Topic) {
			t.Errorf("%s: %s", topics, res)
		}
	}
	// A page of another site must not write here, however it names the host.
	wantStatus(t, "cross-origin PUT", harness.DoBody(t, d.Cache, "PUT", target, []byte("evil"), "Sec-Fetch-Site: cross-site", "Origin: http://evil.example"), 403)
	if res := harness.DoBody(t, d.Cache, "PUT", target, []byte("evil"), "Host: evil.example"); res.Status < 400 {
		t.Errorf("PUT with a foreign Host on loopback: %s", res)
	}
	wantValue(t, "GET after refused writes", harness.Do(t, d.Cache, "GET", target), "v1")
}

// wantHeaders fails the test where the answer lacks one of the headers.
func wantHeaders(t *testing.T, res *harness.Response, names ...string) {
	t.Helper()
	for _, name := range names {
		if res.Header.Get(name) == "" {
			t.Errorf("no header %s in the answer %s %v", name, res, res.Header)
		}
	}
}

// wantProblem fails the test if the answer is not an RFC 9457 problem of this status and type.
func wantProblem(t *testing.T, what string, res *harness.Response, status int, problem string) {
	t.Helper()
	wantStatus(t, what, res, status)
	if got := res.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("%s: Content-Type %q, want application/problem+json", what, got)
	}
	var body struct {
		Type, Title, Detail string
		Status              int
	}
	if err := json.Unmarshal(res.Body, &body); err != nil {
		t.Errorf("%s: %v in %s", what, err, res)
	}
	if !strings.HasSuffix(body.Type, problem) || body.Title == "" {
		t.Errorf("%s: problem of type %q, title %q, want %s and some title", what, body.Type, body.Title, problem)
	}
}
