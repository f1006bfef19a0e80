package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/kkv-project/kkv/internal/kafka"
)

type topicView struct {
	Config     *configView     `json:"config,omitempty"`
	Partitions []partitionView `json:"partitions,omitempty"`
}

// configView holds what is set on the topic itself, as kafka-pixy read it from
// ZooKeeper, where the version was always 1.
type configView struct {
	Version int32             `json:"version"`
	Config  map[string]string `json:"config"`
}

type partitionView struct {
	Partition int32   `json:"partition"`
	Leader    int32   `json:"leader"`
	Replicas  []int32 `json:"replicas"`
	ISR       []int32 `json:"isr"`
}

// listTopics answers the names, or with either flag an object by name.
func (g *Gateway) listTopics(w http.ResponseWriter, r *http.Request, q query) {
	topics, err := g.o.Admin.Topics(r.Context())
	if err != nil {
		kafkaFailed(w, err)
		return
	}
	names := make([]string, 0, len(topics))
	for _, t := range topics {
		names = append(names, t.Name)
	}
	if q.count("withPartitions")+q.count("withConfig") == 0 {
		writeJSON(w, http.StatusOK, names)
		return
	}
	configs, err := g.configs(r, q, names)
	if err != nil {
		kafkaFailed(w, err)
		return
	}
	views := make(map[string]topicView, len(topics))
	for _, t := range topics {
		views[t.Name] = view(t, q, configs)
	}
	writeJSON(w, http.StatusOK, views)
}

func (g *Gateway) describeTopic(w http.ResponseWriter, r *http.Request, name string, q query) {
	t, err := g.o.Admin.Topic(r.Context(), name)
	var configs map[string]map[string]kafka.TopicConfig
	if err == nil {
		configs, err = g.configs(r, q, []string{name})
	}
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		// The original: 500 "zk: node does not exist".
		writeError(w, http.StatusNotFound, noTopic(name))
	case err != nil:
		kafkaFailed(w, err)
	default:
		writeJSON(w, http.StatusOK, view(t, q, configs))
	}
}

func (g *Gateway) configs(r *http.Request, q query, names []string) (map[string]map[string]kafka.TopicConfig, error) {
	if q.count("withConfig") == 0 {
		return nil, nil
	}
	return g.o.Admin.Configs(r.Context(), names...)
}

func view(t kafka.Topic, q query, configs map[string]map[string]kafka.TopicConfig) topicView {
	var v topicView
	if q.count("withPartitions") > 0 {
		for _, p := range t.Partitions {
			v.Partitions = append(v.Partitions, partitionView{
				Partition: p.ID, Leader: p.Leader,
				Replicas: append([]int32{}, p.Replicas...), ISR: append([]int32{}, p.ISR...),
			})
		}
	}
	if configs != nil {
		v.Config = &configView{Version: 1, Config: map[string]string{}}
		for name, c := range configs[t.Name] {
			if c.Set {
				v.Config.Config[name] = c.Value
			}
		}
	}
	return v
}

func writeError(w http.ResponseWriter, status int, text string) {
	writeJSON(w, status, struct {
		Error string `json:"error"`
	}{text})
}

// writeJSON writes JSON as recorded: indented by two spaces, without a
// newline at the end.
func writeJSON(w http.ResponseWriter, status int, body any) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(body); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	out := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(out)))
	w.WriteHeader(status)
	w.Write(out)
}
