'use strict';

// The app beside several replicas of kkv, each of which pushes every change by itself: what the npm client tells the app in the end is
// the newest value of every key.

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { produce, start } = require('../../examples/nodejs/test/support');

const { SEED = '1', ROUNDS = '30' } = process.env;

// mulberry32: enough for a test, and seeded.
let state = Number(SEED);
const random = n => {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) % n;
};

test(`the last value of every key is heard, seed ${SEED}`, async () => {
  const app = await start();
  try {
    const last = new Map();
    let n = 0;
    for (let round = 0; round < Number(ROUNDS); round++) {
      const records = Array.from({ length: 1 + random(20) }, () => {
        const k = random(15);
        return { partition: k % 3, key: `replicated-${k}`, value: { id: `replicated-${k}`, n: ++n } };
      });
      for (const { key, value } of records) last.set(key, value.n);
      await produce(records);
    }
    for (const [key, want] of last) await app.updates.until(u => u.key === key && u.value.n === want, `${key} at ${want}`);
    for (const [key, want] of last) {
      const heard = app.updates.heard.filter(u => u.key === key).map(u => u.value.n);
      assert.equal(heard.at(-1), want, `${key} ends with ${heard.slice(-5)}`);
      assert.deepEqual(heard, heard.toSorted((a, b) => a - b), `${key} went back`);
    }
  } finally {
    await app.stop();
  }
});
