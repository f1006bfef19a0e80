package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// healthRoutes are the original's paths and Kubernetes' own.
var healthRoutes = map[string]func(*Server, http.ResponseWriter){
	"/q/health/ready": (*Server).healthReady, "/health/ready": (*Server).healthReady, "/readyz": (*Server).healthReady, "/ready": (*Server).healthReady,
	"/q/health/live": (*Server).healthLive, "/health/live": (*Server).healthLive, "/livez": (*Server).healthLive,
	"/q/health": (*Server).healthLive, "/health": (*Server).healthLive,
}

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
func (s *Server) healthReady(w http.ResponseWriter) {
	ready := false
	select {
	case <-s.cache.Ready():
		ready = !s.isDraining()
	default:
	}
	if st := s.cache.Status(); s.o.UnreadyAtLimit && len(st.Held) > 0 {
		ready = false
	}
	s.health(w, ready)
}

// healthLive never depends on Kafka: a restart would not bring it back, and would lose what is served.
func (s *Server) healthLive(w http.ResponseWriter) { s.health(w, true) }

func (s *Server) health(w http.ResponseWriter, up bool) {
	st := s.cache.Status()
	word, code := "UP", http.StatusOK
	if !up {
		word, code = "DOWN", http.StatusServiceUnavailable
	}
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
	b, _ := json.Marshal(health{Status: word, Checks: []check{{Name: "consume-loop", Status: word, Data: data}}}) // strings: cannot fail
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.Header().Set("Cache-Control", "no-cache")
	w.WriteHeader(code)
	_, _ = w.Write(append(b, '\n')) // the client is gone if this fails
}
