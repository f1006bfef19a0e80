package cache

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestAgeOfAPartitionThatIsAdded: from when Kafka has another partition until it is read, nothing is proved current.
func TestAgeOfAPartitionThatIsAdded(t *testing.T) {
	bubble(t, 2, func(t *testing.T, w *world) {
		c := w.start()
		w.ready(c)
		pass(2 * time.Second)
		w.AddPartitions(3)
		w.Put(2, "k", "1")
		written := time.Now()
		defer w.Delay(kmsg.ListOffsets, time.Second)()
		for range 200 {
			pass(50 * time.Millisecond)
			m, err := c.Mark()
			if err != nil {
				t.Fatal(err)
			}
			if age, ok := m.Age(); ok && m.Position.Partition(2).Next < 1 && age < time.Since(written) {
				t.Fatalf("%v after a write was acknowledged, the cache is at %s without it and says that it is %v old", time.Since(written), m.Text, age)
			}
		}
		if value(c, "k") != "1" {
			t.Errorf("k=%s", value(c, "k"))
		}
	})
}
