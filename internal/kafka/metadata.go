package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Topic is what a broker knows of a topic at one moment.
type Topic struct {
	Name       string
	ID         [16]byte    // zero before Kafka 2.8 (KIP-516)
	Partitions []Partition // by ID, ascending
	Internal   bool        // such as __consumer_offsets
}

// Partition is one partition of a Topic.
type Partition struct {
	ID       int32
	Leader   int32 // -1 if there is none
	Epoch    int32 // leader epoch; -1 before Kafka 2.1
	Replicas []int32
	ISR      []int32
	Err      error // such as LEADER_NOT_AVAILABLE; nil if all is well
}

// Metadata asks a broker about one topic, now: kadm's answers may be 5 s old.
// A topic that does not exist is an error that errors.Is
// kerr.UnknownTopicOrPartition; it is never created by asking.
func Metadata(ctx context.Context, cl *kgo.Client, topic string) (Topic, error) {
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = kmsg.StringPtr(topic)
	resp, err := metadata(ctx, cl, []kmsg.MetadataRequestTopic{rt})
	if err != nil {
		return Topic{}, fmt.Errorf("metadata of topic %s: %w", topic, err)
	}
	for i := range resp.Topics {
		t := &resp.Topics[i]
		if t.Topic == nil || *t.Topic != topic {
			continue
		}
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			return Topic{}, fmt.Errorf("metadata of topic %s: %w", topic, err)
		}
		return topicOf(t), nil
	}
	return Topic{}, fmt.Errorf("metadata of topic %s: the broker did not answer for it", topic)
}

// Topics asks a broker for every topic that we may describe, internal ones
// included, ordered by name.
func Topics(ctx context.Context, cl *kgo.Client) ([]Topic, error) {
	resp, err := metadata(ctx, cl, nil)
	if err != nil {
		return nil, fmt.Errorf("list topics: %w", err)
	}
	var topics []Topic
	for i := range resp.Topics {
		t := &resp.Topics[i]
		// A topic that is just being deleted is not there.
		if t.Topic == nil || errors.Is(kerr.ErrorForCode(t.ErrorCode), kerr.UnknownTopicOrPartition) {
			continue
		}
		topics = append(topics, topicOf(t))
	}
	slices.SortFunc(topics, func(a, b Topic) int { return cmp.Compare(a.Name, b.Name) })
	return topics, nil
}

func metadata(ctx context.Context, cl *kgo.Client, topics []kmsg.MetadataRequestTopic) (*kmsg.MetadataResponse, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = topics // nil is all
	req.AllowAutoTopicCreation = false
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return nil, err
	}
	return resp, kerr.ErrorForCode(resp.ErrorCode)
}

func topicOf(t *kmsg.MetadataResponseTopic) Topic {
	out := Topic{Name: *t.Topic, ID: t.TopicID, Internal: t.IsInternal}
	for _, p := range t.Partitions {
		out.Partitions = append(out.Partitions, Partition{
			ID: p.Partition, Leader: p.Leader, Epoch: p.LeaderEpoch,
			Replicas: p.Replicas, ISR: p.ISR, Err: kerr.ErrorForCode(p.ErrorCode),
		})
	}
	slices.SortFunc(out.Partitions, func(a, b Partition) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// CreateTopic makes a topic and waits until it can be written to, or ctx
// ends. Partitions or replication of -1 take the broker's defaults. A topic
// that already exists is left as it is, which is not an error.
func CreateTopic(ctx context.Context, cl *kgo.Client, name string, partitions int32, replication int16, configs map[string]string) error {
	if !LegalTopicName(name) {
		return fmt.Errorf("create topic %q: %w", name, kerr.InvalidTopicException)
	}
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = name, partitions, replication
	for _, k := range slices.Sorted(maps.Keys(configs)) {
		rc := kmsg.NewCreateTopicsRequestTopicConfig()
		rc.Name, rc.Value = k, kmsg.StringPtr(configs[k])
		rt.Configs = append(rt.Configs, rc)
	}
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Topics = []kmsg.CreateTopicsRequestTopic{rt}
	req.TimeoutMillis = 10_000
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return fmt.Errorf("create topic %s: %w", name, err)
	}
	for _, t := range resp.Topics {
		err := kerr.ErrorForCode(t.ErrorCode)
		if t.Topic != name || err == nil || errors.Is(err, kerr.TopicAlreadyExists) {
			continue
		}
		if t.ErrorMessage != nil && *t.ErrorMessage != "" {
			return fmt.Errorf("create topic %s: %w: %s", name, err, *t.ErrorMessage)
		}
		return fmt.Errorf("create topic %s: %w", name, err)
	}
	return awaitLeaders(ctx, cl, name)
}

// awaitLeaders waits until every partition has a leader: the controller
// answers before all brokers know of the topic.
func awaitLeaders(ctx context.Context, cl *kgo.Client, name string) error {
	for try := 1; ; try++ {
		t, err := Metadata(ctx, cl, name)
		if err == nil && !slices.ContainsFunc(t.Partitions, func(p Partition) bool { return p.Leader < 0 }) {
			return nil
		}
		if err != nil && Classify(err) == Fatal {
			return err
		}
		pause := time.NewTimer(backoff(try))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return fmt.Errorf("wait for topic %s to get leaders: %w", name, ctx.Err())
		}
	}
}

// TopicConfig is one setting of a topic.
type TopicConfig struct {
	Value string // "" too for a sensitive one, which Kafka does not tell
	Set   bool   // set on the topic itself, not inherited from the broker
}

// TopicConfigs describes the settings of topics: those named, or all if names
// is empty. The result is by topic, then by name.
func TopicConfigs(ctx context.Context, cl *kgo.Client, topics []string, names ...string) (map[string]map[string]TopicConfig, error) {
	out := make(map[string]map[string]TopicConfig, len(topics))
	if len(topics) == 0 {
		return out, nil
	}
	req := kmsg.NewPtrDescribeConfigsRequest()
	for _, t := range topics {
		rr := kmsg.NewDescribeConfigsRequestResource()
		rr.ResourceType, rr.ResourceName, rr.ConfigNames = kmsg.ConfigResourceTypeTopic, t, names
		req.Resources = append(req.Resources, rr)
	}
	fail := func(err error) error {
		return fmt.Errorf("describe configs of %s: %w", strings.Join(topics, ", "), err)
	}
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return nil, fail(err)
	}
	for _, r := range resp.Resources {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			return nil, fail(err)
		}
		configs := map[string]TopicConfig{}
		for _, c := range r.Configs {
			tc := TopicConfig{Set: c.Source == kmsg.ConfigSourceDynamicTopicConfig}
			if c.Value != nil {
				tc.Value = *c.Value
			}
			configs[c.Name] = tc
		}
		out[r.ResourceName] = configs
	}
	return out, nil
}

// Admin answers questions about topics on a client that somebody else owns.
// It is safe for concurrent use.
type Admin struct{ Client *kgo.Client }

// Topics lists every topic; see the function Topics.
func (a Admin) Topics(ctx context.Context) ([]Topic, error) { return Topics(ctx, a.Client) }

// Topic describes one; see Metadata.
func (a Admin) Topic(ctx context.Context, name string) (Topic, error) {
	return Metadata(ctx, a.Client, name)
}

// Configs describes the settings of topics; see TopicConfigs.
func (a Admin) Configs(ctx context.Context, topics ...string) (map[string]map[string]TopicConfig, error) {
	return TopicConfigs(ctx, a.Client, topics)
}

// LegalTopicName tells whether Kafka would accept a topic of that name: 1 to
// 249 of a-z A-Z 0-9 . _ - and neither . nor .. (Kafka's Topic.validate).
func LegalTopicName(name string) bool {
	if name == "" || name == "." || name == ".." || len(name) > 249 {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}
