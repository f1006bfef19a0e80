package kkv

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/kkv-project/kkv/internal/cachetest"
)

func TestList(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
		c := newClient(t, options(n, "http://gone", "http://a"))
		s.Batch("b/2", "two", "a", `{"n":1}`, "b/1", "\xff", "c", "")
		if _, ok := s.Value("a"); !ok {
			t.Fatal("not put")
		}
		list := func(prefix string, how ...ReadOption) (out string) {
			for e, err := range c.List(t.Context(), prefix, how...) {
				if err != nil {
					return out + "error: " + err.Error()
				}
				out += fmt.Sprintf("%s=%q ", e.Key, e.Value)
			}
			return out
		}
		equal(t, "all", list(""), `a="{\"n\":1}" b/1="\xff" b/2="two" c="" `)
		equal(t, "by prefix", list("b/"), `b/1="\xff" b/2="two" `)
		equal(t, "none", list("&x"), "")
		equal(t, "position", c.Position().String(), s.Position())
		for e, err := range c.Keys(t.Context(), "b/") {
			if err != nil || e.Value != nil || e.Key != "b/1" {
				t.Errorf("keys: %+v %v", e, err)
			}
			break // and the rest is not read
		}

		s.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
			_, _ = io.WriteString(w, `{"type":"put","key":"a","partition":0,"offset":0,"timestamp":1}`+"\n"+`{"type":"error","detail":"the list took longer"}`+"\n")
			return true
		})
		if got := list(""); !strings.HasPrefix(got, `a="" error: `) || !strings.Contains(got, "took longer") {
			t.Errorf("cut by the server: %s", got)
		}
		s.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
			cachetest.Problem(w, 504, "behind", "not yet")
			return true
		})
		for _, err := range newClient(t, options(n)).List(t.Context(), "", Fresh()) {
			if !errors.Is(err, ErrBehind) {
				t.Errorf("behind: %v", err)
			}
		}
	})
}

// A read inside of the loop is not older than the list.
func TestListPosition(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
		c := newClient(t, options(n))
		s.Put("a", "1")
		for _, err := range c.List(t.Context(), "") {
			if err != nil || c.Position().String() != s.Position() {
				t.Errorf("%v, client at %q, list at %q", err, c.Position(), s.Position())
			}
		}
	})
}

// A list that is cut short never looks whole; another server is asked only while nothing was told.
func TestListBroken(t *testing.T) {
	for body, want := range map[string]string{
		`{"type":"put","key":"x","value":1}` + "\n" + `{"type":"put","ke`: `x=1 kkv: list "": the list broke off: unexpected EOF`,
		`{"type":"p`: "k=v",
	} {
		bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
			s.Put("k", "v")
			n.Serve("cut", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }))
			var got []string
			for e, err := range newClient(t, options(n, "http://cut", "http://a")).List(t.Context(), "") {
				if err != nil {
					got = append(got, err.Error())
					break
				}
				got = append(got, e.Key+"="+string(e.Value))
			}
			equal(t, body, strings.Join(got, " "), want)
		})
	}
}
