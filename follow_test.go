package kkv

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kkv-project/kkv/internal/cachetest"
)

// After a reconnection callbacks hear of what is truly different, and of nothing else.
func TestMirrorReconnects(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
		var l logs
		o := options(n)
		o.Logger = l.logger()
		s.Put("gone", "1")
		s.Put("changed", "1")
		s.Put("same", "1")
		s.Put("rewritten", "1")
		m := ready(t, o)
		var j journal
		var gone Update
		m.OnUpdate(func(u Update) {
			j.add(u)
			if u.Key == "gone" {
				gone = u
			}
		})
		n.Stop("a")
		synctest.Wait()
		if m.Stats().Live || show(m) == "" {
			t.Error("away: it must say so, and keep showing what it has")
		}
		s.Delete("gone")
		s.Put("changed", "2")
		s.Put("rewritten", "1")
		s.Put("added", "1")
		s.Put("passing", "1")
		s.Delete("passing")
		time.Sleep(time.Hour)
		equal(t, "while away", j.take(), "")
		n.Serve("a", s)
		time.Sleep(maxBackoff)
		equal(t, "differences", j.take(), "added=1 changed=2 -gone")
		equal(t, "state", show(m), "added=1 changed=2 rewritten=1 same=1")
		if !gone.Deleted || gone.Offset <= 0 || gone.Timestamp.IsZero() {
			t.Errorf("%+v is not the tombstone", gone)
		}
		if e, _ := m.Get("rewritten"); e.Offset == 0 {
			t.Errorf("%+v is the old record", e)
		}
		s.Put("same", "2")
		equal(t, "live again", j.take(), "same=2")
		equal(t, "log lines", strings.Count(l.String(), "\n"), 2)
		if !strings.Contains(l.String(), "level=WARN msg=\"lost the watch") || !strings.Contains(l.String(), "level=INFO msg=\"the watch is back") {
			t.Error(l.String())
		}
		if st := m.Stats(); !st.Live || st.Connects != 2 || st.Resets != 0 || st.Failures < 100 {
			t.Errorf("%+v", st)
		}
	})
}

func TestMirrorReset(t *testing.T) {
	for _, tell := range []bool{true, false} {
		t.Run(fmt.Sprint(tell), func(t *testing.T) {
			bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
				s.Put("a", "1")
				s.Put("b", "1")
				s.Put("b", "2")
				m := ready(t, options(n))
				var j journal
				m.OnUpdate(j.add)
				time.Sleep(time.Minute)
				s.Replace(tell, "b", "2", "c", "3")
				time.Sleep(maxBackoff)
				equal(t, "differences", j.take(), "-a c=3")
				equal(t, "state", show(m), "b=2 c=3")
				equal(t, "position", m.Position().String()[:22], s.Position()[:22])
				s.Put("c", "4")
				equal(t, "live", j.take(), "c=4")
			})
		})
	}
}

// A replica that is behind does not take the mirror back in time, but it may catch up.
func TestMirrorNeverGoesBack(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, a *cachetest.Server) {
		b := cachetest.New("t") // a replica of a that is fed by hand
		n.Serve("b", b)
		a.Put("k", "1")
		b.Put("k", "1")
		a.Put("k", "2")
		a.Put("k", "3")
		a.Put("other", "1")
		m := ready(t, options(n, "http://a", "http://b"))
		var j journal
		m.OnUpdate(j.add)
		n.Stop("a")
		time.Sleep(3 * time.Second)
		equal(t, "state", show(m), "k=3 other=1")
		if m.Stats().Live {
			t.Error("live, although the replica is behind")
		}
		b.Put("k", "2")
		b.Put("k", "3")
		synctest.Wait()
		if m.Stats().Live {
			t.Error("live, although the replica lacks a record")
		}
		b.Put("other", "1")
		synctest.Wait()
		if !m.Stats().Live {
			t.Error("not live, although the replica has caught up")
		}
		b.Put("k", "4")
		equal(t, "heard", j.take(), "k=4")
		equal(t, "state", show(m), "k=4 other=1")
	})
}

// A replica that says what became of the mirror's position is followed at once, also where it lacks records.
func TestMirrorFollowsTruncation(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, a *cachetest.Server) {
		b := cachetest.New("t")
		n.Serve("b", b)
		a.Put("k", "1")
		b.Put("k", "1")
		a.Put("k", "2")
		m := ready(t, options(n, "http://a", "http://b"))
		var j journal
		m.OnUpdate(j.add)
		b.ResetSince("position-truncated")
		n.Stop("a")
		time.Sleep(time.Second)
		equal(t, "heard", j.take(), "k=1")
		if st := m.Stats(); !st.Live || st.Resets != 1 {
			t.Errorf("%+v", st)
		}
	})
}

// A replica that does not know every delete since the mirror's position sends its state, of which callbacks hear the true
// differences: what was not sent again is gone. Where that replica is also behind, it is waited for; but once it has
// proved to be current and still lacks records, they are lost, and the mirror follows.
func TestMirrorBeyondHorizon(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, a *cachetest.Server) {
		b := cachetest.New("t")
		n.Serve("b", b)
		a.Batch("gone", "1", "same", "1", "k", "1")
		b.Batch("gone", "1", "same", "1", "k", "1")
		a.Put("k", "2")
		b.ResetSince("beyond-horizon")
		m := ready(t, options(n, "http://a", "http://b"))
		var j journal
		var gone Update
		m.OnUpdate(func(u Update) {
			j.add(u)
			if u.Key == "gone" {
				gone = u
			}
		})
		n.Stop("a")
		time.Sleep(clockSkew - time.Second)
		equal(t, "heard", j.take(), "")
		equal(t, "state", show(m), "gone=1 k=2 same=1")
		b.Delete("gone")
		b.Put("k", "2")
		b.Put("new", "1")
		equal(t, "heard once it has caught up", j.take(), "-gone new=1")
		if !gone.Deleted || gone.Offset != -1 || !gone.Timestamp.IsZero() {
			t.Errorf("%+v: nobody saw the record that deleted it", gone)
		}

		c := cachetest.New("t")
		n.Serve("a", c)
		c.Put("same", "1")
		c.ResetSince("beyond-horizon")
		n.Stop("b")
		time.Sleep(clockSkew + 15*time.Second) // two lines of progress
		equal(t, "heard of what is lost", j.take(), "-k -new")
		if st := m.Stats(); !st.Live || st.Resets != 2 {
			t.Errorf("%+v", st)
		}
	})
}

// A replica that is behind refuses to resume (503), and the next one is asked.
func TestMirrorTriesAnotherReplica(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, a *cachetest.Server) {
		b, c := cachetest.New("t"), cachetest.New("t")
		n.Serve("b", b)
		n.Serve("c", c)
		a.Put("k", "1")
		c.Put("k", "1")
		m := ready(t, options(n, "http://a", "http://b", "http://c"))
		var j journal
		m.OnUpdate(j.add)
		c.Put("k", "2")
		n.Stop("a")
		time.Sleep(6 * time.Second) // b waits for 5 s
		equal(t, "heard", j.take(), "k=2")
		if st := m.Stats(); !st.Live || st.Resets != 0 || st.Connects != 2 {
			t.Errorf("%+v", st)
		}
	})
}

// A server that resumes although it is behind is left for another one, and its changes are not shown.
func TestMirrorResumedBehind(t *testing.T) {
	bubble(t, func(t *testing.T, n *cachetest.Network, a *cachetest.Server) {
		b, old := cachetest.New("t"), cachetest.New("t")
		old.Put("k", "1")
		n.Serve("b", b)
		a.Batch("k", "1", "k", "2")
		m := ready(t, options(n, "http://a", "http://b"))
		var j journal
		m.OnUpdate(j.add)
		b.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Content-Type", "application/x-ndjson")
			_, _ = fmt.Fprintf(w, `{"type":"put","key":"k","value":1,"partition":0,"offset":0,"timestamp":1}`+"\n"+
				`{"type":"synced","position":%q,"keys":1}`+"\n", old.Position())
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return true
		})
		n.Stop("a")
		time.Sleep(10 * time.Second)
		equal(t, "heard", j.take(), "")
		equal(t, "state", show(m), "k=2")
		a.Put("k", "3")
		n.Serve("a", a)
		time.Sleep(maxBackoff)
		equal(t, "heard of the other", j.take(), "k=3")
	})
}

// A mirror whose position no server understands takes the whole state again.
func TestMirrorPositionRefused(t *testing.T) {
	for _, status := range []int{400, 409} {
		bubble(t, func(t *testing.T, n *cachetest.Network, s *cachetest.Server) {
			s.Batch("a", "1", "b", "1")
			m := ready(t, options(n))
			var j journal
			m.OnUpdate(j.add)
			s.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
				if !r.URL.Query().Has("since") {
					return false
				}
				cachetest.Problem(w, status, "bad-position", "what is that?")
				return true
			})
			s.Drop()
			s.Delete("a")
			time.Sleep(maxBackoff)
			equal(t, "heard", j.take(), "-a")
			s.Intercept(nil)
			s.Drop()
			s.Put("b", "2")
			time.Sleep(maxBackoff)
			equal(t, "heard after the next", j.take(), "b=2")
			equal(t, "resets", m.Stats().Resets, 1)
		})
	}
}

// disturb writes to two replicas, one of which may lag; ends their watches, takes them off the network and back, and lets them
// not know what was deleted. In the end both are there, and equal.
func disturb(t *testing.T, n *cachetest.Network, rng *rand.Rand, a, b *cachetest.Server) {
	servers := map[string]*cachetest.Server{"a": a, "b": b}
	up := map[string]bool{"a": true, "b": true}
	var lag []func() // what b has not heard of yet
	write := func(f func(*cachetest.Server)) {
		f(a)
		lag = append(lag, func() { f(b) })
	}
	catchUp := func() {
		for _, f := range lag {
			f()
		}
		lag = nil
	}
	for i := range 2000 {
		key, value := "k"+strconv.Itoa(rng.IntN(50)), strconv.Itoa(i)
		switch r := rng.IntN(100); {
		case r < 50:
			write(func(s *cachetest.Server) { s.Put(key, value) })
		case r < 65:
			write(func(s *cachetest.Server) { s.Delete(key) })
		case r < 75:
			catchUp()
		case r < 80:
			a.Drop()
			b.Drop()
		case r < 83:
			reason := []string{"", "beyond-horizon"}[rng.IntN(2)]
			a.ResetSince(reason)
			b.ResetSince(reason)
		case r < 84:
			write(func(s *cachetest.Server) { s.Replace(rng.IntN(2) == 0, "k1", value) })
		case r < 90:
			name := []string{"a", "b"}[rng.IntN(2)]
			if up[name] = !up[name]; up[name] {
				n.Serve(name, servers[name])
			} else {
				n.Stop(name)
			}
		default:
			time.Sleep(time.Duration(rng.Int64N(int64(2 * time.Second))))
		}
	}
	catchUp()
	for name := range servers {
		if !up[name] {
			n.Serve(name, servers[name])
		}
	}
}

// Mirrors converge on what the servers hold, through any number of lost connections, and callbacks tell the whole
// way there.
func TestMirrorConverges(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	bubble(t, func(t *testing.T, n *cachetest.Network, a *cachetest.Server) {
		b := cachetest.New("t")
		n.Serve("b", b)
		m := ready(t, options(n, "http://a", "http://b"))
		told := make(map[string]string)
		m.OnUpdate(func(u Update) {
			delete(told, u.Key)
			if !u.Deleted {
				told[u.Key] = string(u.Value)
			}
		})
		disturb(t, n, rng, a, b)
		time.Sleep(time.Minute)
		synctest.Wait()
		equal(t, "position", m.Position().Covers(must(ParsePosition(a.Position()))), true)
		seen := 0
		for k, e := range m.All("") {
			seen++
			v, ok := a.Value(k)
			if !ok || v != string(e.Value) || told[k] != v {
				t.Errorf("%s: mirror %s, told %s, server %s %v", k, e.Value, told[k], v, ok)
			}
		}
		equal(t, "keys", seen, len(a.Keys()))
		equal(t, "keys told", len(told), seen)
		equal(t, "keys counted", m.Stats().Keys, seen)
		var bytes int64
		for k, e := range m.All("") {
			bytes += int64(len(k) + len(e.Value))
		}
		equal(t, "bytes counted", m.Stats().Bytes, bytes)
	})
}
