package main

import (
	"errors"
	"testing"
)

func TestGCPercent(t *testing.T) {
	for live, want := range map[uint64]int{0: 100, 1 << 20: 100, 32 << 20: 100, 64 << 20: 50, 128 << 20: 25, 256 << 20: 15, 640 << 20: 5, 10 << 30: 5} {
		if got := gcPercent(live); got != want {
			t.Errorf("gcPercent(%d) = %d, want %d", live, got, want)
		}
	}
}

func TestCgroupLimit(t *testing.T) {
	for _, tc := range []struct {
		v2, v1 string
		want   int64
	}{{"104857600\n", "", 104857600}, {"max\n", "", 0}, {"", "104857600\n", 104857600}, {"", "9223372036854771712\n", 0}, {"", "", 0}} {
		got := cgroupLimit(func(file string) ([]byte, error) {
			text := tc.v1
			if file == "/sys/fs/cgroup/memory.max" {
				text = tc.v2
			}
			if text == "" {
				return nil, errors.New("no such file")
			}
			return []byte(text), nil
		})
		if got != tc.want {
			t.Errorf("%+v: %d", tc, got)
		}
	}
}

// In a small container what the process takes by itself counts; it would be killed while it loads.
func TestMemoryLimit(t *testing.T) {
	for limit, want := range map[string]int64{"max": 0, "104857600": (100 - 32) << 20 / 4 * 3, "16777216": 3 << 20, "1073741824": (1024 - 32) << 20 / 4 * 3} {
		got, err := memoryLimit("auto", func(string) ([]byte, error) { return []byte(limit), nil })
		if err != nil || got != want {
			t.Errorf("auto within %s: %d, %v; want %d", limit, got, err, want)
		}
	}
	if got, err := memoryLimit("2GiB", nil); err != nil || got != 2<<30 {
		t.Errorf("2GiB: %d, %v", got, err)
	}
}
