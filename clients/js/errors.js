/** The key has no value. */
export class NotFoundError extends Error {
  name = 'NotFoundError';
  notFound = true;
}

/** An answer that is no success: its problem document (RFC 9457), as far as there was one. */
export class StatusError extends Error {
  name = 'StatusError';

  constructor(what, status, { type = '', title = '', detail = '' } = {}) {
    super(`${what}: ${[status, title, detail].filter(Boolean).join(': ')}`);
    this.status = status;
    /** The last part of the problem's type, such as "not-ready". */
    this.type = type.slice(type.lastIndexOf('/') + 1);
    this.detail = detail;
    /** Whether the same call may succeed later. */
    this.retryable = status === 503 || status === 504;
  }
}

export async function statusError(what, res) {
  const text = await res.text().catch(() => '');
  let problem;
  try {
    problem = JSON.parse(text);
  } catch {
    problem = { detail: text.split('\n')[0].slice(0, 200) };
  }
  if (typeof problem?.error === 'string') problem = { detail: problem.error }; // the gateway's form
  return new StatusError(what, res.status, problem ?? {});
}
