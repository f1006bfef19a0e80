package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// What is written is read back, and the tables are made of medians.
func TestResults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.txt")
	r, err := createResults(path, []pair{{"cpu", "a b: c"}, {"scale", "1"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, ns := range []float64{4e8, 2e8, 9e8} {
		if err := r.add("Start/topic=1m/by=kkv", metric{ns, "ns/op"}, metric{300e6, "resident-B"}, metric{1.4, "resident/payload"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.add("Start/topic=1m/by=gomap", metric{8e8, "ns/op"}); err != nil {
		t.Fatal(err)
	}
	if err := r.close(0); err != nil {
		t.Fatal(err)
	}
	read, err := readResults(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := read.get("cpu"); got != "a b: c" {
		t.Errorf("cpu is %q", got)
	}
	if read.table() != r.table() {
		t.Errorf("read:\n%s\nwritten:\n%s", read.table(), r.table())
	}
	for _, want := range []string{
		"| start to ready, topic 1m, x Go map | <= 1.00 | 0.50     | reached |",
		"| resident, topic 1m, x payload      | <= 1.50 | 1.40     | reached |",
		"| 1m    | kkv   | 0.40 (0.20–0.90) | 0.50     | –                | 300 ",
	} {
		if !strings.Contains(r.table(), want) {
			t.Errorf("%q is not in:\n%s", want, r.table())
		}
	}
}
