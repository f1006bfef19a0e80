// Package kkv is the Go client of kkv, the never-stale, update-pushing key-value cache on Kafka. It needs nothing
// but the standard library.
//
// There are two ways to read a topic. A [Mirror] holds it in the application's own memory and is kept current by
// one watch: Get takes no network, and OnUpdate tells of every change.
//
//	m, err := kkv.Open(ctx, kkv.Options{Servers: []string{"http://127.0.0.1:8091"}, Topic: "sidecar-demo"})
//	if err != nil {
//		return err
//	}
//	defer m.Close()
//	if err := m.Ready(ctx); err != nil {
//		return err
//	}
//	stop := m.OnUpdate(func(u kkv.Update) { fmt.Println(u.Key, "changed") })
//	defer stop()
//	_, err = m.Put(ctx, "A", []byte(`{"id":"A","color":"red"}`)) // returns when m.Get shows it
//
// A [Client] makes one request a call and holds nothing but the position that it has seen so far. Its [Client.Watch] is
// for those who keep the state themselves: it survives lost connections and servers, and can go on where another process
// stopped.
//
// What a server promises about order and freshness is written in docs/guarantees.md. Here it comes down to this:
// a Mirror never shows an older value of a key after a newer one, and its [Mirror.All] is the topic as it was at one
// [Position]. Positions travel as opaque text; any replica of the topic understands them.
package kkv
