package demo

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kkv-project/kkv"
	"github.com/kkv-project/kkv/internal/cachetest"
)

// devBubble is bubble with the page of `kkv dev` on two replicas, which are one server here.
func devBubble(t *testing.T, o Dev, f func(w *world)) {
	t.Helper()
	bubble(t, func(w *world) {
		var err error
		w.app, err = New(Options{Server: []string{"http://cache", "http://replica"}, Topic: "sidecar-demo", HTTPClient: w.net.Client(), Dev: &o})
		if err != nil {
			t.Fatal(err)
		}
		w.net.Serve("replica", w.cache)
		w.net.Stop("app")
		w.net.Serve("app", w.app.Handler())
		w.run()
		f(w)
	})
}

// post presses a button.
func (w *world) post(name, on string, status int, header ...string) (body string) {
	w.Helper()
	resp, body := w.do("POST", devPath+name, url.Values{"on": {on}}, header...)
	if resp.StatusCode != status {
		w.Errorf("POST %s on=%s: %d, want %d\n%s", name, on, resp.StatusCode, status, body)
	}
	return body
}

// Buttons do what they say, by POST from the page itself only.
func TestButtons(t *testing.T) {
	var turned []string
	says := func(name string, err error) Switch {
		return Switch{Set: func(on bool) error {
			if on {
				turned = append(turned, name+" on")
			} else {
				turned = append(turned, name+" off")
			}
			return err
		}}
	}
	devBubble(t, Dev{Lag: says("lag", nil), Kafka: says("kafka", errors.New("port taken"))}, func(w *world) {
		w.get("/", 200, `data-switch="lag"`, `data-switch="kafka"`, `data-switch="load"`, `<h2>Replica 2 <small class="host">replica</small>`)
		w.post("lag", "true", 200)
		w.post("lag", "false", 200)
		if body := w.post("kafka", "false", 500); !strings.Contains(body, "port taken") {
			t.Error(body)
		}
		w.equal("turned", strings.Join(turned, ", "), "lag on, lag off, kafka off")
		turned = nil
		w.post("lag", "", 400)
		w.post("lag", "true", 403, "Sec-Fetch-Site", "cross-site")
		w.post("lag", "true", 403, "Origin", "http://evil")
		w.post("nothing", "true", 404)
		for _, name := range []string{"lag", "kafka", "load"} {
			w.get(devPath+name+"?on=true", 405)
		}
		w.equal("turned", strings.Join(turned, ", "), "")
		if !w.app.dev.kafka { // what failed is as it was
			t.Error("Kafka is taken for stopped")
		}
	})
	devBubble(t, Dev{Lag: Switch{Off: "one replica"}, Kafka: Switch{Off: "yours"}}, func(w *world) {
		w.get("/", 200, `aria-describedby="lag" disabled>`, ">one replica<", `aria-describedby="kafka" disabled>`, ">yours<")
		w.post("lag", "true", 409)
		w.post("kafka", "false", 409)
	})
	devBubble(t, Dev{Locked: "not on loopback", Lag: says("lag", nil)}, func(w *world) {
		w.get("/", 200, `aria-describedby="load" disabled>`)
		for _, name := range []string{"lag", "kafka", "load"} {
			w.post(name, "true", 409)
		}
	})
	bubble(t, func(w *world) { // kkv demo
		w.run()
		if body := w.get("/", 200); strings.Contains(body, "data-switch") || strings.Contains(body, "dev.js") {
			t.Error("kkv demo has buttons")
		}
		w.post("lag", "true", 405)
		w.get(devPath+"read?replica=0&key=A&how=local", 404)
	})
}

// A read is that of the replica, with what the button asks of it, by a client that has seen nothing.
func TestReads(t *testing.T) {
	devBubble(t, Dev{}, func(w *world) {
		read := func(query string, status int) (a readAnswer) {
			t.Helper()
			if err := json.Unmarshal([]byte(w.get(devPath+"read?"+query, status)), &a); err != nil {
				t.Error(err)
			}
			return a
		}
		w.cache.Put("A", `{"color":"red"}`)
		position := w.cache.Position()
		var asked http.Header
		var host string
		w.cache.Intercept(func(rw http.ResponseWriter, r *http.Request) bool {
			asked, host = r.Header, r.Host
			if r.Header.Get("Kkv-Consistency") != "" && r.Host == "cache" {
				cachetest.Problem(rw, 504, "behind", "no leader answers")
				return true
			}
			return false
		})
		a := read("replica=1&key=A&how=local", 200)
		w.equal("local", a.Color+" "+host+asked.Get("Kkv-At-Least")+asked.Get("Kkv-Consistency"), "red replica")
		read("replica=1&key=A&how=at-least&position="+position, 200)
		w.equal("at least", asked.Get("Kkv-At-Least"), position)
		read("replica=1&key=A&how=fresh", 200)
		w.equal("fresh", asked.Get("Kkv-Consistency"), "fresh")
		a = read("replica=0&key=A&how=fresh", 200)
		if a.Status != 504 || a.Error != "no leader answers" || a.Text != "" {
			t.Errorf("refused: %+v", a)
		}
		w.equal("absent", read("replica=0&key=absent&how=local", 200).Text, "no such key")
		for _, q := range []string{"replica=2&key=A&how=local", "replica=-1&key=A&how=local", "replica=0&key=A&how=nonsense", "replica=0&key=A&how=at-least&position=%00"} {
			read(q, 400)
		}
	})
}

// A box tells how long after its acknowledgement it was shown, whichever is heard of first.
func TestDelay(t *testing.T) {
	devBubble(t, Dev{}, func(w *world) {
		e := w.events("")
		_ = e.take()
		delay := func(replica int) string {
			b, _ := w.app.replicas[replica].get("A")
			return b.Delay
		}
		partition, offset := w.cache.Put("A", `{"color":"red"}`)
		synctest.Wait()
		w.equal("before it is known", delay(0), "")
		w.app.Acked(partition, offset)
		w.equal("shown first", delay(0)+", "+delay(1), "0.0 ms, 0.0 ms")
		if got := e.take(); strings.Count(got, "put A=red") != 4 { // of two replicas, and again with the delay
			t.Errorf("events: %s", got)
		}

		w.app.Acked(partition, offset+1)
		time.Sleep(1234 * time.Millisecond)
		w.cache.Put("A", `{"color":"green"}`)
		synctest.Wait()
		w.equal("acknowledged first", delay(0), "1,234 ms")
		w.cache.Put("A", `{"color":"blue"}`)
		synctest.Wait()
		w.equal("of an older write", delay(0), "")
	})
}

func TestMilliseconds(t *testing.T) {
	for in, want := range map[time.Duration]string{0: "0.0 ms", 1260 * time.Microsecond: "1.3 ms", 10600 * time.Microsecond: "11 ms",
		999 * time.Millisecond: "999 ms", 3001 * time.Millisecond: "3,001 ms", 15 * time.Second: "15,000 ms"} {
		if got := milliseconds(in); got != want {
			t.Errorf("%v: %q, want %q", in, got, want)
		}
	}
}

// Only so many writes are remembered.
func TestAcksAreBounded(t *testing.T) {
	a := newAcks(func(int, string) {})
	for i := range int64(2*livesMost + 7) {
		a.acked(record{0, i}, time.Unix(1, 0))
	}
	if len(a.lives) != livesMost || len(a.order) != livesMost {
		t.Errorf("%d writes, %d in order; want %d", len(a.lives), len(a.order), livesMost)
	}
	if a.lives[record{0, 2*livesMost + 6}] == nil || a.lives[record{0, livesMost}] != nil {
		t.Error("the oldest should have gone")
	}
}

// The load writes a thousand times a second, sees all of it, and leaves nothing behind.
func TestLoad(t *testing.T) {
	devBubble(t, Dev{}, func(w *world) {
		l := w.app.dev.load
		w.post("load", "true", 200)
		w.post("load", "true", 200) // once is enough
		time.Sleep(3 * time.Second)
		st := l.state()
		if !st.On || st.Sent < 2900 || st.Sent > 3050 || st.Seen[0] != st.Sent || st.Seen[1] != st.Sent || st.Missed[0]+st.Missed[1] != 0 {
			t.Errorf("after 3 s: %+v", st)
		}
		w.get("/", 200, `<a class="tile" href="/load-49"`)

		w.cache.Hold(true) // acknowledged, and not shown
		time.Sleep(20 * time.Millisecond)
		if st = l.state(); st.Seen[0] >= st.Sent || st.Missed[0] != 0 {
			t.Errorf("held: %+v", st)
		}
		w.cache.Hold(false)
		w.post("load", "false", 200)
		time.Sleep(time.Second)
		if st = l.state(); st.On || st.Ending || st.Seen[0] != st.Sent || st.Seen[1] != st.Sent || st.Missed[0]+st.Missed[1] != 0 {
			t.Errorf("at its end: %+v", st)
		}
		if keys := w.cache.Keys(); len(keys) > 0 {
			t.Errorf("left behind: %q", keys)
		}
		w.post("load", "true", 200)
		time.Sleep(time.Second)
		if st = l.state(); !st.On || st.Sent < 900 || st.Sent > 1050 {
			t.Errorf("the second one: %+v", st)
		}
	})
}

// What a replica has not shown though its position covers it is missed; what it has yet to apply is not.
func TestMissed(t *testing.T) {
	devBubble(t, Dev{}, func(w *world) {
		put := func(i int, run string, n int64) {
			v, _ := json.Marshal(loadValue{N: n, Run: run})
			w.cache.Put(loadKey(i), string(v))
		}
		put(0, "this", 3)
		put(1, "this", 7)
		put(2, "another", 9)
		synctest.Wait()
		past, err := kkv.ParsePosition(w.cache.Position())
		if err != nil {
			t.Fatal(err)
		}
		keys := []loaded{{n: 3, pos: past}, {n: 5, pos: past}, {n: 2, pos: past}, {n: 4, pos: past}, {}}
		if seen, missed := w.app.replicas[1].count("this", keys); seen != 8 || missed != 6 {
			t.Errorf("%d seen and %d missed, want 8 and 6", seen, missed)
		}
		w.net.Stop("replica")
		synctest.Wait()
		w.cache.Put("far", "ahead")
		if keys[3].pos, err = kkv.ParsePosition(w.cache.Position()); err != nil {
			t.Fatal(err)
		}
		if seen, missed := w.app.replicas[1].count("this", keys); seen != 8 || missed != 2 {
			t.Errorf("%d seen and %d missed of a replica that is behind, want 8 and 2", seen, missed)
		}
	})
}
