// A client of kkv for Node.js and browsers, on fetch and nothing else. README.md has its use, index.d.ts its contract.

import { NotFoundError, statusError, StatusError } from './errors.js';
import { createMetrics } from './metrics.js';
import { follow } from './updates.js';
import { sleep, watch } from './watch.js';
import { decode, encode, keyPath, lines, percent, recordOf, valueOf } from './wire.js';

export { createMetrics, NotFoundError, StatusError };

const GET_RETRY = Object.freeze({ nRetries: 5, intervalMs: 1000 });
const PUT_RETRY = Object.freeze({ nRetries: 10, intervalMs: 1000 });
const READY_INTERVAL_MS = 1000;
const MAX_POSITIONS = 4; // that reads sent at once have seen, named by the next read

export default class KafkaKeyValue {
  static createMetrics = createMetrics;

  /** Of old, put was on another class. */
  static withPixyProducer(options) {
    return new this(options);
  }

  #cacheHost;
  #pixyHost;
  #topic;
  #path;
  #gzip;
  #token;
  #fetch;
  #logger;
  #metrics;
  #cacheName;
  #closed = new AbortController();
  #handlers = [];
  #following = null; // resolves once the watch that feeds the handlers stands
  #start = 'now'; // where it begins
  #positions = new Set(); // what reads have seen and no later read has confirmed
  #heard = ''; // the position of what handlers were told
  #written = new Map(); // partition -> own newest write { offset, seen } that no read has confirmed; seen is how a read asks for it

  constructor({ cacheHost, pixyHost, topicName, metrics = {}, gzip = false, token, fetchImpl, logger = console }) {
    if (typeof cacheHost !== 'string') throw new TypeError('cacheHost is the URL of a cache, such as http://localhost:8091');
    if (!topicName) throw new TypeError('topicName is the name of the topic that the cache serves');
    const trimmed = (url) => url?.replace(/\/+$/, '');
    this.#cacheHost = trimmed(cacheHost);
    this.#pixyHost = trimmed(pixyHost);
    this.#topic = topicName;
    this.#path = `${this.#cacheHost}/v1/topics/${percent(topicName)}`;
    this.#gzip = gzip;
    this.#token = token;
    this.#fetch = fetchImpl ?? ((...args) => fetch(...args));
    this.#logger = logger;
    this.#metrics = metrics;
    this.#cacheName = cacheHost.replace('http://', '');
  }

  async onReady() {
    for (;;) {
      const res = await this.#request(`${this.#cacheHost}/q/health/ready`).catch(() => undefined);
      if (res && (res.status === 401 || res.status === 403)) throw await statusError('ready', res);
      await res?.body?.cancel();
      if (res?.status === 200) break;
      await sleep(READY_INTERVAL_MS, this.#closed.signal);
    }
    if (this.#following) return this.#following;
    const res = await this.#read('/keys?limit=1', 'ready', {}, GET_RETRY);
    await res.body?.cancel();
    this.#start = res.headers.get('kkv-position') ?? 'now';
  }

  onUpdate(fn) {
    const handler = { fn };
    this.#handlers.push(handler);
    this.#following ??= this.#follow();
    return () => {
      this.#handlers = this.#handlers.filter((h) => h !== handler);
    };
  }

  on(event, fn) {
    if (event !== 'put') throw new TypeError(`there is no event ${event}, only put`);
    return this.onUpdate((key, value, change) => {
      if (change.type === 'put') fn(key, value, change);
    });
  }

  async get(key, options = {}) {
    const what = `get ${key}`;
    const got = this.#timer('kafka_key_value_get_latency_seconds');
    const res = await this.#read(keyPath(key), what, options, { ...GET_RETRY, ...options });
    got();
    if (res.status === 404) throw new NotFoundError(`${what}: the cache has no such key`);
    const parsed = this.#timer('kafka_key_value_parse_latency_seconds');
    const value = await decode(new Uint8Array(await res.arrayBuffer()), this.#gzip);
    parsed();
    return value;
  }

  async *list({ prefix = '', ...options } = {}) {
    const res = await this.#read(`/keys?values=true&prefix=${percent(prefix)}`, `list ${prefix}`, options, GET_RETRY);
    for await (const line of lines(res.body)) {
      if (line.type !== 'put') throw new Error(`list ${prefix}: ${line.detail ?? line.type}`);
      yield { ...recordOf(line), value: await valueOf(line, this.#gzip) };
    }
  }

  async streamValues(onValue) {
    const done = this.#timer('kafka_key_value_stream_latency_seconds');
    for await (const { value } of this.list()) onValue(value);
    done();
  }

  async put(key, value, options = PUT_RETRY) {
    const body = await encode(value, this.#gzip);
    return this.#write('put', key, body, options);
  }

  async delete(key, options = PUT_RETRY) {
    return this.#write('delete', key, undefined, options);
  }

  async *watch({ key, prefix, since = '', keysOnly = false, signal } = {}) {
    const ends = firstOf(this.#closed.signal, signal);
    try {
      yield* watch({
        connect: (from, aborted) => this.#connect({ key, prefix, keysOnly }, from, aborted),
        since,
        gzip: this.#gzip,
        signal: ends.signal,
        state: () => {}
      });
    } catch (err) {
      if (!this.#closed.signal.aborted) throw err;
    } finally {
      ends.abort();
    }
  }

  close() {
    this.#closed.abort(new Error('the client was closed'));
  }

  // Feeds the handlers until close.
  #follow() {
    const labels = { cache_name: this.#cacheName, topic: this.#topic };
    return new Promise((stands) => {
      follow({
        changes: watch({
          connect: (from, aborted) => this.#connect({}, from, aborted),
          since: this.#start,
          gzip: this.#gzip,
          forever: true,
          signal: this.#closed.signal,
          state: (err) => {
            this.#metrics.kafka_key_value_watch_up?.set(labels, err ? 0 : 1);
            if (err) this.#logger?.warn(`kkv: ${this.#topic}: the watch is down, trying again until it stands: ${err.message}`);
          }
        }),
        position: (position) => {
          this.#heard = position;
          stands();
        },
        tell: (change) => {
          this.#metrics.kafka_key_value_updates_received_total?.inc(labels);
          if (change.offset !== undefined) {
            this.#metrics.kafka_key_value_last_seen_offset?.set({ ...labels, partition: change.partition }, change.offset);
          }
          for (const { fn } of this.#handlers) this.#call(fn, change);
        }
      }).catch(() => stands()); // it ends with close only
    });
  }

  // A handler's fault is its own: neither the others nor the next changes go without being told.
  #call(fn, change) {
    const failed = (err) => this.#logger?.error('kkv: a handler of onUpdate failed', { key: change.key, err });
    try {
      Promise.resolve(fn(change.key, change.value, change)).catch(failed);
    } catch (err) {
      failed(err);
    }
  }

  async #connect({ key, prefix, keysOnly }, since, signal) {
    const query = [`values=${!keysOnly}`];
    if (key !== undefined) query.push(`key=${percent(key)}`);
    if (prefix) query.push(`prefix=${percent(prefix)}`);
    if (since) query.push(`since=${percent(since)}`);
    const headers = { accept: 'application/x-ndjson' };
    const seen = [...this.#positions, ...[...this.#written.values()].map((w) => w.seen), this.#heard].filter(Boolean);
    const resumes = since && since !== 'now';
    if (!resumes && seen.length > 0) headers['kkv-at-least'] = seen.join(','); // a state that is not older than that
    const res = await this.#request(`${this.#path}/watch?${query.join('&')}`, { headers, signal });
    if (res.status === 409 && !resumes) this.#forget();
    return res;
  }

  async #request(url, { headers = {}, ...init } = {}) {
    this.#closed.signal.throwIfAborted();
    if (this.#token) headers.authorization = `Bearer ${this.#token}`;
    return this.#fetch(url, { ...init, headers });
  }

  // GETs from the cache, at least as new as what this client has seen and written; 404 only of a key.
  async #read(path, what, { fresh, maxStaleMs, atLeast, signal, timeoutMs }, retry) {
    return this.#retry(retry, signal, async () => {
      const known = [...this.#positions].slice(-MAX_POSITIONS);
      const written = [...this.#written];
      const heard = this.#heard;
      const headers = {};
      const ask = [...known, ...written.map(([, { seen }]) => seen), heard, atLeast].filter(Boolean);
      if (ask.length > 0) headers['kkv-at-least'] = ask.join(',');
      if (fresh) headers['kkv-consistency'] = 'fresh';
      if (maxStaleMs !== undefined) headers['kkv-max-stale'] = `${maxStaleMs}ms`;
      if (timeoutMs !== undefined) headers['kkv-timeout'] = `${timeoutMs}ms`;
      const res = await this.#request(this.#path + path, { headers, signal });
      const position = res.headers.get('kkv-position');
      if (res.ok || (res.status === 404 && position)) {
        // The answer is no older than what was asked for, and stands for it from now on.
        for (const p of known) this.#positions.delete(p);
        for (const [partition, write] of written) if (this.#written.get(partition) === write) this.#written.delete(partition);
        if (this.#heard === heard) this.#heard = '';
        if (position) this.#positions.add(position);
        return res;
      }
      const err = await statusError(what, res);
      if (res.status === 409 && !atLeast) {
        // The topic was made anew, or lost what had been seen: the next read starts from there.
        this.#forget();
        err.retryable = true;
      }
      throw err;
    });
  }

  #forget() {
    this.#positions.clear();
    this.#written.clear();
    this.#heard = '';
  }

  // Writes through the gateway or, where there is none, through the cache; resolves to the record's offset.
  async #write(what, key, body, retry) {
    const viaCache = this.#pixyHost === undefined;
    const url = viaCache ? this.#path + keyPath(key) : `${this.#pixyHost}/topics/${percent(this.#topic)}/messages?key=${percent(key)}&sync`;
    const method = what === 'delete' ? 'DELETE' : viaCache ? 'PUT' : 'POST';
    return this.#retry({ ...PUT_RETRY, ...retry }, retry.signal, async () => {
      const headers = method === 'DELETE' ? {} : { 'content-type': this.#gzip ? 'application/gzip' : 'application/json' };
      const res = await this.#request(url, { method, body, headers });
      if (!res.ok) throw await statusError(`${what} ${key}`, res);
      const { partition, offset } = await res.json();
      const seen = res.headers.get('kkv-position') ?? `${partition}:${offset}`; // kafka-pixy knows no positions
      if (!(this.#written.get(partition)?.offset > offset)) this.#written.set(partition, { offset, seen });
      return offset;
    });
  }

  // Tries again where nothing was sent, or the server says that it could not.
  async #retry({ nRetries, intervalMs, onRetryAttempt }, signal, attempt) {
    for (let left = nRetries; ; left--) {
      try {
        return await attempt();
      } catch (err) {
        const again = err instanceof StatusError ? err.status === 503 || err.status === 409 : notSent(err);
        if (!again || err.retryable === false || left <= 0 || this.#closed.signal.aborted || signal?.aborted) throw err;
        onRetryAttempt?.({ retriesLeft: left - 1, error: err });
        if (err.status !== 409) await sleep(intervalMs, signal ?? this.#closed.signal);
      }
    }
  }

  #timer(name) {
    return this.#metrics[name]?.startTimer({ cache_name: this.#cacheName }) ?? (() => {});
  }
}

export { KafkaKeyValue, KafkaKeyValue as KafkaKeyValueWithProducer };

// Node's fetch gives the reason as cause; browsers give none, so there nothing is known.
function notSent(err) {
  return ['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'UND_ERR_CONNECT_TIMEOUT'].includes(err?.cause?.code);
}

/** A controller that aborts with the first of several signals. Aborting it takes its listeners from them. */
function firstOf(...signals) {
  const first = new AbortController();
  for (const s of signals.filter(Boolean)) {
    if (s.aborted) first.abort(s.reason);
    s.addEventListener('abort', () => first.abort(s.reason), { once: true, signal: first.signal });
  }
  return first;
}
