package webhook

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kkv-project/kkv/internal/wire"
)

// A kill at any time, or an end, and a start later: what the receiver was not told it is told then.
func TestResume(t *testing.T) {
	for i := range 40 {
		seed := rand.Uint64()
		t.Run(fmt.Sprintf("%d/seed=%d", i, seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { resume(t, seed) })
		})
	}
}

func resume(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 0))
	c := newFakeCache([]int{0, 2000}[seed%2])
	c.remember, c.horizons = true, true
	file := filepath.Join(t.TempDir(), "cursors.json")
	m := &mirror{t: t, state: map[string]wire.Change{}}
	mood := &moody{rnd: rand.New(rand.NewPCG(seed, 1)), hear: m.hear}
	resets := 0
	for life := range 8 {
		targets := make(feedOfTargets) // so that nothing is sent before somebody listens
		r := newRig(t, c, Options{V2: true, Lookback: time.Minute, Timeout: 2 * time.Second, MaxKeysPerPost: 1 + rnd.IntN(8), Resume: file, Targets: targets}, "a")
		r.hosts["a"].set(func(ctx context.Context, call call) (int, error) {
			if call.v2.Reset != "" {
				resets++
			}
			return mood.behave(ctx, call)
		})
		targets <- []Target{{"a", "http://a/", true}}
		synctest.Wait()
		mood.set(false)
		kill := rnd.IntN(60) // as if it had been killed then; beyond 40, it ends
		var atKill []byte
		for i := range 40 {
			if i == kill {
				var err error
				if atKill, err = os.ReadFile(file); err != nil {
					t.Fatal(err)
				}
			}
			randomBatch(rnd, c, map[string]must{})
			if rnd.IntN(3) > 0 {
				pass(time.Duration(rnd.IntN(1000)) * time.Millisecond)
			}
		}
		if life == 0 {
			mood.set(true) // it has heard the state, so that a reset after that is one too many
			pass(2*maxBackoff + time.Minute)
		}
		if life == 7 {
			mood.set(true)
			pass(2*maxBackoff + time.Minute)
		}
		r.stop()
		if life > 0 && life < 7 {
			if atKill != nil {
				if err := os.WriteFile(file, atKill, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for range rnd.IntN(5) {
				randomBatch(rnd, c, map[string]must{})
			}
		}
		if life == 0 {
			resets = 0
		}
	}
	if resets > 0 {
		t.Errorf("%d resets after the first", resets)
	}
	if diff := cmp.Diff(c.live(), m.live()); diff != "" {
		t.Errorf("-cache +receiver\n%s", diff)
	}
}

func TestResumeFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		file := filepath.Join(dir, "cursors.json")
		targets := make(feedOfTargets)
		c := newFakeCache(0)
		c.apply(mut{0, "before", "1"})
		content := func() string {
			t.Helper()
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
		if err := os.WriteFile(file, []byte(`{"version":1,"topic":"fixture","body":"v1","targets":{"a":"`+c.position().String()+`","unlisted":"","gone":""}}`), 0o600); err != nil {
			t.Fatal(err)
		}
		c.apply(mut{0, "k", "1"}, mut{1, "l", "1"})
		r := newRig(t, c, Options{Targets: targets, Resume: file}, "a", "gone")
		a := Target{"a", "http://a/", true}
		targets <- []Target{a, {"gone", "http://gone/", true}}
		pass(2 * time.Second)
		r.expect("a", "0:1 k", "1:0 l")
		r.expect("gone", "0:1 before,k", "1:0 l")
		told := c.position().String()
		targets <- []Target{a}
		r.hosts["a"].set(answer(500))
		c.apply(mut{0, "k", "2"})
		pass(2 * time.Second)
		// What is not told stays so; what no source lists any more goes, what none has listed yet does not.
		want := fmt.Sprintf("{\n  \"version\": 1,\n  \"topic\": \"fixture\",\n  \"body\": \"v1\",\n  \"targets\": {\n    \"a\": %q,\n    \"unlisted\": \"\"\n  }\n}\n", told)
		if diff := cmp.Diff(want, content()); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
		r.hosts["a"].set(nil)
		pass(time.Hour)
		r.stop()
		if got := content(); !strings.Contains(got, `"a": "`+c.position().String()) || strings.Contains(got, "unlisted") {
			t.Errorf("at the end: %s", got)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
			t.Errorf("%v %v", left, err)
		}
	})
}

// A file that says nothing of use is no reason not to start; one that cannot be written is.
func TestResumeFileFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, content := range []string{"{", `{"version":2,"topic":"fixture","body":"v1"}`, `{"version":1,"topic":"other","body":"v1"}`,
			`{"version":1,"topic":"fixture","body":"v2"}`, `{"version":1,"topic":"fixture","body":"v1","targets":{"http://a/updates":"x"}}`} {
			file := filepath.Join(t.TempDir(), "cursors.json")
			if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			r := newRig(t, newFakeCache(0), Options{Resume: file}, "a")
			r.cache.apply(mut{0, "k", "1"})
			r.expect("a", "0:0 k")
			if r.logs.count("targets start as without it") != 1 {
				t.Errorf("%s: %s", content, r.logs.b.String())
			}
			r.stop()
		}
	})
	for _, file := range []string{filepath.Join(t.TempDir(), "none", "cursors.json"), t.TempDir()} {
		d := New(Options{Source: newFakeCache(0), Topic: "fixture", Resume: file})
		if err := d.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "webhook cursors") {
			t.Errorf("%s: %v", file, err)
		}
	}
}
