// What the test files share.
//
// live.test.js and readme.test.js need a running kkv: a cache at CACHE_HOST that CONTROL_URL stops, kills and starts, a writable one
// at WRITABLE_HOST, a gateway at PIXY_HOST, all of the topic TOPIC_NAME: go test ./test/jsclient starts them.

export const { CACHE_HOST, WRITABLE_HOST, PIXY_HOST, TOPIC_NAME, CONTROL_URL } = process.env;

export const needsKkv = CACHE_HOST ? {} : { skip: 'needs a running kkv: go test ./test/jsclient starts one' };

/** Collects what a handler hears, and waits for it. */
export class Heard {
  all = [];
  #waiting = new Set();

  handler = (key, value, change) => {
    this.all.push({ key, value, change });
    for (const look of this.#waiting) look();
  };

  /** As "key=value" and "-key". */
  get text() {
    return this.all.map(({ key, value }) => (value === undefined ? `-${key}` : `${key}=${JSON.stringify(value)}`)).join(' ');
  }

  until(what, timeoutMs = 20_000) {
    return new Promise((resolve, reject) => {
      const look = () => {
        if (!this.text.split(' ').includes(what)) return;
        clearTimeout(timer);
        this.#waiting.delete(look);
        resolve();
      };
      const timer = setTimeout(() => reject(new Error(`not heard: ${what}; heard: ${this.text}`)), timeoutMs);
      this.#waiting.add(look);
      look();
    });
  }
}

/** The next changes of a watch, up to one of the type, as text. */
export async function upTo(changes, type) {
  const got = [];
  for (;;) {
    const { done, value: c } = await changes.next();
    if (done) throw new Error(`the watch ended after ${got.join(' ')}`);
    if (c.type === 'progress') continue;
    got.push(c.type === 'put' ? `${c.key}=${JSON.stringify(c.value)}` : c.type === 'delete' ? `-${c.key}` : c.reason ? `${c.type}:${c.reason}` : c.type);
    if (c.type === type) return { text: got.join(' '), position: c.position };
  }
}

export async function control(what) {
  const res = await fetch(`${CONTROL_URL}/${what}`, { method: 'POST' });
  if (!res.ok) throw new Error(`${what}: ${res.status} ${await res.text()}`);
}
