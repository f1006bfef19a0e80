package position

import (
	"errors"
	"math"
	"testing"
	"time"
)

var id = [16]byte{0xab, 0xcd, 0xef, 0x12, 0x34, 0x56, 0x78, 0x90, 0x12, 0x34, 0x56, 0x78, 0x90, 0x12, 0x34, 0x56}

func vec(next ...int64) Position {
	parts := make([]Partition, len(next))
	for i, n := range next {
		parts[i] = Partition{Next: n}
	}
	return New(id, time.UnixMilli(1795485600000), parts)
}

func TestText(t *testing.T) {
	for _, tc := range []struct {
		name string
		p    Position
		want string
	}{
		{"zero", Position{}, ""},
		{"plain", vec(3, 1, 0), "q83vEjRWeJASNFZ4kBI0Vg~mwu1rnk0~3.1.0"},
		{"absent in the middle", vec(3, Absent, 7), "q83vEjRWeJASNFZ4kBI0Vg~mwu1rnk0~3..7"},
		{"trailing absent goes", vec(3, Absent), "q83vEjRWeJASNFZ4kBI0Vg~mwu1rnk0~3"},
		{"epochs and starts", New(id, time.UnixMilli(1795485600000), []Partition{{9, 2, 4}, {7, 0, 5}, {1, EpochUnknown, 0}}), "q83vEjRWeJASNFZ4kBI0Vg~mwu1rnk0~9-2_4.7_5.1-"},
		{"largest", New(id, time.Time{}, []Partition{{math.MaxInt64, math.MaxInt32, math.MaxInt64}}), "q83vEjRWeJASNFZ4kBI0Vg~~9223372036854775807-2147483647_9223372036854775807"},
		{"write", FromWrite(id, 2, 41), "q83vEjRWeJASNFZ4kBI0Vg~~..42-"},
		{"topic without partitions", New(id, time.Time{}, nil), "q83vEjRWeJASNFZ4kBI0Vg~~"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.p.String(); got != tc.want {
				t.Errorf("String() = %q, want %q", got, tc.want)
			}
			back, err := Parse(tc.want)
			if err != nil || back.String() != tc.want || !back.Covers(tc.p) || !tc.p.Covers(back) {
				t.Errorf("Parse(%q) = %v, %v", tc.want, back, err)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for _, s := range []string{"~", "x", "q83vEjRWeJASNFZ4kBI0Vg", "q83vEjRWeJASNFZ4kBI0Vg~1", "q83vEjRWeJASNFZ4kBI0~1~3",
		"q83vEjRWeJASNFZ4kBI0Vg~-1~3", "q83vEjRWeJASNFZ4kBI0Vg~+1~3", "q83vEjRWeJASNFZ4kBI0Vg~1~-3", "q83vEjRWeJASNFZ4kBI0Vg~1~+3",
		"q83vEjRWeJASNFZ4kBI0Vg~1~3-x", "q83vEjRWeJASNFZ4kBI0Vg~1~3_", "q83vEjRWeJASNFZ4kBI0Vg~1~3~4", "q83vEjRWeJASNFZ4kBI0Vg~1~9223372036854775808",
		"q83vEjRWeJASNFZ4kBI0Vg~1~3-2147483648", "0:17"} {
		if p, err := Parse(s); !errors.Is(err, ErrSyntax) {
			t.Errorf("Parse(%q) = %v, %v, want ErrSyntax", s, p, err)
		}
	}
}

func TestCoversAndMerge(t *testing.T) {
	other := id
	other[0]++
	later := New(other, time.UnixMilli(1895485600000), []Partition{{Next: 1}})
	for _, tc := range []struct {
		name   string
		p, q   Position
		pq, qp bool // p covers q, q covers p
		merged string
	}{
		{"equal", vec(1, 2), vec(1, 2), true, true, "~mwu1rnk0~1.2"},
		{"ahead", vec(2, 2), vec(1, 2), true, false, "~mwu1rnk0~2.2"},
		{"side by side", vec(2, 1), vec(1, 2), false, false, "~mwu1rnk0~2.2"},
		{"absent demands nothing", vec(0), vec(Absent, 3), false, false, "~mwu1rnk0~0.3"},
		{"shorter", vec(1, 2), vec(1), true, false, "~mwu1rnk0~1.2"},
		{"zero", vec(1), Position{}, true, false, "~mwu1rnk0~1"},
		{"a write beside is never proved", vec(5, 5), FromWrite(id, 0, 7), false, false, "~~8-.5"},
		{"a write below changes nothing", vec(5, 5), FromWrite(id, 0, 4), true, false, "~mwu1rnk0~5.5"},
		{"another incarnation: the later", vec(9), later, false, false, "~o6rv6pds~1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.p.Covers(tc.q); got != tc.pq {
				t.Errorf("p covers q: %v", got)
			}
			if got := tc.q.Covers(tc.p); got != tc.qp {
				t.Errorf("q covers p: %v", got)
			}
			for _, m := range []Position{tc.p.Merge(tc.q), tc.q.Merge(tc.p)} {
				if got := m.String()[22:]; got != tc.merged {
					t.Errorf("merged %q, want %q", got, tc.merged)
				}
			}
		})
	}
}

// FuzzParse: no panic, and what is accepted round-trips to the same order.
func FuzzParse(f *testing.F) {
	f.Add("q83vEjRWeJASNFZ4kBI0Vg~mwu1rnk0~9-2_4..7_5.1-")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := Parse(s)
		if err != nil {
			return
		}
		q, err := Parse(p.String())
		if err != nil || q.String() != p.String() || !p.Covers(q) || !q.Covers(p) {
			t.Fatalf("%q -> %q -> %q, %v", s, p, q, err)
		}
	})
}
