package main

import (
	"context"
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"

	"github.com/kkv-project/kkv/internal/config"
)

// The garbage collector's own rule lets the heap double between collections. The store holds no pointers, so that a
// collection costs a few milliseconds however much it holds, and may come far more often: after slackMin more bytes, or
// slackShare of what is live, whichever is more.
const (
	slackMin   = 32 << 20
	slackShare = 5 // percent
	tuneEvery  = 100 * time.Millisecond
	idleFor    = 5 * time.Second // without a collection: then one more, and what is free goes back to the system
)

// tuneMemory keeps the heap's slack small, and below the cgroup's limit where there is one, until ctx ends. GOGC and
// GOMEMLIMIT, where they are set, are left as they are.
func tuneMemory(ctx context.Context) {
	if os.Getenv("GOMEMLIMIT") == "" {
		if limit := cgroupLimit(os.ReadFile); limit > 0 {
			debug.SetMemoryLimit(limit / 100 * 90) // the rest is for what is not Go's heap
		}
	}
	if os.Getenv("GOGC") != "" {
		return
	}
	heap := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/cycles/automatic:gc-cycles"}}
	percent, cycles, since, tidy := 100, uint64(0), time.Now(), true
	t := time.NewTicker(tuneEvery)
	defer t.Stop()
	for {
		metrics.Read(heap)
		if p := gcPercent(heap[0].Value.Uint64()); p != percent {
			percent = p
			debug.SetGCPercent(p)
		}
		if n := heap[1].Value.Uint64(); n != cycles {
			cycles, since, tidy = n, time.Now(), false
		} else if !tidy && time.Since(since) > idleFor {
			debug.FreeOSMemory()
			tidy = true
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// gcPercent is the GOGC that leaves a heap of so many live bytes its slack, in steps that keep it from changing all the time.
func gcPercent(live uint64) int {
	p := 100.0
	if live > slackMin {
		p = max(slackShare, 100*float64(slackMin)/float64(live))
	}
	return int(math.Round(p/slackShare) * slackShare)
}

// processBytes is what the process takes before it holds a record.
const processBytes = 32 << 20

// memoryLimit reads --max-bytes: "auto" is three quarters of what the control group's limit leaves beside the process itself, and no limit
// where that has none.
func memoryLimit(setting string, read func(string) ([]byte, error)) (int64, error) {
	if setting == "auto" {
		limit := cgroupLimit(read)
		return max(limit-processBytes, limit/4) / 4 * 3, nil
	}
	return config.ParseBytes(setting)
}

// cgroupLimit is the memory limit of this process's control group in bytes, 0 where there is none (cgroup v2, then v1).
func cgroupLimit(read func(string) ([]byte, error)) int64 {
	for _, file := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		b, err := read(file)
		if err != nil {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		if err != nil || n <= 0 || n >= 1<<60 { // "max", or v1's number for none
			return 0
		}
		return n
	}
	return 0
}
