// A cache and a gateway in memory, for the tests of applications. The client on top of it is the real one.

import KafkaKeyValue, { createMetrics, NotFoundError, StatusError } from './index.js';

export { createMetrics, NotFoundError, StatusError };

const topics = new Map();

/** The records of one topic, and who watches it. */
class Topic {
  records = new Map(); // key -> its newest line
  log = []; // every line, in order; its index is its offset
  watchers = new Set();

  append(key, body) {
    const offset = this.log.length;
    const line = { type: body === null ? 'delete' : 'put', position: `mock~${offset + 1}`, key, partition: 0, offset, timestamp: Date.now() };
    if (body !== null) line.base64 = btoa(Array.from(body, (b) => String.fromCharCode(b)).join(''));
    this.log.push(line);
    if (body === null) this.records.delete(key);
    else this.records.set(key, line);
    for (const tell of this.watchers) tell(line);
    return { partition: 0, offset };
  }

  /** What a watch begins with: the state, or the newest line of each key that was touched since. */
  begin(since) {
    if (since === 'now') return [];
    const from = since ? Number(since.split('~')[1]) : 0;
    const last = new Map(this.log.slice(from).map((line) => [line.key, line]));
    return [...last.values()].filter((line) => since || line.type === 'put').map(({ position, ...line }) => line);
  }

  get position() {
    return `mock~${this.log.length}`;
  }
}

function answer(status, body, headers = {}) {
  return new Response(body, { status, headers });
}

function json(status, value, headers) {
  return answer(status, JSON.stringify(value), headers);
}

function ndjson(lines, headers) {
  return answer(200, lines.map((line) => JSON.stringify(line) + '\n').join(''), headers);
}

function stream(topic, query, signal) {
  const wants = ({ key }) => key === undefined || ((query.get('key') ?? key) === key && key.startsWith(query.get('prefix') ?? ''));
  const text = new TextEncoder();
  let leave;
  const body = new ReadableStream({
    start(controller) {
      const send = (line) => {
        if (wants(line)) controller.enqueue(text.encode(JSON.stringify(line) + '\n'));
      };
      topic.begin(query.get('since') ?? '').forEach(send);
      send({ type: 'synced', position: topic.position });
      topic.watchers.add(send);
      leave = () => topic.watchers.delete(send);
      signal?.addEventListener('abort', () => {
        leave();
        controller.error(signal.reason);
      });
    },
    cancel: () => leave()
  });
  return answer(200, body, { 'content-type': 'application/x-ndjson' });
}

/** Answers the requests that the client makes, as a cache and a gateway would. */
async function fetchFromMemory(url, { method = 'GET', body, signal } = {}) {
  signal?.throwIfAborted();
  const { pathname, searchParams: query } = new URL(url, 'http://mock');
  if (pathname.endsWith('/q/health/ready')) return json(200, { status: 'UP' });
  const [, , name, route, key] = /^(.*?)\/topics\/([^/]+)\/([^/]+)(?:\/(.*))?$/.exec(pathname);
  const topic = topicOf(decodeURIComponent(name));
  if (method !== 'GET') {
    const target = route === 'messages' ? query.get('key') : keyOf(key, query);
    const bytes = method === 'DELETE' ? null : new Uint8Array(await new Response(body).arrayBuffer());
    return json(200, topic.append(target, bytes), { 'kkv-position': topic.position });
  }
  const headers = { 'kkv-position': topic.position };
  if (route === 'watch') return stream(topic, query, signal);
  if (key === undefined) {
    const keys = [...topic.records.keys()].filter((k) => k.startsWith(query.get('prefix') ?? '')).sort();
    return ndjson(keys.map((k) => topic.records.get(k)), headers);
  }
  const line = topic.records.get(keyOf(key, query));
  if (!line) return json(404, { type: '/problems/not-found' }, headers);
  return answer(200, Uint8Array.from(atob(line.base64), (c) => c.charCodeAt(0)), headers);
}

function keyOf(path, query) {
  return query.get('keyEncoding') === 'base64url' ? atob(path) : decodeURIComponent(path);
}

function topicOf(name) {
  if (!topics.has(name)) topics.set(name, new Topic());
  return topics.get(name);
}

export class KafkaKeyValueMock extends KafkaKeyValue {
  /** Forgets every topic; clients made before go on with what they had. */
  static reset() {
    topics.clear();
  }

  constructor({ cacheHost = 'http://cache.mock', topicName, ...options }) {
    super({ ...options, cacheHost, topicName, fetchImpl: fetchFromMemory });
  }
}

export default KafkaKeyValueMock;
