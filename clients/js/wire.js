// What goes over the wire and how: keys into URLs, values out of lines and answers.

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Percent-encodes a string, or bytes, for a path or a query. */
export function percent(key) {
  if (typeof key === 'string') return encodeURIComponent(key);
  let out = '';
  for (const b of key) out += '%' + b.toString(16).padStart(2, '0');
  return out;
}

/** The path of a key below its topic. URL parsers take "." and ".." for steps, escaped or not, so these go as base64url. */
export function keyPath(key) {
  const text = typeof key === 'string' ? key : String.fromCharCode(...key.subarray(0, 3));
  if (text === '.' || text === '..') return `/keys/${text === '.' ? 'Lg' : 'Li4'}?keyEncoding=base64url`;
  return `/keys/${percent(key)}`;
}

export function fromBase64(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

async function through(transform, bytes) {
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(transform)).arrayBuffer());
}

/** The bytes that a value is written as: JSON, compressed where the topic is. */
export async function encode(value, gzip) {
  const json = JSON.stringify(value);
  if (json === undefined) throw new TypeError('a value is what JSON can say; delete(key) deletes');
  return gzip ? through(new CompressionStream('gzip'), new TextEncoder().encode(json)) : json;
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** What a record's bytes say: JSON, else a string, else the bytes. */
export async function decode(bytes, gzip) {
  const plain = gzip ? await through(new DecompressionStream('gzip'), bytes) : bytes;
  try {
    return parse(utf8.decode(plain));
  } catch {
    return plain;
  }
}

/** The value in a line of a list or a watch; undefined where it has none. */
export function valueOf(line, gzip) {
  if ('value' in line) return line.value;
  if ('text' in line) return parse(line.text);
  if ('base64' in line) return decode(fromBase64(line.base64), gzip);
  return undefined;
}

/** The lines of a body as JSON. A last line without its break was cut off: an error. */
export async function* lines(body, heard = () => {}) {
  const reader = body.getReader();
  const text = new TextDecoder();
  let rest = []; // of the line that has not ended
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      heard();
      const parts = text.decode(value, { stream: true }).split('\n');
      for (let i = 0; i < parts.length - 1; i++) {
        rest.push(parts[i]);
        const line = rest.join('');
        rest = [];
        yield JSON.parse(line);
      }
      if (parts.at(-1)) rest.push(parts.at(-1));
    }
    if (rest.length > 0) throw new Error('the answer broke off in the middle of a line');
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** What a line tells about a record, its value apart. */
export function recordOf({ key, keyBase64, partition, offset, timestamp, headers }) {
  const record = { key: key ?? fromBase64(keyBase64), partition, offset, timestamp };
  if (headers) record.headers = headers.map((h) => ({ key: h.key, value: h.value === null ? null : fromBase64(h.value) }));
  return record;
}
