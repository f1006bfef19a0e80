'use strict';

const { createApp, createCache } = require('./app');

const {
  CACHE_HOST = 'http://localhost:8091',
  PIXY_HOST = 'http://localhost:8092',
  TOPIC_NAME = 'sidecar-demo',
  PORT = '8093'
} = process.env;

const cache = createCache({ cacheHost: CACHE_HOST, pixyHost: PIXY_HOST, topicName: TOPIC_NAME });

async function main() {
  await cache.onReady();
  cache.onUpdate((key, value) => console.log(key, value));

  const server = createApp(cache).listen(Number(PORT), () => {
    console.log(`http://localhost:${server.address().port}/A shows the colour of A`);
  });
  for (const signal of ['SIGINT', 'SIGTERM']) {
    process.on(signal, () => {
      cache.close();
      server.close();
    });
  }
}

main().catch(err => {
  console.error(err);
  process.exitCode = 1;
});
