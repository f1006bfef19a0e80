package httpapi

import (
	"net/http"
	"strconv"
	"time"

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

// Watchers is a metric of the watches that are open at s.
func Watchers(s *Server) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "kkv_watchers", Help: "Open watches."}, func() float64 { return float64(s.watchers.Load()) })
}

// PushStats counts what was pushed to webhook targets.
type PushStats struct {
	Dispatched, Deduplicated, OK, Failed int64
	InvalidKeys                          int64
	Down                                 bool  // the watch of the targets does not work
	Events                               int64 // of that watch
	Targets                              []TargetStats
}

// TargetStats is one webhook target.
type TargetStats struct {
	ID      string
	Pending int           // keys it has not been told of
	Oldest  time.Duration // how long the first of them has been waiting
	Merged  int64
	Retries int64
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
	descMemory     = desc("kkv_store_memory_bytes", "Memory of the store by use: slabs (dead records included), dead (of slabs), index, tombstones.", "use")
	descLimit      = desc("kkv_store_limit_bytes", "The memory limit, --max-bytes; 0: none.")
	descHeld       = desc("kkv_held_partitions", "Partitions that stand still because the memory limit is reached.")
	descFeed       = desc("kkv_feed_bytes", "Bytes held in the ring of recent changes.")
	descResumes    = desc("kkv_resumes_total", "Readers (watches, webhook targets) that came with a position, by what they were told: what they missed (exact), or everything (reset).", "outcome")
	descLagged     = desc("kkv_feed_lagged_total", "Readers that were slower than the ring of recent changes is long, and caught up from the store.")
	descLastSeen   = desc("kkv_last_seen_offset", "Offset of the last record read, which is the position less one.", "topic", "partition")
	descEnd        = desc("kkv_high_watermark", "The partition's high watermark as its leader last answered.", "topic", "partition")
	descAge        = desc("kkv_age_seconds", "How old the served data may be at most; absent while not known.", "topic", "partition")
	descDispatch   = desc("kkv_onupdate_dispatch_total", "Updates handed to webhook targets.")
	descSuppressed = desc("kkv_onupdate_suppressed_total", "Records that no webhook was told of.", "suppress_reason")
	descOK         = desc("kkv_target_update_ok_total", "Webhook POSTs answered 2xx.")
	descFailed     = desc("kkv_target_update_failure_total", "Webhook POSTs that failed; each is retried.")
	descRetries    = desc("kkv_webhook_retries_total", "Webhook POSTs that followed a failed one.", "target")
	descMerged     = desc("kkv_webhook_merged_total", "Changes that took the place of an older one which a target had not heard yet.", "target")
	descInvalid    = desc("kkv_webhook_invalid_keys_total", "Changes left out of webhooks because their key is not UTF-8.")
	descPending    = desc("kkv_webhook_pending_keys", "Keys that a target has not been told of.", "target")
	descOldest     = desc("kkv_webhook_pending_seconds", "How long the first of them has been waiting.", "target")
	descDown       = desc("kkv_watcher_down", "1 while the watch of webhook targets does not work.")
	descEvents     = desc("kkv_watcher_event_total", "Events of the watch of webhook targets.")
)

// Describe is prometheus.Collector's.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descStage, descKeys, descBytes, descConflicts, descMemory, descLimit, descHeld, descFeed, descResumes, descLagged, descLastSeen, descEnd, descAge,
		descDispatch, descSuppressed, descOK, descFailed, descRetries, descMerged, descInvalid, descPending, descOldest, descDown, descEvents} {
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
	gauge(descMemory, float64(st.Memory.Slabs), "slabs")
	gauge(descMemory, float64(st.Memory.Dead), "dead")
	gauge(descMemory, float64(st.Memory.Index), "index")
	gauge(descMemory, float64(st.Memory.Tombstones), "tombstones")
	gauge(descLimit, float64(st.MaxBytes))
	gauge(descHeld, float64(len(st.Held)))
	gauge(descFeed, float64(st.FeedBytes))
	counter(descResumes, st.Resumes, "exact")
	counter(descResumes, st.Resets, "reset")
	counter(descLagged, st.Lagged)
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
	counter(descInvalid, push.InvalidKeys)
	for _, t := range push.Targets {
		gauge(descPending, float64(t.Pending), t.ID)
		gauge(descOldest, t.Oldest.Seconds(), t.ID)
		counter(descRetries, t.Retries, t.ID)
		counter(descMerged, t.Merged, t.ID)
	}
	down := 0.0
	if push.Down {
		down = 1
	}
	gauge(descDown, down)
	counter(descEvents, push.Events)
}
