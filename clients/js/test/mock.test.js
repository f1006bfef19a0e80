import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import KafkaKeyValue, { NotFoundError } from 'kkv-client/mock';
import { Heard, upTo } from './support.js';

beforeEach(() => KafkaKeyValue.reset());

function client(options = {}) {
  return new KafkaKeyValue({ topicName: 't', logger: null, ...options });
}

test('the mock holds what is put', async () => {
  const cache = client({ pixyHost: 'http://pixy' });
  await cache.onReady();
  await assert.rejects(cache.get('A'), NotFoundError);
  for (const key of ['A', 'a/b', '..', 'ü', '']) {
    for (const value of [{ id: 'A' }, 'x'.repeat(1 << 20), null]) {
      await cache.put(key, value);
      assert.deepEqual(await cache.get(key), value);
    }
  }
  assert.equal(await client().get('A'), null); // another client of the topic, one that writes through the cache
  await client().put('A', 1);
  assert.equal(await cache.get('A'), 1);
  await assert.rejects(client({ topicName: 'u' }).get('A'), NotFoundError);
  await assert.rejects(cache.put('A', undefined), TypeError);
  await cache.delete('A');
  await assert.rejects(cache.get('A'), NotFoundError);
  KafkaKeyValue.reset();
  await assert.rejects(cache.get(''), NotFoundError);
});

test('the mock keeps copies', async () => {
  const cache = client();
  const value = { n: 1 };
  await cache.put('A', value);
  value.n = 2;
  (await cache.get('A')).n = 3;
  assert.deepEqual(await cache.get('A'), { n: 1 });
});

test('handlers of the mock hear of updates and deletes of all clients', async () => {
  const cache = client();
  await cache.put('before', 1);
  await cache.onReady();
  const heard = new Heard();
  const stop = cache.onUpdate(heard.handler);
  await client().put('A', { n: 1 });
  await heard.until('A={"n":1}');
  await client().delete('A');
  await heard.until('-A');
  stop();
  await client().put('A', 2);
  cache.onUpdate(heard.handler);
  await client().put('B', 3);
  await heard.until('B=3');
  assert.equal(heard.text, 'A={"n":1} -A B=3');
  cache.close();
});

test('the mock watches and resumes', async () => {
  const cache = client();
  await cache.put('a/1', 1);
  await cache.put('b', 1);
  const first = cache.watch({ prefix: 'a/' });
  const { text, position } = await upTo(first, 'synced');
  assert.equal(text, 'a/1=1 synced');
  await first.return();
  await cache.put('a/2', 2);
  await cache.delete('a/1');
  const second = cache.watch({ prefix: 'a/', since: position });
  assert.equal((await upTo(second, 'synced')).text, 'a/2=2 -a/1 synced');
  await cache.put('b', 2);
  await cache.put('a/2', 3);
  assert.equal((await upTo(second, 'put')).text, 'a/2=3');
  cache.close();
  assert.ok((await second.next()).done);
});
