package kkv_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"

	"github.com/kkv-project/kkv"
	"github.com/kkv-project/kkv/internal/cachetest"
)

// server stands in for a cache beside the application: kkv dev, or kkv serve.
func server() (url string, stop func()) {
	s := cachetest.New("sidecar-demo")
	s.Put("A", `{"id":"A","color":"red"}`)
	h := httptest.NewServer(s)
	return h.URL, func() { h.CloseClientConnections(); h.Close() }
}

// A Mirror holds the topic in memory; a write is visible in it when Put returns.
func Example() {
	url, stop := server()
	defer stop()
	ctx := context.Background()

	m, err := kkv.Open(ctx, kkv.Options{Servers: []string{url}, Topic: "sidecar-demo"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer m.Close()
	if err := m.Ready(ctx); err != nil {
		fmt.Println(err)
		return
	}
	if _, err := m.Put(ctx, "B", []byte(`{"id":"B","color":"blue"}`)); err != nil {
		fmt.Println(err)
		return
	}
	for key, e := range m.All("") {
		fmt.Println(key, string(e.Value))
	}
	// Output:
	// A {"id":"A","color":"red"}
	// B {"id":"B","color":"blue"}
}

// OnUpdate tells of every change, once Get shows it.
func ExampleMirror_OnUpdate() {
	url, stop := server()
	defer stop()
	ctx := context.Background()
	m, err := kkv.Open(ctx, kkv.Options{Servers: []string{url}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer m.Close()
	if err := m.Ready(ctx); err != nil {
		fmt.Println(err)
		return
	}

	heard := make(chan kkv.Update)
	defer m.OnUpdate(func(u kkv.Update) { heard <- u })()
	if _, err := m.Put(ctx, "A", []byte(`{"id":"A","color":"green"}`)); err != nil {
		fmt.Println(err)
		return
	}
	u := <-heard
	fmt.Println(u.Key, "is now", string(u.Value))
	// Output: A is now {"id":"A","color":"green"}
}

// A Client asks a server for each read, and carries its position from one call to the next.
func ExampleClient() {
	url, stop := server()
	defer stop()
	ctx := context.Background()
	c, err := kkv.NewClient(kkv.Options{Servers: []string{url}, Topic: "sidecar-demo"})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := c.Ready(ctx); err != nil {
		fmt.Println(err)
		return
	}
	e, err := c.Get(ctx, "A")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(string(e.Value))
	if _, err = c.Delete(ctx, "A"); err != nil {
		fmt.Println(err)
		return
	}
	_, err = c.Get(ctx, "A")
	fmt.Println("gone:", errors.Is(err, kkv.ErrNotFound))
	// Output:
	// {"id":"A","color":"red"}
	// gone: true
}

// A watch gives the state, a Synced, and then every change as it comes.
func ExampleClient_Watch() {
	url, stop := server()
	defer stop()
	c, err := kkv.NewClient(kkv.Options{Servers: []string{url}, Topic: "sidecar-demo"})
	if err != nil {
		fmt.Println(err)
		return
	}
	for ch, err := range c.Watch(context.Background(), kkv.WatchOptions{Prefix: "A"}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(strings.TrimSpace(ch.Kind.String() + " " + ch.Key))
		if ch.Kind == kkv.Synced {
			break
		}
	}
	// Output:
	// put A
	// synced
}

// A watch can go on where an earlier one ended: what was put and deleted in between comes first.
func ExampleClient_Watch_since() {
	url, stop := server()
	defer stop()
	ctx := context.Background()
	c, err := kkv.NewClient(kkv.Options{Servers: []string{url}, Topic: "sidecar-demo"})
	if err != nil {
		fmt.Println(err)
		return
	}
	var last kkv.Position // may be stored as text, and given to any replica
	for ch, err := range c.Watch(ctx, kkv.WatchOptions{SinceNow: true}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		last = ch.Position
		break
	}
	if _, err := c.Delete(ctx, "A"); err != nil {
		fmt.Println(err)
		return
	}
	for ch, err := range c.Watch(ctx, kkv.WatchOptions{Since: last}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(strings.TrimSpace(ch.Kind.String() + " " + ch.Key))
		if ch.Kind == kkv.Synced {
			break
		}
	}
	// Output:
	// delete A
	// synced
}

// Sync makes a mirror show every write that was acknowledged before, whoever made it.
func ExampleMirror_Sync() {
	url, stop := server()
	defer stop()
	ctx := context.Background()
	m, err := kkv.Open(ctx, kkv.Options{Servers: []string{url}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer m.Close()
	if err := m.Ready(ctx); err != nil {
		fmt.Println(err)
		return
	}
	other, err := kkv.NewClient(kkv.Options{Servers: []string{url}})
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := other.Put(ctx, "B", []byte("blue")); err != nil {
		fmt.Println(err)
		return
	}
	if err := m.Sync(ctx); err != nil {
		fmt.Println(err)
		return
	}
	e, _ := m.Get("B")
	fmt.Println(string(e.Value))
	// Output: blue
}

// A list is the keys with a prefix, in order, all at one position.
func ExampleClient_List() {
	url, stop := server()
	defer stop()
	c, err := kkv.NewClient(kkv.Options{Servers: []string{url}})
	if err != nil {
		fmt.Println(err)
		return
	}
	for e, err := range c.List(context.Background(), "", kkv.Fresh()) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(e.Key, string(e.Value))
	}
	// Output: A {"id":"A","color":"red"}
}
