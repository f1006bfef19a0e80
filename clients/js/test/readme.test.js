import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import KafkaKeyValue from 'kkv-client';
import { CACHE_HOST, needsKkv, PIXY_HOST, TOPIC_NAME } from './support.js';

const packageDir = fileURLToPath(new URL('..', import.meta.url));

async function examples() {
  const readme = await readFile(new URL('../README.md', import.meta.url), 'utf8');
  return [...readme.matchAll(/```js\n(.*?)```/gs)].map((m) => m[1]);
}

// Runs code as a module of its own process, and returns what it prints once that matches.
async function run(code, pattern, env = {}) {
  const child = spawn(process.execPath, ['--import', './test/hosts.js', '--input-type=module'], {
    cwd: packageDir,
    env: { ...process.env, ...env },
    stdio: ['pipe', 'pipe', 'inherit']
  });
  child.stdin.end(code);
  const timer = setTimeout(() => child.kill(), 30_000);
  let out = '';
  for await (const data of child.stdout) {
    out += data;
    if (pattern.test(out)) break;
  }
  clearTimeout(timer);
  child.kill();
  return out;
}

test('the first example of README.md runs as it stands', { ...needsKkv, timeout: 60_000 }, async () => {
  const [example] = await examples();
  assert.match(example, /new KafkaKeyValue\(\{\n {2}cacheHost: 'http:\/\/localhost:8091',\n/); // it is the one that this test is about
  const cache = new KafkaKeyValue({ cacheHost: CACHE_HOST, pixyHost: PIXY_HOST, topicName: TOPIC_NAME });
  await cache.put('A', { id: 'A', color: 'red' }); // a get without one to catch its rejection would end the process
  assert.equal(await run(example, /green/, { HOSTS: `http://localhost:8091=${CACHE_HOST} http://pixy=${PIXY_HOST}` }), "A { id: 'A', color: 'green' }\n");
  assert.deepEqual(await cache.get('A', { fresh: true }), { id: 'A', color: 'green' });
});

test('the example with the mock runs as it stands', { timeout: 60_000 }, async () => {
  const mock = (await examples()).find((e) => e.includes("'kkv-client/mock'"));
  assert.equal(await run(mock, /\n/), "{ id: 'A', color: 'red' }\n");
});
