'use strict';

// What the npm client needs of kkv's pushes beyond the plain case. Its logic, and so its weak spots, are in the client's
// updateListener: it compares the highest offset of a push, over all partitions, with the last one heard of for the key, and
// gets the keys of one push one after another, a deleted one with five retries a second apart.

const assert = require('node:assert/strict');
const { after, before, test } = require('node:test');
const { needsProduce, produce, start } = require('./support');

let app;
before(async () => { app = await start(); });
after(() => app.stop());

const filler = (partition, count) =>
  Array.from({ length: count }, (_, n) => ({ partition, key: `filler-${partition}`, value: { id: `filler-${partition}`, n } }));

test('a low offset of one partition is heard beside a high one of another', needsProduce, async () => {
  // Bring the partitions to offsets that are far apart, whatever was written before.
  const [{ offset: end0 }, { offset: end1 }] = await produce([...filler(0, 1), ...filler(1, 1)]);
  await produce(filler(1, Math.max(100, end0 + 100 - end1)));
  // Both partitions in one go, so that a cache that merges the pushes of several partitions does it here.
  const [low, high] = await produce([
    { partition: 0, key: 'low', value: { id: 'low', n: 1 } },
    { partition: 1, key: 'high', value: { id: 'high', n: 1 } }
  ]);
  assert.ok(high.offset > low.offset + 10, `offsets ${low.offset} and ${high.offset}`);
  await app.updates.until(u => u.key === 'low' && u.value.n === 1, 'low at 1');
  await app.updates.until(u => u.key === 'high', 'high');

  const [next] = await produce([{ partition: 0, key: 'low', value: { id: 'low', n: 2 } }]);
  assert.ok(next.offset < high.offset);
  await app.updates.until(u => u.key === 'low' && u.value.n === 2, 'low at 2');
});

test('a delete does not hold up the next key', needsProduce, async () => {
  await produce([{ partition: 0, key: 'goes', value: { id: 'goes' } }]);
  await app.updates.until(u => u.key === 'goes', 'goes');

  const began = performance.now();
  await produce([
    { partition: 0, key: 'goes', value: null },
    { partition: 0, key: 'comes', value: { id: 'comes' } }
  ]);
  const { at } = await app.updates.until(u => u.key === 'comes', 'comes');
  assert.ok(at - began < 3000, `the key after a deleted one was heard of only after ${Math.round(at - began)} ms`);
  await assert.rejects(app.cache.get('goes'), { notFound: true });
});
