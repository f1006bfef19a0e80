package main

import "fmt"

// pushRows show how long it takes until a change is told.
func (r *results) pushRows() [][]string {
	rows := [][]string{{"what", "p50, ms", "p99, ms", "missed", "B/watcher"}}
	for _, s := range []struct{ title, name string }{
		{"4,000/s to a webhook, with values (v2)", "Push/to=webhook/by=webhook"},
		{"the same to a franz-go consumer beside it", "Push/to=webhook/by=consumer"},
		{"4,000/s to a watcher", "Push/to=watcher/by=watcher"},
		{"the same to a franz-go consumer beside it", "Push/to=watcher/by=consumer"},
		{r.watcherTitle("Watchers/by=kkv", "watchers of everything, 10 updates/s"), "Watchers/by=kkv"},
		{"the same number on a bare net/http handler", "Watchers/by=bare"},
		{r.watcherTitle("SlowWatchers/n=0", "watchers of one prefix, 10 updates/s, beside 20/s of 100 kB"), "SlowWatchers/n=0"},
		{"the same beside 10 of everything that do not read", "SlowWatchers/n=10"},
		{r.updatesTitle(), "Updates/watchers=10"},
	} {
		if len(r.runs[s.name]) > 0 {
			rows = append(rows, []string{s.title, r.cell(s.name, "p50-ns", 1e-6, "%.2f"), r.cell(s.name, "p99-ns", 1e-6, "%.2f"), r.cell(s.name, "missed", 1, "%.0f"),
				r.cell(s.name, "B/watcher", 1, "%.0f")})
		}
	}
	return rows
}

func (r *results) watcherTitle(name, what string) string {
	return r.cell(name, "watchers", 1, "%.0f") + " " + what
}

func (r *results) updatesTitle() string {
	return r.cell("Updates/watchers=10", "records/s", 1, "%.0f") + "/s to ten watchers of a prefix each; read " +
		r.cell("Updates/watchers=10", "behind-ns", 1e-6, "%.0f") + " ms after the last was acknowledged"
}

// reachPush is issue 6's list.
func (r *results) reachPush(add func(what string, v float64, ok, most bool, limit float64, format string)) {
	for _, way := range []struct {
		name string
		more float64 // ms beyond the consumer's
	}{{"webhook", 1}, {"watcher", 0.5}} {
		name := "Push/to=" + way.name + "/by="
		p50, ok := r.median(name+way.name, "p50-ns")
		consumer, ok2 := r.median(name+"consumer", "p50-ns")
		add(fmt.Sprintf("produced to %s, p50 beyond a consumer's, ms", way.name), (p50-consumer)/1e6, ok && ok2, true, way.more, "%.2f")
		missed, ok := r.median(name+way.name, "missed")
		add("keys of which a "+way.name+" missed the newest", missed, ok, true, 0, "%.0f")
	}
	each, ok := r.median("Watchers/by=kkv", "B/watcher")
	bare, ok2 := r.median("Watchers/by=bare", "B/watcher")
	add("a watcher's memory, KiB", each/1024, ok, true, 32, "%.1f")
	add("the same beyond a bare handler's, KiB", (each-bare)/1024, ok && ok2, true, 6, "%.1f")
	p99, ok := r.median("Watchers/by=kkv", "p99-ns")
	add("10 updates/s to all watchers, p99, ms", p99/1e6, ok, true, 250, "%.0f")
	missed, ok := r.median("Watchers/by=kkv", "missed")
	add("updates that watchers missed", missed, ok, true, 0, "%.0f")
	v, ok := r.ratio("SlowWatchers/n=10", "p99-ns", "SlowWatchers/n=0", "p99-ns")
	add("watchers' p99 beside ten that do not read, x alone", v, ok, true, 1.5, "%.2f")
	rate, ok := r.median("Updates/watchers=10", "records/s")
	add("updates/s to ten watchers of a prefix each", rate, ok, false, 95_000, "%.0f")
	behind, ok := r.median("Updates/watchers=10", "behind-ns")
	add("all read so long after the last was acknowledged, ms", behind/1e6, ok, true, 1000, "%.0f")
	missed, ok = r.median("Updates/watchers=10", "missed")
	add("keys of which these watchers missed the newest", missed, ok, true, 0, "%.0f")
}
