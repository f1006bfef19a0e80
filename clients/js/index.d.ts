/** A key: text, or bytes where it is not UTF-8. */
export type Key = string | Uint8Array;

/** A record. A value is what its JSON says; else, where it is no JSON, a string; else, where it is no UTF-8, its bytes. */
export interface Entry<K = Key> {
  key: K;
  value: any;
  partition: number;
  offset: number;
  /** The record's own, in milliseconds since the Unix epoch. */
  timestamp: number;
  headers?: { key: string; value: Uint8Array | null }[];
}

/**
 * One event of a watch. First the state, as puts, up to a `synced`; then every change as it comes, in log order per key.
 * After a lost connection: what was put or deleted meanwhile, each key as it is by then, up to a `synced`. A `reset` says
 * that the whole state comes anew: what is not put again before the next `synced` is gone.
 */
export type Change = {
  /** Where the stream stands after this event; opaque. Pass it as `since` to go on from here. Absent inside of a batch. */
  position?: string;
} & (
  | ({ type: 'put' } & Entry)
  | ({ type: 'delete'; value?: undefined; reason?: string } & Omit<Entry, 'value'>)
  | { type: 'synced'; position: string; keys?: number }
  | { type: 'progress'; position: string; ageMs?: number }
  | { type: 'reset'; reason: string }
);

/** What a handler is told of. Of a key that vanished in a reset the record that deleted it is not known. */
export type Update = ({ type: 'put' } & Entry) | ({ type: 'delete'; value?: undefined } & Pick<Entry, 'key'> & Partial<Omit<Entry, 'value'>>);

/** Called once a read shows the change; `value` is undefined for a delete. May be async; it is not waited for. */
export type UpdateHandler = (key: any, value: any, change: Update) => unknown;

/** The shapes of prom-client's classes that createMetrics needs. */
export type MetricConstructor = new (configuration: { name: string; help: string; labelNames: string[] }) => any;

export interface Metrics {
  kafka_key_value_last_seen_offset?: any;
  kafka_key_value_get_latency_seconds?: any;
  kafka_key_value_parse_latency_seconds?: any;
  kafka_key_value_stream_latency_seconds?: any;
  kafka_key_value_updates_received_total?: any;
  kafka_key_value_watch_up?: any;
}

/** Makes the client's metrics, at the default registry: once in a process, for any number of caches. */
export function createMetrics(Counter: MetricConstructor, Gauge: MetricConstructor, Histogram: MetricConstructor): Metrics;

export interface Options {
  /** Base URL of the cache. */
  cacheHost: string;
  /** Base URL of the gateway, through which put and delete go. Without it they go to the cache, which must be writable. */
  pixyHost?: string;
  topicName: string;
  /** What createMetrics returned, or parts of it. */
  metrics?: Metrics;
  /** Values are gzip of JSON in the topic. */
  gzip?: boolean;
  /** Sent as "Authorization: Bearer". */
  token?: string;
  /** In place of the global fetch, of the same contract. */
  fetchImpl?: typeof fetch;
  /** Hears of outages (warn) and of handlers that fail (error). Default: console. */
  logger?: { warn(...args: unknown[]): void; error(...args: unknown[]): void } | null;
}

/** How fresh a read must be, beyond what this client has seen and written, which it always includes. */
export interface ReadOptions {
  /** See every write that was acknowledged before the call, whoever made it. */
  fresh?: boolean;
  /** See data known to be at most this old. */
  maxStaleMs?: number;
  /** See all that this position covers; or the record `<partition>:<offset>`. */
  atLeast?: string;
  /** How long the cache may wait for that. Default: 5 s. */
  timeoutMs?: number;
  signal?: AbortSignal;
}

/** How often to try again where nothing was sent, or the server says that it could not do it for now (503). */
export interface RetryOptions {
  nRetries?: number;
  intervalMs?: number;
  onRetryAttempt?: (info: { retriesLeft: number; error: Error }) => void;
  signal?: AbortSignal;
}

/**
 * A client of one topic. It carries the position that it has seen, in reads, writes and updates, so that none of its later
 * reads is older, whichever replica answers. All methods may be called at any time, concurrently.
 */
export class KafkaKeyValue {
  static createMetrics: typeof createMetrics;
  /** The same as `new`. */
  static withPixyProducer(options: Options & { pixyHost: string }): KafkaKeyValue;

  constructor(options: Options);

  /** Resolves when the cache holds the whole topic. Of what changes from then on, handlers of onUpdate hear. */
  onReady(): Promise<void>;

  /**
   * Makes the handler hear of every change, with its value, deletes included, in log order per key; also of what changed
   * while the cache was away. The first call opens a watch, which keeps a Node.js process running until close.
   */
  onUpdate(handler: UpdateHandler): () => void;
  /** onUpdate without deletes. */
  on(event: 'put', handler: UpdateHandler): () => void;

  /** The key's value. Rejects with NotFoundError where it has none, with StatusError for any other answer. */
  get(key: Key, options?: ReadOptions & RetryOptions): Promise<any>;

  /** Every key with the prefix, in order, all at one position. Throws where the list breaks off. */
  list(options?: ReadOptions & { prefix?: string }): AsyncGenerator<Entry, void, undefined>;

  /** Calls onValue with every value, and resolves when it has. */
  streamValues(onValue: (value: any) => void): Promise<void>;

  /**
   * Writes the value as JSON. Resolves to the record's offset when Kafka has acknowledged it; a get by this client then
   * sees it. A StatusError of 504, and any failure after the request was sent, leave open whether it was written.
   */
  put(key: Key, value: any, options?: RetryOptions): Promise<number>;

  /** Deletes the key, by a tombstone; as put does. */
  delete(key: Key, options?: RetryOptions): Promise<number>;

  /**
   * The state and every change, for whoever keeps the state. It reconnects for ever and resumes. It ends when the loop is
   * left, with close, by throwing the signal's reason, or a StatusError where the cache refuses the request.
   */
  watch(options?: {
    key?: Key;
    prefix?: string;
    /** A position to resume from: changes come from there on, in place of the state. "now": neither. */
    since?: string;
    /** Leave values out. */
    keysOnly?: boolean;
    signal?: AbortSignal;
  }): AsyncGenerator<Change, void, undefined>;

  /** Ends watches and retries. Later calls reject. */
  close(): void;
}

export default KafkaKeyValue;
export { KafkaKeyValue as KafkaKeyValueWithProducer };

/** The key has no value. */
export class NotFoundError extends Error {
  notFound: true;
}

/** An answer that is no success. */
export class StatusError extends Error {
  status: number;
  /** The problem's type, such as "not-ready"; "" if the answer named none. */
  type: string;
  detail: string;
  /** Whether the same call may succeed later. */
  retryable: boolean;
}
