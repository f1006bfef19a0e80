package kafkatest

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Start(t, "t", 2)
		if at := c.Put(1, "k", "v"); at != 0 {
			t.Errorf("the first record is at %d", at)
		}
		c.Delete(1, "k")
		c.Begin("x").Put(1, "aborted", "v").Abort()
		c.Begin("x").Put(1, "committed", "v").Commit()
		c.AddPartitions(3)
		c.Put(2, "k", "v")
		info := c.Fake.PartitionInfo("t", 1)
		if info.HighWatermark != 6 {
			t.Errorf("partition 1 ends at %d", info.HighWatermark)
		}
		undo := c.Delay(kmsg.Metadata, time.Second)
		began := time.Now()
		if err := c.NewClient().Ping(t.Context()); err != nil || time.Since(began) < time.Second {
			t.Errorf("pinged in %v, %v", time.Since(began), err)
		}
		undo()
		before := c.Fake.TopicInfo("t").TopicID
		c.DeleteTopic()
		c.CreateTopic(1, nil)
		if at := c.Put(0, "k", "v"); at != 0 || c.Fake.TopicInfo("t").TopicID == before {
			t.Errorf("made again, its first record is at %d", at)
		}
		c.Away(true)
		if cl := c.NewClient(kgo.Dialer(c.Dial), kgo.RequestRetries(0)); cl.Ping(t.Context()) == nil {
			t.Error("reached a cluster that is away")
		}
	})
}
