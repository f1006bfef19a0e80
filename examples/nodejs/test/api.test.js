'use strict';

// The API example of the README, call by call.

const assert = require('node:assert/strict');
const { after, before, test } = require('node:test');
const { NotFoundError } = require('@yolean/kafka-keyvalue');
const { start } = require('./support');

let app;
before(async () => { app = await start(); });
after(() => app.stop());

test('put, onUpdate with the value, get', async () => {
  const green = { id: 'A', color: 'green' };
  const offset = await app.cache.put('A', green);
  assert.equal(typeof offset, 'number');
  assert.deepEqual(await app.cache.get('A'), green);
  const update = await app.updates.until(u => u.key === 'A', 'A');
  assert.deepEqual(update.value, green);
});

test('get after put never gives an older value', async () => {
  for (let n = 1; n <= 200; n++) {
    await app.cache.put('counter', { id: 'counter', color: 'white', n });
    const { n: got } = await app.cache.get('counter');
    assert.equal(got, n, `after put ${n} get gave ${got}`);
  }
  await app.updates.until(u => u.key === 'counter' && u.value.n === 200, 'counter at 200');
  const heard = app.updates.heard.filter(u => u.key === 'counter').map(u => u.value.n);
  assert.deepEqual(heard, heard.toSorted((a, b) => a - b), 'updates of one key went backwards');
});

test('a missing key is a NotFoundError', async () => {
  await assert.rejects(app.cache.get('no-such-key'), NotFoundError);
});

test('streamValues gives every value', async () => {
  await app.cache.put('B', { id: 'B', color: 'blue' });
  await app.cache.put('C', { id: 'C', color: 'it has\nlines and "quotes" and åäö' });
  const values = new Map();
  await app.cache.streamValues(value => values.set(value.id, value.color));
  assert.equal(values.get('A'), 'green');
  assert.equal(values.get('B'), 'blue');
  assert.equal(values.get('C'), 'it has\nlines and "quotes" and åäö');
});

test('the page of an id has its colour', async () => {
  const posted = await fetch(`${app.url}/box%201`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ color: 'te"al' })
  });
  assert.equal(posted.status, 204);
  const res = await fetch(`${app.url}/box%201`);
  assert.equal(res.status, 200);
  const html = await res.text();
  assert.match(html, /background-color: te&#34;al"/);
  assert.match(html, /Hello Kafka!/);
  assert.equal((await fetch(`${app.url}/never-written`)).status, 404);
});

test('metrics', async () => {
  await app.updates.until(u => u.key === 'A', 'A');
  const metrics = await (await fetch(`${app.url}/metrics`)).text();
  for (const name of ['kafka_key_value_updates_received_total', 'kafka_key_value_get_latency_seconds_count',
    'kafka_key_value_stream_latency_seconds_count', 'kafka_key_value_last_seen_offset']) {
    assert.match(metrics, new RegExp(`^${name}\\{[^}]*\\} [1-9]`, 'm'), name);
  }
  assert.doesNotMatch(metrics, /^kafka_key_value_update_failures_total\{/m, 'an update failed');
});
