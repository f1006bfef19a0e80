package kafkaproof

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kkv-project/kkv/test/apachekafka"
	"github.com/kkv-project/kkv/test/harness"
)

// TestThreeBrokers: what happens to leaders. Its parts share the cluster, one after the other, for they kill its brokers.
func TestThreeBrokers(t *testing.T) {
	brokers := apachekafka.StartCluster(t, 3)
	var addresses []string
	for _, b := range brokers {
		addresses = append(addresses, b.Bootstrap)
	}
	c := &cluster{connect(t, strings.Join(addresses, ",")), brokers}
	t.Run("LeaderKills", c.testLeaderKills)
	t.Run("UncleanElection", c.testUncleanElection)
}

type cluster struct {
	*kafka
	brokers []*apachekafka.Broker
}

// leader returns the broker that leads the partition, once there is one and all its replicas are in sync.
func (c *cluster) leader(t testing.TB, topic string, partition int32, inSync int) *apachekafka.Broker {
	t.Helper()
	var leader int32
	harness.Eventually(t, patience, nil, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		details, err := c.admin.ListTopics(ctx, topic)
		if err != nil {
			return err
		}
		if len(details[topic].Partitions) == 0 {
			return fmt.Errorf("topic %s: no partitions, %w", topic, details[topic].Err)
		}
		for _, p := range details[topic].Partitions {
			if p.Err != nil || p.Leader < 0 || len(p.ISR) < inSync {
				return fmt.Errorf("partition %+v, want %d in sync", p, inSync)
			}
		}
		leader = details[topic].Partitions[partition].Leader
		return nil
	})
	return c.brokers[leader-1]
}

// testUncleanElection: a replica that lacks acknowledged records becomes leader. kkv follows the log that there is now; positions in
// the part that was lost are refused.
func (c *cluster) testUncleanElection(t *testing.T) {
	// On brokers 1 and 2; the third keeps the quorum of controllers.
	const topic = "unclean"
	req := kmsg.NewPtrCreateTopicsRequest()
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = topic, -1, -1
	assignment := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
	assignment.Replicas = []int32{1, 2}
	rt.ReplicaAssignment = append(rt.ReplicaAssignment, assignment)
	for name, value := range map[string]string{"cleanup.policy": "compact", "unclean.leader.election.enable": "true", "min.insync.replicas": "1"} {
		config := kmsg.NewCreateTopicsRequestTopicConfig()
		config.Name, config.Value = name, &value
		rt.Configs = append(rt.Configs, config)
	}
	req.Topics = append(req.Topics, rt)
	res, err := req.RequestWith(t.Context(), c.client)
	if err == nil {
		err = kerr.ErrorForCode(res.Topics[0].ErrorCode)
	}
	if err != nil {
		t.Fatalf("create topic: %v", err)
	}
	apachekafka.AwaitTopic(t, c.client, topic, 1)
	c.leader(t, topic, 0, 2)
	first, second := c.brokers[0], c.brokers[1]

	plain := c.producer(t, topic)
	send(t, plain, record(0, "kept", []byte("1")), record(0, "changed", []byte("1")))
	r := c.serve(t, topic)
	kept := r.want(t, "changed", "1", fresh)
	first.Kill()
	// Acknowledged by the second alone.
	for i := range 10 {
		send(t, plain, record(0, fmt.Sprint("lost-", i), []byte("1")), record(0, "changed", []byte("lost")))
	}
	lost := r.want(t, "lost-9", "1", fresh)
	w := r.watch(t, "")
	w.until(synced)
	second.Kill()
	first.Restart()

	// The first now leads, with other records where the lost ones were.
	plain = c.producer(t, topic)
	send(t, plain, record(0, "other", []byte("1")))
	harness.Eventually(t, patience, r.Process, func() error {
		if res := r.get(t, "lost-9"); res.Status != 404 {
			return fmt.Errorf("lost-9 is %s, want it gone", res)
		}
		return nil
	})
	r.want(t, "other", "1", fresh)
	r.want(t, "changed", "1", atLeast(kept))
	r.wantLog(t, c.kafka)
	wantProblem(t, "a position in the lost part", r.get(t, "kept", atLeast(lost), "Kkv-Timeout: 1s"), 409, "position-truncated")
	w.until(func(e event) bool { return e.Type == "reset" })
	want := []string{"reset position-truncated", "put changed=1", "put kept=1", "put other=1", "synced"}
	if diff := cmp.Diff(want, brief(r.watch(t, lost).until(synced))); diff != "" {
		t.Errorf("watch since a position in the lost part (-want +got):\n%s", diff)
	}
	// The log grows past where it was lost; that changes nothing.
	for i := range 30 {
		send(t, plain, record(0, "other", fmt.Append(nil, i)))
	}
	r.want(t, "other", "29", fresh)
	wantProblem(t, "a position in the lost part, later", r.get(t, "kept", atLeast(lost), "Kkv-Timeout: 1s"), 409, "position-truncated")
	second.Restart()
	c.leader(t, topic, 0, 2)
	r.wantLog(t, c.kafka)
}
