// One watch over as many connections as it takes.

import { statusError, StatusError } from './errors.js';
import { lines, recordOf, valueOf } from './wire.js';

const SILENCE_MS = 30_000; // a server says something every 10 s; after this a connection is dead
const BACKOFF_MS = { min: 50, max: 5_000 };

/** Waits, or rejects with the signal's reason. */
export function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', stop);
      resolve();
    }, ms);
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    signal?.addEventListener('abort', stop, { once: true });
  });
}

function refused(err) {
  return err instanceof StatusError && err.status >= 300 && err.status < 500 && ![408, 425, 429].includes(err.status);
}

/** Whether an answer is about what had been seen, which connect names where nothing is resumed, and has forgotten now. */
function forgotten(err, since) {
  return err.status === 409 && err.type.startsWith('position-') && (!since || since === 'now');
}

/**
 * Yields the changes of one watch until the signal aborts, which it throws, as it does an answer that refuses the
 * request. It reconnects for ever and resumes from the last position that it heard of.
 *
 * @param {object} o
 * @param {(since: string, signal: AbortSignal) => Promise<Response>} o.connect makes the request
 * @param {string} o.since position, "now", or "" for the state
 * @param {boolean} o.gzip whether values are compressed
 * @param {boolean} o.forever whether to go on also when refused
 * @param {AbortSignal} o.signal
 * @param {(err?: Error) => void} o.state hears of an outage's first failure, and, without one, of its end
 */
export async function* watch({ connect, since, gzip, forever, signal, state }) {
  let own = false; // since was told by a server
  let told = false; // something was yielded
  let opened = false;
  let away = false;
  for (let failures = 0; ; failures++) {
    const connection = new AbortController();
    const abort = () => connection.abort(signal.reason);
    if (signal.aborted) throw signal.reason;
    signal.addEventListener('abort', abort, { once: true });
    let silence;
    const heard = () => {
      clearTimeout(silence);
      silence = setTimeout(() => connection.abort(new Error(`the server said nothing for ${SILENCE_MS} ms`)), SILENCE_MS);
    };
    let retryMs = 0;
    try {
      heard();
      const res = await connect(since, connection.signal);
      if (res.status !== 200) throw await statusError('watch', res);
      opened = true;
      if (!since && told) yield { type: 'reset', reason: 'reconnected' }; // what was told may be part of a state
      for await (const line of lines(res.body, heard)) {
        if (line.type === 'closing') {
          retryMs = Math.min(line.retryMs, BACKOFF_MS.max);
          throw new Error('the server is closing');
        }
        if (line.type === 'reset') [since, own] = ['', false]; // nothing to resume from until the state is whole
        else if (line.position) [since, own] = [line.position, true];
        if (line.type === 'synced') {
          failures = 0;
          if (away) state();
          away = false;
        }
        const change = { type: line.type };
        if ('key' in line || 'keyBase64' in line) Object.assign(change, recordOf(line));
        if (line.type === 'put') change.value = await valueOf(line, gzip);
        if (line.position) change.position = line.position;
        for (const name of ['reason', 'keys', 'ageMs']) if (name in line) change[name] = line[name];
        told = true;
        clearTimeout(silence); // how long the reader takes is not the server's silence
        yield change;
        heard();
      }
      throw new Error('the stream ended');
    } catch (err) {
      if (signal.aborted) throw signal.reason;
      if (refused(err)) {
        const aboutSince = err.status === 400 || err.status === 409;
        if (own && aboutSince) [since, own] = ['', false];
        else if (!forever && !(opened && err.status === 404) && !forgotten(err, since)) throw err;
      }
      if (!away) state(err);
      away = true;
    } finally {
      clearTimeout(silence);
      signal.removeEventListener('abort', abort);
      connection.abort(); // the reader may have left
    }
    const most = Math.min(BACKOFF_MS.min * 2 ** failures, BACKOFF_MS.max);
    await sleep(Math.max(retryMs, most / 2 + Math.random() * (most / 2)), signal);
  }
}
