// From the changes of a watch to what handlers of onUpdate are told.

function nameOf(key) {
  return typeof key === 'string' ? key : `\0${key.join()}`;
}

/**
 * Tells of each put and delete once its batch is whole, so that a read by a handler is not asked for less than the handler
 * was told. After a reset it tells of what is another record than the one told last, and of keys told of that are gone.
 *
 * @param {object} o
 * @param {AsyncIterable} o.changes
 * @param {(position: string) => void} o.position hears how far the changes are, before they are told
 * @param {(change: object) => void} o.tell
 */
export async function follow({ changes, position, tell }) {
  const told = new Map(); // name -> the key and its record told last; no deleted ones
  let again = null; // names that came again since a reset
  let batch = [];

  const consider = (change) => {
    const name = nameOf(change.key);
    again?.add(name);
    const record = `${change.partition}:${change.offset}`;
    if (change.type === 'delete') {
      told.delete(name);
    } else {
      if (told.get(name)?.record === record) return;
      told.set(name, { key: change.key, record });
    }
    tell(change);
  };

  for await (const change of changes) {
    if (change.type === 'put' || change.type === 'delete') batch.push(change);
    if (change.type === 'reset') {
      again = new Set();
      batch = [];
    }
    if (!change.position) continue;
    position(change.position);
    const whole = batch;
    batch = [];
    for (const c of whole) consider(c);
    if (change.type === 'synced' && again) {
      for (const [name, { key }] of told) {
        if (again.has(name)) continue;
        told.delete(name);
        tell({ type: 'delete', key });
      }
      again = null;
    }
  }
}
