'use strict';

const express = require('express');
const promClient = require('prom-client');
const kkv = require('@yolean/kafka-keyvalue');

const { KafkaKeyValueWithProducer, NotFoundError, getOnUpdateRoute, ON_UPDATE_DEFAULT_PATH } = kkv;
const KafkaKeyValue = kkv.default;

/**
 * The cache client: reads from the cache beside the app, writes through the gateway.
 *
 * In older versions of the client this was `new KafkaKeyValue({ cacheHost, metrics, pixyHost, topicName })`; since `put`
 * moved, an app that writes uses withPixyProducer with the same options.
 */
function createCache({ cacheHost, pixyHost, topicName }) {
  return KafkaKeyValueWithProducer.withPixyProducer({
    cacheHost,
    // The client names its metrics itself and registers them at prom-client's default registry, so: once in a process.
    metrics: KafkaKeyValue.createMetrics(promClient.Counter, promClient.Gauge, promClient.Histogram),
    pixyHost,
    topicName
  });
}

/** Makes the Express app; it does not listen yet. */
function createApp(cache) {
  const app = express();

  // kkv posts here when a key has changed. The route answers 204 at once, the client then gets the key's value and calls
  // what was given to cache.onUpdate.
  app.post(ON_UPDATE_DEFAULT_PATH, getOnUpdateRoute());

  app.get('/metrics', async (req, res) => {
    res.type(promClient.register.contentType).send(await promClient.register.metrics());
  });

  app.get('/:id', async (req, res, next) => {
    try {
      const { color } = await cache.get(encodeURIComponent(req.params.id));
      res.send(page(color));
    } catch (err) {
      if (err instanceof NotFoundError) return res.status(404).send(page('white', 'Nothing here yet'));
      next(err);
    }
  });

  app.post('/:id', express.json(), async (req, res, next) => {
    try {
      const { id } = req.params;
      await cache.put(encodeURIComponent(id), { id, color: String(req.body.color) });
      res.sendStatus(204);
    } catch (err) {
      next(err);
    }
  });

  return app;
}

function page(color, text = 'Hello Kafka!') {
  return `<!doctype html>
<meta charset="utf-8">
<title>kkv</title>
<body style="background-color: ${escape(color)}"><h1>${escape(text)}</h1></body>
`;
}

/** Values come from a topic that anybody may write to: nothing of them is markup. */
function escape(text) {
  return String(text).replace(/[&<>"']/g, c => `&#${c.charCodeAt(0)};`);
}

module.exports = { createApp, createCache };
