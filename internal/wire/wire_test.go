package wire

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestForms(t *testing.T) {
	for _, tc := range []struct {
		name        string
		c           Change
		ndjson, sse string
	}{
		{"JSON goes verbatim",
			Change{Type: Put, Key: []byte("A"), Value: []byte(`{ "id": "A", "color": "red" }`), Offset: 2, Timestamp: 1795485600123},
			`{"type":"put","key":"A","value":{ "id": "A", "color": "red" },"partition":0,"offset":2,"timestamp":1795485600123}`,
			"event: put\ndata: {\"key\":\"A\",\"value\":{ \"id\": \"A\", \"color\": \"red\" },\"partition\":0,\"offset\":2,\"timestamp\":1795485600123}"},
		{"binary key, text value",
			Change{Type: Put, Key: []byte{0xff, 0}, Value: []byte("not json"), Partition: 2, Offset: 7, Timestamp: 1795485600500},
			`{"type":"put","keyBase64":"/wA=","text":"not json","partition":2,"offset":7,"timestamp":1795485600500}`,
			"event: put\ndata: {\"keyBase64\":\"/wA=\",\"text\":\"not json\",\"partition\":2,\"offset\":7,\"timestamp\":1795485600500}"},
		{"JSON over two lines is text", Change{Type: Put, Key: []byte("a\nb"), Value: []byte("{\n}")},
			`{"type":"put","key":"a\nb","text":"{\n}","partition":0,"offset":0,"timestamp":0}`,
			"event: put\ndata: {\"key\":\"a\\nb\",\"text\":\"{\\n}\",\"partition\":0,\"offset\":0,\"timestamp\":0}"},
		{"JSON with white space around is text", Change{Type: Put, Key: []byte(""), Value: []byte(" 1")},
			`{"type":"put","key":"","text":" 1","partition":0,"offset":0,"timestamp":0}`,
			"event: put\ndata: {\"key\":\"\",\"text\":\" 1\",\"partition\":0,\"offset\":0,\"timestamp\":0}"},
		{"null is a value, and so is nothing at all", Change{Type: Put, Key: []byte("<é>"), Value: []byte("null")},
			`{"type":"put","key":"<é>","value":null,"partition":0,"offset":0,"timestamp":0}`,
			"event: put\ndata: {\"key\":\"<é>\",\"value\":null,\"partition\":0,\"offset\":0,\"timestamp\":0}"},
		{"empty value", Change{Type: Put, Key: []byte("k"), Value: []byte{}, Headers: []Header{{"h", []byte("v")}, {"n", nil}}},
			`{"type":"put","key":"k","text":"","partition":0,"offset":0,"timestamp":0,"headers":[{"key":"h","value":"dg=="},{"key":"n","value":null}]}`,
			"event: put\ndata: {\"key\":\"k\",\"text\":\"\",\"partition\":0,\"offset\":0,\"timestamp\":0,\"headers\":[{\"key\":\"h\",\"value\":\"dg==\"},{\"key\":\"n\",\"value\":null}]}"},
		{"delete with a position", Change{Type: Delete, Key: []byte("B"), Partition: 1, Offset: 1, Timestamp: 5, Position: "p~1", Reason: "expired"},
			`{"type":"delete","position":"p~1","key":"B","partition":1,"offset":1,"timestamp":5,"reason":"expired"}`,
			"event: delete\nid: p~1\ndata: {\"key\":\"B\",\"partition\":1,\"offset\":1,\"timestamp\":5,\"reason\":\"expired\"}"},
		{"synced", Change{Type: Synced, Position: "p~1", Keys: 3}, `{"type":"synced","position":"p~1","keys":3}`, "event: synced\nid: p~1\ndata: {\"keys\":3}"},
		{"progress", Change{Type: Progress, Position: "p~1", AgeMs: 12}, `{"type":"progress","position":"p~1","ageMs":12}`, "event: progress\nid: p~1\ndata: {\"ageMs\":12}"},
		{"progress of unknown age", Change{Type: Progress, Position: "p~1", AgeMs: -1}, `{"type":"progress","position":"p~1"}`, "event: progress\nid: p~1\ndata: {}"},
		{"reset", Change{Type: Reset, Reason: "beyond-horizon"}, `{"type":"reset","reason":"beyond-horizon"}`, "event: reset\nid:\ndata: {\"reason\":\"beyond-horizon\"}"},
		{"closing", Change{Type: Closing, RetryMs: 1740}, `{"type":"closing","retryMs":1740}`, "retry: 1740"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := string(AppendNDJSON(nil, &tc.c)); got != tc.ndjson+"\n" {
				t.Errorf("NDJSON\n got %s\nwant %s", got, tc.ndjson)
			}
			if got := string(AppendSSE(nil, &tc.c)); got != tc.sse+"\n\n" {
				t.Errorf("SSE\n got %s\nwant %s", got, tc.sse)
			}
			want := tc.c
			if want.Type != Progress {
				want.AgeMs = -1
			}
			got, err := ParseNDJSON(AppendNDJSON(nil, &tc.c))
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("ParseNDJSON: %v %s", err, diff)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for _, s := range []string{"", "x", "{}", `{"type":"put"}`, `{"type":"delete","offset":1}`, `{"type":"put","key":1}`} {
		if c, err := ParseNDJSON([]byte(s)); err == nil {
			t.Errorf("ParseNDJSON(%q) = %v", s, c)
		}
	}
}

// FuzzRoundTrip: any key and value come back byte for byte, on one line, in both forms.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("A"), []byte(`{"a":"\u2028"}`))
	f.Add([]byte{0xff}, []byte("\xed\xa0\x80"))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		if value == nil {
			value = []byte{}
		}
		c := Change{Type: Put, Key: key, Value: value, AgeMs: -1}
		b := AppendNDJSON([]byte("x"), &c)[1:]
		if bytes.IndexByte(b, '\n') != len(b)-1 || !json.Valid(b) {
			t.Fatalf("not one line of JSON: %q", b)
		}
		got, err := ParseNDJSON(b)
		if diff := cmp.Diff(c, got, cmpopts.EquateEmpty()); err != nil || diff != "" || got.Value == nil {
			t.Fatalf("%v %s", err, diff)
		}
		if sse := string(AppendSSE(nil, &c)); strings.Count(sse, "\n") != 3 {
			t.Fatalf("an event broken up: %q", sse)
		}
	})
}
