package gateway

import (
	"bufio"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/kkv-project/kkv/internal/kafka"
)

type exchange struct {
	method, target string
	header         map[string]string
	body           string
	hasBody        bool
	status         int
	want           map[string]string
	answer         string
}

// readRecorded parses testdata/recorded.http.
func readRecorded(t *testing.T) []exchange {
	text, err := os.ReadFile("testdata/recorded.http")
	if err != nil {
		t.Fatal(err)
	}
	var all []exchange
	for _, part := range strings.Split(string(text), "\n> ")[1:] {
		request, response, ok := strings.Cut(part, "\n< ")
		if !ok {
			t.Fatalf("no answer in %q", part)
		}
		var e exchange
		line, rest, _ := strings.Cut(request+"\n", "\n")
		e.method, e.target, _ = strings.Cut(line, " ")
		e.header, e.body, e.hasBody = headersAndBody(rest)
		line, rest, _ = strings.Cut(response+"\n", "\n")
		if e.status, err = strconv.Atoi(line); err != nil {
			t.Fatal(err)
		}
		e.want, e.answer, _ = headersAndBody(rest)
		all = append(all, e)
	}
	return all
}

func headersAndBody(s string) (header map[string]string, body string, hasBody bool) {
	head, body, hasBody := strings.Cut("\n"+s, "\n\n")
	header = map[string]string{}
	for _, l := range strings.Split(head, "\n") {
		if name, value, ok := strings.Cut(l, ": "); ok {
			header[name] = value
		}
	}
	return header, strings.TrimSuffix(strings.TrimRight(body, "\n"), "\n"), hasBody && strings.TrimSpace(body) != ""
}

// send writes the request by hand, so that it has no headers of a client's own.
func (e exchange) send(t *testing.T, addr string) *http.Response {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	var b strings.Builder
	b.WriteString(e.method + " " + e.target + " HTTP/1.1\r\nHost: pixy\r\nConnection: close\r\n")
	for k, v := range e.header {
		b.WriteString(k + ": " + v + "\r\n")
	}
	if e.hasBody {
		b.WriteString("Content-Length: " + strconv.Itoa(len(e.body)) + "\r\n")
	}
	b.WriteString("\r\n" + e.body)
	if _, err := io.WriteString(conn, b.String()); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

var number = regexp.MustCompile(`("partition"|"offset"): \d\b`)

func TestRecorded(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "fixture"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p, err := kafka.NewProducer(kafka.Config{Bootstrap: c.ListenAddrs()})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close(t.Context())
	server := httptest.NewServer(New(Options{Producer: p, Admin: kafka.Admin{Client: p.Client()}}))
	defer server.Close()
	for _, prefix := range []string{"", "/clusters/default"} {
		for _, e := range readRecorded(t) {
			if prefix != "" && (!strings.HasPrefix(e.target, "/topics") || e.status == http.StatusNotFound) {
				continue
			}
			e.target = prefix + e.target
			resp := e.send(t, server.Listener.Addr().String())
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for k := range resp.Header {
				got[k] = resp.Header.Get(k)
			}
			maps.DeleteFunc(got, func(k, _ string) bool { return e.want[k] == "" })
			answer := string(body)
			if strings.Contains(e.answer, "P,") {
				answer = number.ReplaceAllStringFunc(answer, func(s string) string {
					return s[:strings.Index(s, ":")] + ": " + strings.ToUpper(s[1:2])
				})
			}
			if resp.StatusCode != e.status {
				t.Errorf("%s %s: status %d, want %d: %s", e.method, e.target, resp.StatusCode, e.status, body)
			}
			if diff := cmp.Diff(e.want, got); diff != "" {
				t.Errorf("%s %s headers (-want +got):\n%s", e.method, e.target, diff)
			}
			if diff := cmp.Diff(e.answer, strings.TrimSuffix(answer, "\n")); diff != "" {
				t.Errorf("%s %s body (-want +got):\n%s", e.method, e.target, diff)
			}
		}
	}
}
