// The client against servers that do as told, which the real one does rarely.
import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { after, test } from 'node:test';
import KafkaKeyValue, { NotFoundError, StatusError } from 'kkv-client';
import { Heard, upTo } from './support.js';

const put = (key, value, offset, position) => ({ type: 'put', key, value, partition: 0, offset, timestamp: 1, position });
const synced = (position) => ({ type: 'synced', position });

const open = [];
after(() => open.forEach((cache) => cache.close()));

/** A client whose requests are answered in order: a watch by lines (in pieces, if a string), or by a Response. */
function scripted(answers, options = {}) {
  const asked = [];
  const fetchImpl = async (url, { headers, signal }) => {
    asked.push({ query: new URL(url).searchParams, headers, at: performance.now() });
    const answer = answers.shift();
    if (answer instanceof Response) return answer;
    if (answer instanceof Error) throw answer;
    const pieces = answer === undefined ? [] : typeof answer === 'string' ? answer.match(/[^]{1,3}/g) : answer.map((l) => JSON.stringify(l) + '\n');
    const body = new ReadableStream({
      async start(controller) {
        for (const p of pieces) controller.enqueue(new TextEncoder().encode(p));
        if (answer !== undefined) return controller.close();
        signal.addEventListener('abort', () => controller.error(signal.reason)); // says no more
      }
    });
    return new Response(body);
  };
  const cache = new KafkaKeyValue({ cacheHost: 'http://cache', topicName: 't', logger: null, fetchImpl, ...options });
  open.push(cache);
  return { cache, asked };
}

test('lines come whole however they are cut', async () => {
  const text = [put('ü', { 日: '本\n' }, 0), { type: 'put', keyBase64: '/w==', base64: '/wA=', partition: 0, offset: 1, timestamp: 1 }, synced('p1')].map((l) => JSON.stringify(l) + '\n').join('');
  const { cache } = scripted([text]);
  const changes = cache.watch();
  const got = [(await changes.next()).value, (await changes.next()).value, (await changes.next()).value];
  assert.deepEqual(got[0], { type: 'put', key: 'ü', value: { 日: '本\n' }, partition: 0, offset: 0, timestamp: 1 });
  assert.deepEqual([got[1].key, got[1].value], [new Uint8Array([0xff]), new Uint8Array([0xff, 0])]);
  assert.deepEqual(got[2], { type: 'synced', position: 'p1' });
  await changes.return();
});

test('a watch resumes from the last position, and starts anew where there is none', async () => {
  const { cache, asked } = scripted([
    [put('a', 1, 0)], // cut short in the state
    [put('a', 1, 0), put('b', 1, 1), synced('p1'), put('a', 2, 2, 'p2'), put('b', 2, 3)], // cut short in a batch
    [put('b', 2, 3), { type: 'delete', key: 'a', partition: 0, offset: 4, timestamp: 1 }, synced('p3')],
    [{ type: 'reset', reason: 'beyond-horizon' }, put('c', 1, 5)], // cut short in a reset
    new Response('{"type":"/problems/behind","detail":"wait"}', { status: 503 }),
    new Error('no connection'),
    [put('c', 1, 5), synced('p4')],
    new Response('', { status: 409 }), // a position that nobody knows any more
    [put('d', 1, 6), synced('q1')],
    new Response('', { status: 404 }), // the topic may come back
    '{"type":"progr', // no line
    undefined
  ]);
  const changes = cache.watch();
  assert.equal((await upTo(changes, 'synced')).text, 'a=1 reset:reconnected a=1 b=1 synced');
  assert.equal((await upTo(changes, 'synced')).text, 'a=2 b=2 b=2 -a synced');
  assert.equal((await upTo(changes, 'synced')).text, 'reset:beyond-horizon c=1 reset:reconnected c=1 synced');
  assert.equal((await upTo(changes, 'synced')).text, 'reset:reconnected d=1 synced');
  const next = changes.next();
  while (asked.length < 12) await new Promise(setImmediate);
  assert.deepEqual(asked.map(({ query }) => query.get('since')), [null, null, 'p2', 'p3', null, null, null, 'p4', null, 'q1', 'q1', 'q1']);
  cache.close();
  assert.ok((await next).done);
});

test('handlers hear of the true differences', async () => {
  const { cache } = scripted([
    [synced('p0'), put('a', 1, 0, 'p1'), put('b', 1, 1), put('c', 1, 2, 'p2')],
    [put('b', 1, 1), put('a', 2, 3), synced('p3')], // b comes again
    [{ type: 'reset', reason: 'beyond-horizon' }, put('a', 2, 3), put('x', 1, 4), synced('p4')],
    [put('a', 3, 5)], // not whole yet: told with what completes it
    [put('a', 4, 6), synced('p5')],
    undefined
  ]);
  const heard = new Heard();
  cache.onUpdate(heard.handler);
  await heard.until('a=4');
  assert.equal(heard.text, 'a=1 b=1 c=1 a=2 x=1 -b -c a=3 a=4');
});

test('a server that says when to come back is left alone until then', async () => {
  const { cache, asked } = scripted([[synced('p0'), { type: 'closing', retryMs: 300 }], [put('a', 1, 0, 'p1')], undefined]);
  const heard = new Heard();
  cache.onUpdate(heard.handler);
  await heard.until('a=1');
  assert.ok(asked[1].at - asked[0].at >= 295, `came back after ${asked[1].at - asked[0].at} ms`);
  cache.close();
});

test('reads ask for what was read, written and told, and for it alone', async () => {
  const answer = (position, body = '1', status = 200) => new Response(body, { status, headers: { 'kkv-position': position } });
  const ack = (partition, offset, headers) => new Response(JSON.stringify({ partition, offset }), { headers });
  const { cache, asked } = scripted([
    answer('p1'), answer('p2', '', 404), ack(0, 7), ack(1, 3), ack(1, 4, { 'kkv-position': 'w' }), answer('p3'), answer('p4'),
    new Response('{"type":"/problems/position-from-another-topic"}', { status: 409 }), answer('q1'), answer('q2'),
    [{ type: 'synced', position: 'q3' }, put('a', 1, 0, 'q4')], undefined
  ]);
  const ask = () => asked.at(-1).headers['kkv-at-least'];
  await cache.get('a');
  assert.equal(ask(), undefined);
  await assert.rejects(cache.get('b'), NotFoundError);
  assert.equal(ask(), 'p1');
  await cache.put('a', 1);
  await cache.put('b', 1);
  await cache.put('b', 2);
  await cache.get('a');
  assert.equal(ask(), 'p2,0:7,w');
  await cache.get('a', { fresh: true, maxStaleMs: 20 });
  assert.equal(ask(), 'p3');
  assert.deepEqual([asked.at(-1).headers['kkv-consistency'], asked.at(-1).headers['kkv-max-stale']], ['fresh', '20ms']);
  await cache.get('a'); // the topic was made anew: forgets, and asks once more
  assert.equal(ask(), undefined);
  await cache.get('a', { atLeast: '2:9' });
  assert.equal(ask(), 'q1,2:9');
  const heard = new Heard();
  cache.onUpdate(heard.handler);
  await heard.until('a=1');
  await cache.get('a').catch(() => {}); // there is no answer left
  assert.equal(ask(), 'q2,q4');
  cache.close();
});

test('a state is not older than what was written', async () => {
  const { cache, asked } = scripted([
    new Response('{"partition":0,"offset":7}'),
    new Response('{"type":"/problems/position-from-another-topic"}', { status: 409 }), // forgets, and asks once more
    [synced('p1')],
    undefined
  ]);
  await cache.put('a', 1);
  const changes = cache.watch();
  assert.equal((await upTo(changes, 'synced')).text, 'synced');
  const next = changes.next();
  while (asked.length < 4) await new Promise(setImmediate);
  assert.deepEqual(asked.map(({ headers }) => headers['kkv-at-least']), [undefined, '0:7', undefined, undefined]);
  assert.equal(asked[3].query.get('since'), 'p1');
  cache.close();
  assert.ok((await next).done);
});

test('calls are repeated only where that does no harm', async () => {
  const refused = Object.assign(new TypeError('fetch failed'), { cause: { code: 'ECONNREFUSED' } });
  const reset = Object.assign(new TypeError('fetch failed'), { cause: { code: 'ECONNRESET' } });
  const attempts = [];
  const retry = { nRetries: 3, intervalMs: 1, onRetryAttempt: ({ retriesLeft }) => attempts.push(retriesLeft) };
  let { cache } = scripted([refused, new Response('{"error":"away"}', { status: 503 }), new Response('{"partition":0,"offset":5}')]);
  assert.equal(await cache.put('a', 1, retry), 5);
  assert.deepEqual(attempts, [2, 1]);
  for (const once of [reset, new Response('{"type":"/problems/outcome-unknown","title":"who knows"}', { status: 504 }), new Response('', { status: 413 })]) {
    const s = scripted([once]);
    await assert.rejects(s.cache.put('a', 1, retry), (err) => err === reset || (err instanceof StatusError && err.retryable === (err.status === 504)));
    assert.equal(s.asked.length, 1);
  }
  ({ cache } = scripted([refused, refused]));
  await assert.rejects(cache.get('a', { nRetries: 1, intervalMs: 1 }), refused);
});

test('a list that breaks off is an error', async () => {
  for (const [body, want] of [
    [JSON.stringify(put('a', 1, 0)) + '\n{"type":"pu', /broke off/],
    [JSON.stringify(put('a', 1, 0)) + '\n{"type":"error","detail":"took too long"}\n', /took too long/]
  ]) {
    const values = [];
    await assert.rejects(scripted([body]).cache.streamValues((v) => values.push(v)), want);
    assert.deepEqual(values, [1]);
  }
});

test('a watch that ended leaves nothing at the caller\'s signal', async () => {
  const { cache } = scripted([[synced('p1')]]);
  const { signal } = new AbortController();
  for await (const change of cache.watch({ signal })) {
    assert.equal(change.type, 'synced');
    break;
  }
  assert.deepEqual(getEventListeners(signal, 'abort'), []);
});

test('a 409 that is not about a position refuses the watch', async () => {
  const { cache, asked } = scripted([new Response('', { status: 409 })]);
  await assert.rejects(cache.watch().next(), (err) => err instanceof StatusError && err.status === 409);
  assert.equal(asked.length, 1);
});
