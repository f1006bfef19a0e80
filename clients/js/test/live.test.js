import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import promClient from 'prom-client';
import KafkaKeyValue, { createMetrics, NotFoundError, StatusError } from 'kkv-client';
import { CACHE_HOST, control, Heard, needsKkv, PIXY_HOST, TOPIC_NAME, upTo, WRITABLE_HOST } from './support.js';

const metrics = createMetrics(promClient.Counter, promClient.Gauge, promClient.Histogram);
const open = [];

function client(options = {}) {
  const cache = new KafkaKeyValue({ cacheHost: CACHE_HOST, pixyHost: PIXY_HOST, topicName: TOPIC_NAME, metrics, logger: null, ...options });
  open.push(cache);
  return cache;
}

after(() => open.forEach((cache) => cache.close()));

test('every key and value comes back as it went', needsKkv, async () => {
  for (const cache of [client(), client({ cacheHost: WRITABLE_HOST, pixyHost: undefined }), client({ gzip: true })]) {
    for (const key of ['A', 'a/b', 'a//b', '..', '.', '%2F', 'a b', 'a+b&c=d#e', '?', 'ü', '日本', new Uint8Array([0xff, 0xfe])]) {
      for (const value of [{ id: 'A', list: [1, null] }, 'text\nof two lines', 0, null]) {
        const offset = await cache.put(key, value);
        assert.equal(typeof offset, 'number');
        assert.deepEqual(await cache.get(key), value, `key ${key}`);
      }
      await cache.delete(key);
      await assert.rejects(cache.get(key), (err) => err instanceof NotFoundError && err.notFound);
    }
  }
});

test('a get sees the own write, every time, on another replica too', needsKkv, async () => {
  const cache = client();
  const other = client({ cacheHost: WRITABLE_HOST });
  for (let i = 0; i < 100; i++) {
    const offset = await cache.put('own', i);
    assert.equal(await cache.get('own'), i);
    const { partition } = (await cache.list({ prefix: 'own' }).next()).value;
    assert.equal(await other.get('own', { atLeast: `${partition}:${offset}` }), i);
    assert.equal(await other.get('own', { fresh: true }), i);
  }
});

test('updates and deletes are told with their value, once a get shows them', needsKkv, async () => {
  const cache = client();
  await cache.put('before', 1);
  await cache.onReady();
  const heard = new Heard();
  const seen = [];
  cache.onUpdate(heard.handler);
  cache.onUpdate(async (key, value) => seen.push([key, value, await cache.get(key).catch((err) => err.name)]));
  cache.onUpdate(() => {
    throw new Error('a handler that fails is its own trouble');
  });
  const puts = new Heard();
  cache.on('put', puts.handler);
  await cache.put('u', { n: 1 });
  await heard.until('u={"n":1}'); // or the second may be all that is left to tell
  await cache.put('u', { n: 2 });
  await heard.until('u={"n":2}');
  await cache.delete('u');
  await heard.until('-u');
  assert.equal(heard.text, 'u={"n":1} u={"n":2} -u');
  assert.equal(puts.text, 'u={"n":1} u={"n":2}');
  const { change } = heard.all[2];
  assert.equal(change.type, 'delete');
  assert.ok(change.offset > heard.all[1].change.offset && change.timestamp > 0);
  while (seen.length < 3) await new Promise(setImmediate);
  for (const [key, value, got] of seen.slice(-1)) assert.deepEqual([key, value, got], ['u', undefined, 'NotFoundError']);
});

test('what changed while the cache was away is told after it, and nothing else', needsKkv, async () => {
  const writer = client({ cacheHost: WRITABLE_HOST }); // reads from the other replica
  await writer.put('r/same', 1);
  await writer.put('r/gone', 1);
  await writer.put('r/changed', 1);
  const cache = client();
  assert.equal(await cache.get('r/changed', { fresh: true }), 1);
  await cache.onReady();
  const heard = new Heard();
  cache.onUpdate(heard.handler);
  const changes = cache.watch({ prefix: 'r/' });
  assert.equal((await upTo(changes, 'synced')).text, 'r/changed=1 r/gone=1 r/same=1 synced');
  await writer.put('r/live', 1);
  await heard.until('r/live=1');
  assert.equal((await upTo(changes, 'put')).text, 'r/live=1');
  for (const how of ['stop', 'kill']) {
    await control(how);
    await writer.put('r/changed', how);
    await writer.delete('r/gone');
    await control('start');
    const { text } = await upTo(changes, 'synced');
    assert.equal(text.split(' ').sort().join(' '), `-r/gone r/changed="${how}" synced`);
    await heard.until(`r/changed="${how}"`); // told at once with what else was missed
    await writer.put('r/gone', how);
    await heard.until(`r/gone="${how}"`);
    assert.equal((await upTo(changes, 'put')).text, `r/gone="${how}"`);
  }
  assert.equal(heard.text.replaceAll(/r\/changed="\w+" -r\/gone|-r\/gone r\/changed="\w+"/g, 'away'), 'r/live=1 away r/gone="stop" away r/gone="kill"');
  await changes.return();
});

test('a watch goes on where another one ended', needsKkv, async () => {
  const cache = client();
  await cache.put('w/a', 1);
  const first = cache.watch({ prefix: 'w/' });
  const { text, position } = await upTo(first, 'synced');
  assert.equal(text, 'w/a=1 synced');
  await first.return();
  await cache.put('w/b', 2);
  await cache.delete('w/a');
  await assert.rejects(cache.get('w/a'), NotFoundError); // so the replica has come so far, of which the next client knows nothing
  const second = client().watch({ prefix: 'w/', since: position, keysOnly: true });
  assert.equal((await upTo(second, 'synced')).text.split(' ').sort().join(' '), '-w/a synced w/b=undefined');
  await second.return();
  const now = cache.watch({ key: 'w/b', since: 'now' });
  assert.equal((await upTo(now, 'synced')).text, 'synced');
  await cache.put('w/c', 3);
  await cache.put('w/b', 3);
  assert.equal((await upTo(now, 'put')).text, 'w/b=3');
  await now.return();
  await assert.rejects(cache.watch({ since: 'nonsense' }).next(), (err) => err instanceof StatusError && err.type === 'bad-position');
  const stop = new AbortController();
  const stopped = cache.watch({ signal: stop.signal });
  await stopped.next();
  stop.abort(new Error('enough'));
  await assert.rejects(upTo(stopped, 'never'), /enough/);
});

test('lists are in key order', needsKkv, async () => {
  const cache = client();
  for (const key of ['l/c', 'l/a', 'l/b']) await cache.put(key, key);
  const got = [];
  for await (const { key, value, offset, timestamp } of cache.list({ prefix: 'l/' })) {
    assert.ok(offset >= 0 && Math.abs(Date.now() - timestamp) < 600_000);
    got.push(`${key}=${value}`);
  }
  assert.deepEqual(got, ['l/a=l/a', 'l/b=l/b', 'l/c=l/c']);
  const values = [];
  await cache.streamValues((value) => values.push(value));
  assert.ok(['l/a', 'l/b', 'l/c'].every((v) => values.includes(v)));
});

test('a topic that the cache does not serve is an error that says so', needsKkv, async () => {
  const cache = client({ topicName: 'another' });
  const served = (err) => err instanceof StatusError && !(err instanceof NotFoundError) && err.status === 404 && err.message.includes(TOPIC_NAME);
  await assert.rejects(cache.onReady(), served);
  await assert.rejects(cache.get('A'), served);
  await assert.rejects(cache.watch().next(), served);
  await assert.rejects(cache.put('A', 1), (err) => err instanceof StatusError && err.message.includes('another'));
});

test('after close nothing goes on', needsKkv, async () => {
  const cache = client();
  const heard = new Heard();
  cache.onUpdate(heard.handler);
  await cache.onReady();
  const changes = cache.watch();
  await changes.next();
  cache.close();
  let next;
  while (!(next = await changes.next()).done); // what had arrived
  await assert.rejects(cache.get('A'), /closed/);
  await assert.rejects(cache.put('A', 1), /closed/);
  await assert.rejects(cache.onReady(), /closed/);
  assert.equal(heard.text, '');
});

test('metrics have their numbers', needsKkv, async () => {
  const text = await promClient.register.metrics();
  const name = CACHE_HOST.replace('http://', '');
  for (const want of [
    `kafka_key_value_updates_received_total{cache_name="${name}",topic="${TOPIC_NAME}"} [1-9]`,
    `kafka_key_value_last_seen_offset{cache_name="${name}",topic="${TOPIC_NAME}",partition="[0-9]+"} [0-9]+`,
    `kafka_key_value_get_latency_seconds_count{cache_name="${name}"} [1-9]`,
    `kafka_key_value_parse_latency_seconds_count{cache_name="${name}"} [1-9]`,
    `kafka_key_value_stream_latency_seconds_count{cache_name="${name}"} 1`,
    `kafka_key_value_watch_up{cache_name="${name}",topic="${TOPIC_NAME}"} [01]`
  ]) {
    assert.match(text, new RegExp(want.replaceAll(/[{}]/g, '\\$&')));
  }
});
