package kkv

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kkv-project/kkv/internal/cachetest"
)

func TestReadOptions(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
		var got http.Header
		s.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
			got = r.Header.Clone()
			return false
		})
		s.Put("k", "1")
		c := newClient(t, options(n))
		other, err := ParsePosition("q83vEjRWeJASNFZ4kBI0Vg~~..7-")
		if err != nil {
			t.Fatal(err)
		}
		for _, tc := range []struct {
			how    ReadOption
			header string
			want   string
		}{{Fresh(), "Kkv-Consistency", "fresh"}, {MaxStale(1500 * time.Millisecond), "Kkv-Max-Stale", "1.5s"}, {AtLeast(other), "Kkv-At-Least", other.String()}, {AtLeast(Position{}), "Kkv-At-Least", ""}} {
			if _, err := c.Get(t.Context(), "k", tc.how); err != nil {
				t.Fatal(err)
			}
			if v := strings.Join(got.Values(tc.header), ","); !strings.Contains(v, tc.want) {
				t.Errorf("%s: %q, want %q", tc.header, v, tc.want)
			}
		}
	})
}

// TestClientForgetsWhatIsGone: after the topic was made anew, one read says so, and the next goes on from there.
func TestClientForgetsWhatIsGone(t *testing.T) {
	for _, how := range [][]ReadOption{nil, {Fresh()}, {MaxStale(time.Minute), AtLeast(Position{})}} {
		forgetsWhatIsGone(t, how)
	}
}

func forgetsWhatIsGone(t *testing.T, how []ReadOption) {
	bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
		s.Put("k", "1")
		c := newClient(t, options(n))
		if _, err := c.Get(t.Context(), "k"); err != nil {
			t.Fatal(err)
		}
		had := c.Position().String()
		s.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(strings.Join(r.Header.Values("Kkv-At-Least"), ","), had) {
				return false
			}
			cachetest.Problem(w, http.StatusConflict, "position-from-another-topic", "made anew")
			return true
		})
		if _, err := c.Get(t.Context(), "k", how...); !errors.Is(err, ErrReset) {
			t.Errorf("the first read: %v", err)
		}
		if _, err := c.Get(t.Context(), "k", how...); err != nil {
			t.Errorf("the next read: %v", err)
		}
	})
}
