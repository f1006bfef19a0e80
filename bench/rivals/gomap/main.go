// Command gomap is the rival to beat: what one writes in an hour to have a topic in memory, and done well. franz-go
// reads every partition directly, without a group, and each record is copied into one Go map. It prints "ready" once
// all partitions have reached the ends that they had at its start.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	bootstrap := flag.String("bootstrap", "", "broker, host:port")
	topic := flag.String("topic", "", "topic")
	flag.Parse()
	ctx := context.Background()

	cl, err := kgo.NewClient(kgo.SeedBrokers(*bootstrap), kgo.ConsumeTopics(*topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		log.Fatal(err)
	}
	defer cl.Close()
	// kgo has begun to fetch: nothing is lost by asking for the ends meanwhile.
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, *topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		log.Fatal(err)
	}
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})

	m := map[string][]byte{}
	for said := false; ; {
		if len(left) == 0 && !said {
			said = true
			fmt.Printf("ready keys=%d\n", len(m))
		}
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			log.Fatal(err)
		}
		fs.EachPartition(func(p kgo.FetchTopicPartition) {
			for _, r := range p.Records {
				if r.Value == nil {
					delete(m, string(r.Key))
				} else {
					m[string(r.Key)] = bytes.Clone(r.Value) // r.Value would keep its whole batch
				}
			}
			if n := len(p.Records); n > 0 && p.Records[n-1].Offset+1 >= left[p.Partition] {
				delete(left, p.Partition)
			}
		})
	}
}
