package httpapi

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/kkv-project/kkv/internal/kafkatest"
)

func TestLongPoll(t *testing.T) {
	inBubble(t, func(t *testing.T, g *rig) {
		const target = "/v1/topics/fixture/keys/k"
		after := func(d time.Duration, f func()) {
			go func() {
				kafkatest.Pass(d)
				f()
			}()
		}
		took := func(want time.Duration, r func() reply) reply {
			t.Helper()
			began := time.Now()
			got := r()
			if d := time.Since(began); d < want || d > want+time.Second {
				t.Errorf("answered after %v, want %v", d, want)
			}
			return got
		}
		poll := func(header ...string) func() reply {
			return func() reply { return g.get(target, append([]string{"Prefer", "respond-async, wait=10"}, header...)...) }
		}
		// Absent, until it is put.
		after(3*time.Second, func() { g.put(0, "other", []byte("x")); g.putBehind(0, "k", "1") })
		r := took(3*time.Second, poll())
		r.want(t, 200, "1")
		if r.Header.Get("Preference-Applied") != "wait=10" || r.Header.Get("Vary") != varyKey[0] {
			t.Errorf("%v", r.Header)
		}
		tag, at := r.Header.Get("ETag"), r.Header.Get("Kkv-Position")

		// Unchanged, to the end of the time.
		took(10*time.Second, poll("If-None-Match", tag)).want(t, 304, "")
		took(10*time.Second, poll("Kkv-At-Least", at)).want(t, 200, "1")
		took(0, poll("If-None-Match", `"another"`)).want(t, 200, "1")
		took(0, poll("Kkv-At-Least", "1:0", "Kkv-Timeout", "0s")).wantProblem(t, 504, "behind")

		// Changed, later and meanwhile.
		after(2*time.Second, func() { g.putBehind(0, "k", "2") })
		took(2*time.Second, poll("If-None-Match", tag)).want(t, 200, "2")
		took(0, poll("If-None-Match", tag)).want(t, 200, "2")
		took(0, poll("Kkv-At-Least", at)).want(t, 200, "2")
		after(2*time.Second, func() { g.Delete(0, "k") })
		took(2*time.Second, poll()).wantProblem(t, 404, "not-found")
		took(0, poll("If-None-Match", tag)).wantProblem(t, 404, "not-found")

		// A preference is no order.
		took(0, func() reply { return g.get(target, "Prefer", "wait=soon") }).wantProblem(t, 404, "not-found")
		after(time.Second, g.server.EndStreams)
		took(time.Second, poll()).wantProblem(t, 404, "not-found")
	})
}

// TestLongPollsAreWatchers: beyond --max-watchers they are answered at once.
func TestLongPollsAreWatchers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, func(o *Options) { o.MaxWatchers = 1 })
		g.waitReady()
		g.put(0, "k", []byte("1"))
		began := time.Now()
		done := make(chan reply)
		go func() { done <- g.get("/v1/topics/fixture/keys/k", "Prefer", "wait=5") }()
		synctest.Wait()
		if r := g.get("/v1/topics/fixture/keys/k", "Prefer", "wait=5"); r.StatusCode != 200 || r.Header.Get("Preference-Applied") != "" || time.Since(began) > time.Second {
			t.Errorf("one too many: %d after %v, %v", r.StatusCode, time.Since(began), r.Header)
		}
		if r := <-done; time.Since(began) != 5*time.Second || r.Header.Get("Preference-Applied") != "wait=5" {
			t.Errorf("the first: after %v, %v", time.Since(began), r.Header)
		}
	})
}

func TestConflictIsTold(t *testing.T) {
	inBubble(t, func(t *testing.T, g *rig) {
		g.put(0, "k", []byte("1"))
		told := func(want string) {
			t.Helper()
			for _, r := range []reply{g.get("/v1/topics/fixture/keys/k"), g.get("/cache/v1/raw/k"),
				g.do("POST", "/v1/topics/fixture/keys:batchGet", `{"keys":["nosuch","k"]}`)} {
				if got := r.Header.Get("Kkv-Conflict"); r.StatusCode != 200 || got != want {
					t.Errorf("%s: Kkv-Conflict %q, want %q", r.Request.URL.Opaque, got, want)
				}
			}
		}
		told("")
		g.put(1, "k", []byte("2"))
		told("true")
		g.put(1, "k", nil)
		told("")
	})
}

// TestVary: every read says what it depends on and is to be checked before it is used again (rule 18).
func TestVary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		g.waitReady()
		g.put(0, "k", []byte("1"))
		for target, want := range map[string]string{
			"/v1/topics/fixture/keys/k":           varyKey[0],
			"/v1/topics/fixture/keys/nosuch":      varyKey[0],
			"/v1/topics/fixture/keys/k?atLeast=x": varyKey[0],
			"/v1/topics/fixture/keys":             varyList[0],
			"/v1/topics/fixture/keys?limit=x":     varyList[0],
			"/cache/v1/raw/k":                     varyFresh[0],
			"/cache/v1/raw/nosuch":                varyFresh[0],
			"/cache/v1/keys":                      varyFresh[0],
			"/cache/v1/values":                    varyFresh[0],
			"/cache/v1/offset/fixture/0":          "",
			"/v1/topics":                          "",
			"/v1/nosuch":                          "",
			"/nosuch":                             "",
			"/q/health":                           "",
		} {
			r := g.get(target)
			if r.Header.Get("Vary") != want || r.Header.Get("Cache-Control") != "no-cache" {
				t.Errorf("%s: Vary %q, want %q; Cache-Control %q", target, r.Header.Get("Vary"), want, r.Header.Get("Cache-Control"))
			}
		}
	})
}
