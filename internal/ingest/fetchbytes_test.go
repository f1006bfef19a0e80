package ingest

import "testing"

func TestFetchBytes(t *testing.T) {
	for asked, want := range map[int64]int32{0: 8 << 20, -1: 8 << 20, 1: 256 << 10, 1 << 20: 1 << 20, 1 << 40: 8 << 20} {
		if got := (&Options{FetchBytes: asked}).fetchBytes(); got != want {
			t.Errorf("FetchBytes %d: %d, want %d", asked, got, want)
		}
	}
}
