/**
 * Makes the client's metrics of prom-client's constructors, or others of their shape, under the names that
 * \@yolean/kafka-keyvalue gives them. They go to the default registry, so: once in a process, for any number of caches.
 */
export function createMetrics(Counter, Gauge, Histogram) {
  return {
    kafka_key_value_last_seen_offset: new Gauge({
      name: 'kafka_key_value_last_seen_offset',
      help: 'Offset of the newest record that onUpdate was told of',
      labelNames: ['cache_name', 'topic', 'partition']
    }),
    kafka_key_value_get_latency_seconds: new Histogram({
      name: 'kafka_key_value_get_latency_seconds',
      help: 'How long the cache took to answer a get',
      labelNames: ['cache_name']
    }),
    kafka_key_value_parse_latency_seconds: new Histogram({
      name: 'kafka_key_value_parse_latency_seconds',
      help: 'How long the value of a get took to read and parse',
      labelNames: ['cache_name']
    }),
    kafka_key_value_stream_latency_seconds: new Histogram({
      name: 'kafka_key_value_stream_latency_seconds',
      help: 'How long streamValues took, parsing included',
      labelNames: ['cache_name']
    }),
    kafka_key_value_updates_received_total: new Counter({
      name: 'kafka_key_value_updates_received_total',
      help: 'Changes of keys that onUpdate was told of',
      labelNames: ['cache_name', 'topic']
    }),
    kafka_key_value_watch_up: new Gauge({
      name: 'kafka_key_value_watch_up',
      help: '1 while the watch that feeds onUpdate stands, else 0',
      labelNames: ['cache_name', 'topic']
    })
  };
}
