package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kkv-project/kkv/bench/dataset"
)

// loadHTTP is wrk in short, for machines that lack it: kept-alive connections, each one request at a time, random keys. It
// takes more of the processor than wrk does, so that its numbers are lower; they compare among themselves.
func loadHTTP(ctx context.Context, address, prefix string, keys int, d time.Duration, headers ...string) ([]metric, error) {
	took := make([][]time.Duration, getConnections)
	began := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for i := range took {
		g.Go(func() (err error) {
			took[i], err = loadConnection(ctx, address, prefix, keys, began.Add(d), headers)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	elapsed := time.Since(began).Seconds()
	all := slices.Concat(took...)
	if len(all) == 0 {
		return nil, fmt.Errorf("no answer from %s within %v", address, d)
	}
	slices.Sort(all)
	return []metric{{round(float64(len(all))/elapsed, 0), "req/s"}, {float64(all[len(all)/2].Nanoseconds()), "p50-ns"},
		{float64(all[len(all)*99/100].Nanoseconds()), "p99-ns"}}, nil
}

func loadConnection(ctx context.Context, address, prefix string, keys int, until time.Time, headers []string) (took []time.Duration, err error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	end := " HTTP/1.1\r\nHost: " + address + "\r\n"
	for _, h := range headers {
		end += h + "\r\n"
	}
	end += "\r\n"
	var req []byte
	for ctx.Err() == nil {
		began := time.Now()
		if began.After(until) {
			return took, nil
		}
		req = append(req[:0], "GET "...)
		req = dataset.AppendKey(append(req, prefix...), rand.IntN(keys))
		req = append(req, end...)
		if _, err := conn.Write(req); err != nil {
			return nil, err
		}
		if err := readAnswer(r); err != nil {
			return nil, err
		}
		took = append(took, time.Since(began))
	}
	return nil, ctx.Err()
}

// readAnswer reads an answer of status 200 with a Content-Length.
func readAnswer(r *bufio.Reader) error {
	length := -1
	for first := true; ; first = false {
		l, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if first && !bytes.HasPrefix(l, []byte("HTTP/1.1 200 ")) {
			return fmt.Errorf("answer: %q", l)
		}
		if l = bytes.TrimSpace(l); len(l) == 0 {
			break
		}
		if text, ok := bytes.CutPrefix(l, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(text)); err != nil {
				return err
			}
		}
	}
	if length < 0 {
		return fmt.Errorf("answer without Content-Length")
	}
	_, err := io.CopyN(io.Discard, r, int64(length))
	return err
}
