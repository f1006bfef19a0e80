package require

import "testing"

func TestRequired(t *testing.T) {
	for _, c := range []struct {
		list  string
		thing Thing
		want  bool
	}{
		{"", Kafka, false},
		{"all", Kafka, true},
		{"all", Chromium, true},
		{"kafka,npm", NPM, true},
		{"kafka, npm", NPM, true},
		{"kafka,npm", Chromium, false},
		{"kafkaesque", Kafka, false},
	} {
		if got := required(c.thing, c.list); got != c.want {
			t.Errorf("required(%s, %q) = %v, want %v", c.thing, c.list, got, c.want)
		}
	}
}

func TestEveryThingIsExplained(t *testing.T) {
	for thing, choices := range programs {
		if len(choices) == 0 || howTo[thing] == "" {
			t.Errorf("%s: no programs or no word on how to get it", thing)
		}
	}
	if lacks(Thing("no such thing")) != "" {
		t.Error("a thing without needs is lacking")
	}
}
