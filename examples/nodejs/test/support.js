'use strict';

// What the test files share: the running app, and waiting for updates.
//
// The tests run against a kkv that is already there and pushes to this app. test/nodejs of the repository starts one; by hand:
//
//   kkv dev --webhook-target http://127.0.0.1:8093/kafka-keyvalue/v1/updates
//   CACHE_HOST=http://127.0.0.1:8091 PIXY_HOST=http://127.0.0.1:8092 PORT=8093 npm test

process.env.KAFKA_KEYVALUE_LOG_LEVEL ??= 'fatal';

const { once } = require('node:events');
const { createApp, createCache } = require('../app');

const {
  CACHE_HOST = 'http://127.0.0.1:8091',
  PIXY_HOST = 'http://127.0.0.1:8092',
  TOPIC_NAME = 'sidecar-demo',
  PORT = '8093',
  // Where a test has records written to partitions of its choice, as a Kafka client would: see produce below.
  PRODUCE_URL
} = process.env;

/** Starts the app and its cache client; `updates` collects every callback. */
async function start() {
  const cache = createCache({ cacheHost: CACHE_HOST, pixyHost: PIXY_HOST, topicName: TOPIC_NAME });
  await cache.onReady();
  const updates = new Updates();
  cache.onUpdate((key, value) => updates.add(key, value));
  const server = createApp(cache).listen(Number(PORT), '127.0.0.1');
  await once(server, 'listening');
  return {
    cache,
    updates,
    url: `http://127.0.0.1:${server.address().port}`,
    async stop() {
      cache.close();
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    }
  };
}

/** The updates heard so far, in order, each { key, value, at }, where at is in milliseconds as of performance.now. */
class Updates {
  heard = [];
  #waiting = new Set();

  add(key, value) {
    this.heard.push({ key, value, at: performance.now() });
    for (const look of this.#waiting) look();
  }

  /** Resolves to the first update that the predicate holds for, heard before or after the call; rejects after the timeout. */
  async until(predicate, what, timeoutMs = 20_000) {
    return new Promise((resolve, reject) => {
      const end = (settle, result) => {
        clearTimeout(timer);
        this.#waiting.delete(look);
        settle(result);
      };
      const look = () => {
        const found = this.heard.find(predicate);
        if (found) end(resolve, found);
      };
      const timer = setTimeout(
        () => end(reject, new Error(`not heard within ${timeoutMs} ms: ${what}; heard: ${JSON.stringify(this.heard)}`)),
        timeoutMs
      );
      this.#waiting.add(look);
      look();
    });
  }
}

/**
 * Writes records straight to Kafka, in one batch a partition: [{ partition, key, value }], value null for a delete.
 * Resolves, when all are acknowledged, to their offsets.
 */
async function produce(records) {
  const res = await fetch(PRODUCE_URL, { method: 'POST', body: JSON.stringify(records) });
  if (!res.ok) throw new Error(`produce: ${res.status} ${await res.text()}`);
  return res.json();
}

/** For tests that need produce: where nobody offers it, they are skipped with a word on why. */
const needsProduce = PRODUCE_URL ? {} : { skip: 'needs PRODUCE_URL: go test ./test/nodejs offers it' };

module.exports = { PIXY_HOST, TOPIC_NAME, needsProduce, produce, start };
