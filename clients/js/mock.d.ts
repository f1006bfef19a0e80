import { KafkaKeyValue, Options } from './index.js';

export { createMetrics, NotFoundError, StatusError } from './index.js';

/**
 * The client on a cache and a gateway in memory, for the tests of applications: no kkv, no Kafka, no network. Clients of
 * one topic name share its records, as replicas do.
 */
export class KafkaKeyValueMock extends KafkaKeyValue {
  constructor(options: Omit<Options, 'cacheHost' | 'fetchImpl'> & { cacheHost?: string });
  /** Forgets every topic: between tests. */
  static reset(): void;
}

export default KafkaKeyValueMock;
