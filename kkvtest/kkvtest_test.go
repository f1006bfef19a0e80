package kkvtest_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kkv-project/kkv"
	"github.com/kkv-project/kkv/kkvtest"
)

// Palette is an application under test: it looks colours up in a mirror of the topic.
type Palette struct{ m *kkv.Mirror }

func (p Palette) Color(thing string) string {
	e, ok := p.m.Get(thing)
	if !ok {
		return "unknown"
	}
	var v struct{ Color string }
	if err := json.Unmarshal(e.Value, &v); err != nil {
		return "garbled"
	}
	return v.Color
}

// TestPalette is a test as an application would have it: a change arrives, a delete does, and an outage does no harm.
func TestPalette(t *testing.T) {
	s := kkvtest.New(t, "colors")
	s.Put("sky", `{"color":"blue"}`)
	m, err := kkv.Open(t.Context(), kkv.Options{Servers: []string{s.URL}})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	app := Palette{m}
	if got := app.Color("sky"); got != "blue" {
		t.Errorf("by day the sky is %s", got)
	}
	arrived := func(pos kkv.Position) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := m.WaitFor(ctx, pos); err != nil {
			t.Fatal(err)
		}
	}
	arrived(s.Put("sky", `{"color":"black"}`))
	if got := app.Color("sky"); got != "black" {
		t.Errorf("by night the sky is %s", got)
	}
	s.StopKafka()
	if got := app.Color("sky"); got != "black" {
		t.Errorf("with Kafka away the sky is %s", got)
	}
	s.StartKafka()
	arrived(s.Delete("sky"))
	if got := app.Color("sky"); got != "unknown" {
		t.Errorf("after its delete the sky is %s", got)
	}
}

// TestKafkaAway: the cache serves on, refuses what it cannot know and what it cannot write, and catches up.
func TestKafkaAway(t *testing.T) {
	s := kkvtest.New(t, "colors")
	s.Put("k", "1")
	s.StopKafka()
	key := s.URL + "/v1/topics/colors/keys/k"
	if code, body := get(t, key); code != http.StatusOK || body != "1" {
		t.Errorf("a local read: %d %s", code, body)
	}
	if code, body := get(t, key+"?consistency=fresh&timeout=300ms"); code != http.StatusGatewayTimeout {
		t.Errorf("a fresh read: %d %s", code, body)
	}
	c, err := kkv.NewClient(kkv.Options{Servers: []string{s.URL}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := c.Put(ctx, "k", []byte("2")); err == nil {
		t.Error("a write without Kafka is acknowledged")
	}
	s.StartKafka()
	s.Put("k", "3")
	if e, err := c.Get(t.Context(), "k", kkv.Fresh()); err != nil || string(e.Value) != "3" {
		t.Errorf("with Kafka back a fresh read sees %q, %v", e.Value, err)
	}
}

// TestBrokers: any Kafka client can write, and the cache shows it; two Servers know nothing of each other.
func TestBrokers(t *testing.T) {
	s, other := kkvtest.New(t, "colors"), kkvtest.New(t, "colors")
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.Brokers...), kgo.DefaultProduceTopic(s.Topic))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.ProduceSync(t.Context(), kgo.KeyStringRecord("sky", "blue")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		s    *kkvtest.Server
		want error
	}{{s, nil}, {other, kkv.ErrNotFound}} {
		c, err := kkv.NewClient(kkv.Options{Servers: []string{tc.s.URL}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Get(t.Context(), "sky", kkv.Fresh()); !errors.Is(err, tc.want) {
			t.Errorf("a fresh read: %v, want %v", err, tc.want)
		}
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}
