// Compiled, not run: an application in TypeScript, strict.
import KafkaKeyValue, { Change, createMetrics, KafkaKeyValueWithProducer, NotFoundError, StatusError } from 'kkv-client';
import KafkaKeyValueMock from 'kkv-client/mock';
import * as promClient from 'prom-client';

export async function app(cache: KafkaKeyValue): Promise<number> {
  await cache.onReady();
  const stop: () => void = cache.onUpdate((key: string, value, change) => {
    if (change.type === 'delete') return change.offset?.toFixed();
    return value.color;
  });
  try {
    await cache.get('A', { fresh: true, nRetries: 0 });
  } catch (err) {
    if (err instanceof NotFoundError) return 0;
    if (err instanceof StatusError && err.retryable) return err.status;
  }
  let last: string | undefined;
  for await (const change of cache.watch({ prefix: 'A', since: 'now' })) {
    last = change.position ?? last;
    if (change.type === 'synced') break;
    if (change.type === 'put') console.log(change.key, change.value, change.headers?.[0].value?.length);
    if (change.type === 'reset') console.log(change.reason);
  }
  for await (const { key, value, timestamp } of cache.list({ prefix: 'A' })) console.log(key, value, timestamp + 1);
  stop();
  cache.close();
  return cache.put(new Uint8Array([1]), { id: 'A' });
}

const metrics = createMetrics(promClient.Counter, promClient.Gauge, promClient.Histogram);
export const real = new KafkaKeyValue({ cacheHost: 'http://a', metrics, pixyHost: 'http://b', topicName: 't', fetchImpl: fetch });
export const old = KafkaKeyValueWithProducer.withPixyProducer({ cacheHost: '', pixyHost: '', topicName: 't', metrics });
export const mock: KafkaKeyValue = new KafkaKeyValueMock({ topicName: 't', logger: null });
export const unknown: Change['type'] = 'progress';

// @ts-expect-error a cache is of one topic
new KafkaKeyValue({ cacheHost: 'http://a' });
