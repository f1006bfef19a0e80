package httpapi

import (
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/kkv-project/kkv/internal/cache"
)

// WithMetrics answers /metrics from g, and hands everything else to h.
func WithMetrics(g prometheus.Gatherer, h http.Handler) http.Handler {
	metrics := promhttp.HandlerFor(g, promhttp.HandlerOpts{})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/metrics" {
			metrics.ServeHTTP(w, r)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// PushStats counts what was pushed to webhook targets.
type PushStats struct {
	Dispatched, Deduplicated, OK, Failed int64
	Down                                 bool  // the watch of the targets does not work
	Events                               int64 // of that watch
}

// Collector shows a cache and its pushes under the original's names (CONTRACT section 1), and what the original
// had no name for.
type Collector struct {
	cache *cache.Cache
	push  func() PushStats
}

// NewCollector makes a Collector; push may be nil.
func NewCollector(c *cache.Cache, push func() PushStats) *Collector {
	if push == nil {
		push = func() PushStats { return PushStats{} }
	}
	return &Collector{cache: c, push: push}
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	descStage      = desc("kkv_stage", "How far the cache is: 10 Created, 50 Assigning, 60 Resetting, 80 PollingHistorical, 90 Polling.")
	descKeys       = desc("kkv_cache_keys", "Live keys.")
	descBytes      = desc("kkv_cache_bytes", "Bytes of live keys, values and headers.")
	descConflicts  = desc("kkv_cache_conflicting_keys", "Keys that live in more than one partition.")
	descFeed       = desc("kkv_feed_bytes", "Bytes held in the ring of recent changes.")
	descLastSeen   = desc("kkv_last_seen_offset", "Offset of the last record read, which is the position less one.", "topic", "partition")
	descEnd        = desc("kkv_high_watermark", "The partition's high watermark as its leader last answered.", "topic", "partition")
	descAge        = desc("kkv_age_seconds", "How old the served data may be at most; absent while not known.", "topic", "partition")
	descDispatch   = desc("kkv_onupdate_dispatch_total", "Updates handed to webhook targets.")
	descSuppressed = desc("kkv_onupdate_suppressed_total", "Records that no webhook was told of.", "suppress_reason")
	descOK         = desc("kkv_target_update_ok_total", "Webhook POSTs answered 2xx.")
	descFailed     = desc("kkv_target_update_failure_total", "Webhook POSTs that failed; each is retried.")
	descDown       = desc("kkv_watcher_down", "1 while the watch of webhook targets does not work.")
	descEvents     = desc("kkv_watcher_event_total", "Events of the watch of webhook targets.")
)

// Describe is prometheus.Collector's.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descStage, descKeys, descBytes, descConflicts, descFeed, descLastSeen, descEnd, descAge,
		descDispatch, descSuppressed, descOK, descFailed, descDown, descEvents} {
		ch <- d
	}
}

// Collect is prometheus.Collector's.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	st := c.cache.Status()
	gauge(descStage, float64(st.Stage))
	gauge(descKeys, float64(st.Keys))
	gauge(descBytes, float64(st.Bytes))
	gauge(descConflicts, float64(st.Conflicts))
	gauge(descFeed, float64(st.FeedBytes))
	for _, p := range st.Partitions {
		n := strconv.Itoa(int(p.Partition))
		if p.Next > 0 {
			gauge(descLastSeen, float64(p.Next-1), st.Topic, n)
		}
		if p.End >= 0 {
			gauge(descEnd, float64(p.End), st.Topic, n)
		}
		if p.Age >= 0 {
			gauge(descAge, p.Age.Seconds(), st.Topic, n)
		}
	}
	push := c.push()
	counter(descDispatch, push.Dispatched)
	counter(descSuppressed, st.NullKeys, "null_key")
	counter(descSuppressed, push.Deduplicated, "value_deduplication")
	counter(descOK, push.OK)
	counter(descFailed, push.Failed)
	down := 0.0
	if push.Down {
		down = 1
	}
	gauge(descDown, down)
	counter(descEvents, push.Events)
}
