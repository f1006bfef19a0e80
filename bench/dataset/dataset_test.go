package dataset

import "testing"

func TestEveryKeyOnceAVersion(t *testing.T) {
	for _, topic := range append(Topics, Topics[0].Scaled(20), Topics[3].Scaled(7), Topics[0].Scaled(1<<30)) {
		if topic.Keys > 1_000_000 {
			topic.Keys /= 10
		}
		seen := make([]int, topic.Keys)
		for i := range topic.Records() {
			key, version := topic.Record(i)
			if seen[key] != version {
				t.Fatalf("%s: record %d is version %d of key %d, want %d", topic.Name, i, version, key, seen[key])
			}
			seen[key]++
		}
	}
}

func TestBytes(t *testing.T) {
	for _, topic := range Topics {
		key := AppendKey(nil, topic.Keys-1)
		a, b := topic.AppendValue(nil, 7, 0), topic.AppendValue(nil, 7, 1)
		if len(key) != KeyBytes || len(a) != topic.ValueBytes || string(a) == string(b) {
			t.Errorf("%s: key %q, values %q and %q", topic.Name, key, a, b)
		}
	}
}
