package gateway

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kkv-project/kkv/internal/kafka"
)

type metrics struct {
	produced *prometheus.CounterVec
	inflight prometheus.Gauge
}

// Outcomes of a produce, in kkv_gateway_produce_total.
const (
	acknowledged = "acknowledged"
	notWritten   = "not_written"
	unknown      = "unknown"
)

func newMetrics() metrics {
	m := metrics{
		produced: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kkv_gateway_produce_total",
			Help: "Records that calls asked to produce, by mode (sync, async) and outcome: acknowledged by Kafka, certainly not written, or unknown.",
		}, []string{"mode", "outcome"}),
		inflight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "kkv_gateway_requests_in_flight",
			Help: "Calls that the gateway is answering.",
		}),
	}
	for _, mode := range []string{"sync", "async"} {
		for _, outcome := range []string{acknowledged, notWritten, unknown} {
			m.produced.WithLabelValues(mode, outcome) // starts at 0
		}
	}
	return m
}

func (m metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.produced, m.inflight}
}

func (m metrics) count(mode string, err error) {
	outcome := acknowledged
	switch {
	case kafka.OutcomeUnknown(err):
		outcome = unknown
	case err != nil:
		outcome = notWritten
	}
	m.produced.WithLabelValues(mode, outcome).Inc()
}
