package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/kkv-project/kkv/bench/dataset"
)

// churn overwrites every key ten times under a running kkv and compares its memory with that of a fresh load.
func (b *bench) churn(ctx context.Context) error {
	t := dataset.Topic{Name: "rewrite", Keys: max(1, 1_000_000/b.scale), Writes: 1, ValueBytes: 215 - dataset.KeyBytes, Partitions: 4}
	br, err := b.kafka(ctx, t)
	if err != nil {
		return err
	}
	c, address, err := b.readyKkv(ctx, br, t)
	if err != nil {
		return err
	}
	defer c.kill()
	if err := listable(ctx, address); err != nil {
		return err
	}
	fresh, err := b.settled(ctx, c)
	if err != nil {
		return err
	}
	if err := b.results.add("Churn/state=fresh", metric{fresh.resident, "resident-B"}, metric{fresh.peak, "peak-B"}); err != nil {
		return err
	}

	const writes = 10
	began := time.Now()
	if err := b.load(ctx, t, 1, 1+writes); err != nil {
		return err
	}
	want := int64(t.Keys) * (1 + writes)
	for {
		n, err := positions(ctx, address, t.Name)
		if err != nil {
			return err
		}
		if n >= want {
			break
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	rate := float64(t.Keys*writes) / time.Since(began).Seconds()
	churned, err := b.settled(ctx, c)
	if err != nil {
		return err
	}
	if err := newest(ctx, address, t, writes); err != nil {
		return err
	}
	err = b.results.add("Churn/state=overwritten", metric{churned.resident, "resident-B"}, metric{churned.peak, "peak-B"},
		metric{round(churned.resident/fresh.resident, 3), "resident/fresh"}, metric{round(rate, 0), "writes/s"})
	if err != nil {
		return err
	}
	return b.remove(ctx, t)
}

type footprint struct{ resident, peak float64 }

// settled is the memory after what was freed has had time to go back to the system: as long for either state.
func (b *bench) settled(ctx context.Context, c *child) (footprint, error) {
	if err := pause(ctx, 5*b.settle); err != nil {
		return footprint{}, err
	}
	resident, peak, err := c.memory()
	return footprint{float64(resident), float64(peak)}, err
}

// positions is how many records kkv has read, over all partitions.
func positions(ctx context.Context, address, topic string) (n int64, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/v1/topics/"+topic, nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var status struct {
		Partitions []struct {
			Position int64 `json:"position"`
		} `json:"partitions"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&status); err != nil {
		return 0, fmt.Errorf("GET /v1/topics/%s: %w", topic, err)
	}
	for _, p := range status.Partitions {
		n += p.Position
	}
	return n, nil
}

// newest checks that kkv answers a hundred keys with that version of their values.
func newest(ctx context.Context, address string, t dataset.Topic, version int) error {
	for key := 0; key < t.Keys; key += max(1, t.Keys/100) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/cache/v1/raw/"+string(dataset.AppendKey(nil, key)), nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		value, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			return err
		}
		if want := t.AppendValue(nil, key, version); string(value) != string(want) {
			return fmt.Errorf("key %d of %s has the value %q, not %q", key, t.Name, value, want)
		}
	}
	return nil
}
