package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/kkv-project/kkv/internal/cache"
)

// warnFull is the share of the memory limit from which health speaks of it.
const warnFull = 0.9

// health is a MicroProfile Health answer, as the original gives.
type health struct {
	Status string  `json:"status"`
	Checks []check `json:"checks"`
}

type check struct {
	Name   string            `json:"name"`
	Status string            `json:"status"`
	Data   map[string]string `json:"data,omitempty"`
}

// healthReady is 200 from the first complete load on; Kafka's absence later does not undo it (DESIGN decision 11).
func (s *Server) healthReady(w http.ResponseWriter, _ *http.Request, _ [2]string) {
	ready := false
	select {
	case <-s.cache.Ready():
		ready = !s.isDraining()
	default:
	}
	st := s.cache.Status()
	if s.o.UnreadyAtLimit && len(st.Held) > 0 || s.o.UnreadyWhenAway && away(&st) {
		ready = false
	}
	s.health(w, ready)
}

// awayAfter is how old the data may be, while Kafka gives trouble, before Kafka counts as away: an election takes less.
const awayAfter = 3 * time.Second

// away reports whether Kafka cannot be reached. A growing age alone does not say so: an open transaction has that, too.
func away(st *cache.Status) bool {
	if st.Trouble == nil {
		return false
	}
	for _, p := range st.Partitions {
		if p.Age < 0 || p.Age > awayAfter {
			return true
		}
	}
	return false
}

// healthLive never depends on Kafka: a restart would not bring it back, and would lose what is served.
func (s *Server) healthLive(w http.ResponseWriter, _ *http.Request, _ [2]string) { s.health(w, true) }

func (s *Server) health(w http.ResponseWriter, up bool) {
	st := s.cache.Status()
	word, code := "UP", http.StatusOK
	if !up {
		word, code = "DOWN", http.StatusServiceUnavailable
	}
	b, _ := json.Marshal(health{Status: word, Checks: []check{{Name: "consume-loop", Status: word, Data: findings(&st)}}}) // strings: cannot fail
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.Header().Set("Cache-Control", "no-cache")
	w.WriteHeader(code)
	_, _ = w.Write(append(b, '\n')) // the client is gone if this fails
}

// findings are what is worth knowing beside up or down.
func findings(st *cache.Status) map[string]string {
	data := map[string]string{"stage": st.Stage.String()}
	if st.Trouble != nil {
		data["trouble"] = st.Trouble.Error()
	}
	if full := st.Full(); full >= warnFull {
		data["memory"] = fmt.Sprintf("%.0f %% of --max-bytes is taken", full*100)
	}
	if len(st.Held) > 0 {
		data["held"] = fmt.Sprintf("the memory limit is reached: partitions %v stand still until there is room; raise --max-bytes", st.Held)
	}
	return data
}
