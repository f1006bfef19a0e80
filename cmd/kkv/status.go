package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kkv-project/kkv/internal/config"
)

// topicStatus is what people want to know of the answer of GET /v1/topics.
type topicStatus struct {
	Topic     string
	Stage     string
	Trouble   string
	Keys      int
	Bytes     int64
	Conflicts int
	Held      []int32 `json:"heldPartitions"`
	Replay    *struct {
		Percent          float64
		RecordsPerSecond int64
	}
	Partitions []struct {
		Partition int32
		Position  int64
		End       *int64
		AgeMs     *int64
	}
}

// runStatus is `kkv status`: every cache that is named is asked, and one that does not answer is an error in the end.
func runStatus(ctx context.Context, s *config.Status, stdout io.Writer) error {
	var failed []string
	for i, server := range s.Server {
		topics, err := askStatus(ctx, s, server)
		if err != nil {
			failed = append(failed, fmt.Sprintf("%s: %v", config.Redact(server), err))
			continue
		}
		if s.Output == "json" {
			err = json.NewEncoder(stdout).Encode(map[string]any{"server": config.Redact(server), "topics": topics})
		} else {
			if i > 0 {
				fmt.Fprintln(stdout)
			}
			err = printStatus(stdout, config.Redact(server), topics)
		}
		if err != nil {
			return err
		}
	}
	if failed != nil {
		return &clientError{exitError, strings.Join(failed, "\n")}
	}
	return nil
}

// askStatus returns the topics of a cache, each as it sent it.
func askStatus(ctx context.Context, s *config.Status, server string) ([]json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	target := strings.TrimRight(server, "/") + "/v1/topics"
	if s.Topic != "" {
		target += "/" + url.PathEscape(s.Topic)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	if s.Token != "" {
		req.Header.Set("Authorization", "Bearer "+s.Token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		var problem struct{ Title, Detail string }
		_ = json.Unmarshal(body, &problem) // what is no problem document has nothing to say
		return nil, fmt.Errorf("answered %s: %s: %s", resp.Status, problem.Title, problem.Detail)
	}
	if s.Topic != "" {
		return []json.RawMessage{body}, nil
	}
	var list struct{ Topics []json.RawMessage }
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, fmt.Errorf("what it answers is not the status of a cache: %w", err)
	}
	return list.Topics, nil
}

func printStatus(w io.Writer, server string, topics []json.RawMessage) error {
	var b bytes.Buffer
	for _, raw := range topics {
		var t topicStatus
		if err := json.Unmarshal(raw, &t); err != nil {
			return fmt.Errorf("%s: what it answers is not the status of a cache: %w", server, err)
		}
		fmt.Fprintf(&b, "%s  topic %s  stage %s  keys %d  bytes %d\n", server, t.Topic, t.Stage, t.Keys, t.Bytes)
		if t.Trouble != "" {
			fmt.Fprintf(&b, "trouble: %s\n", t.Trouble)
		}
		if t.Conflicts > 0 {
			fmt.Fprintf(&b, "conflicts: %d keys live in several partitions\n", t.Conflicts)
		}
		if r := t.Replay; r != nil {
			fmt.Fprintf(&b, "loading: %.1f %%, %d records/s\n", r.Percent, r.RecordsPerSecond)
		}
		if len(t.Held) > 0 {
			fmt.Fprintf(&b, "memory limit: partitions %v stand still until there is room; raise --max-bytes\n", t.Held)
		}
		tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(tw, "partition\tposition\tend\tbehind\tage\t")
		for _, p := range t.Partitions {
			end, behind := "?", "?"
			if p.End != nil {
				end, behind = strconv.FormatInt(*p.End, 10), strconv.FormatInt(max(0, *p.End-p.Position), 10)
			}
			age := "?"
			if p.AgeMs != nil {
				age = (time.Duration(*p.AgeMs) * time.Millisecond).String()
			}
			fmt.Fprintf(tw, "%d\t%d\t%s\t%s\t%s\t\n", p.Partition, p.Position, end, behind, age)
		}
		_ = tw.Flush() // into memory
	}
	_, err := b.WriteTo(w)
	return err
}
