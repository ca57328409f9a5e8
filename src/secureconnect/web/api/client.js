// Asking the server over HTTP.

const LIMIT_MS = 20_000;

// other refusals with 401 are of a password or a code: asked again, a wrong one would count twice
const OF_THE_TOKEN = new Set(["UNAUTHENTICATED", "INVALID_TOKEN", "TOKEN_EXPIRED", "TOKEN_REVOKED"]);

/** The server has answered, and said no. */
export class Refusal extends Error {
  /**
   * @param {number} status
   * @param {{ code?: string, message?: string, details?: Record<string, any> }} error
   * @param {number | null} retryAfterS
   */
  constructor(status, error, retryAfterS) {
    super(error.message ?? `status ${status}`);
    this.name = "Refusal";
    this.status = status;
    this.code = error.code ?? "UNKNOWN";
    this.details = error.details ?? {};
    this.retryAfterS = retryAfterS;
  }

  /** Whether the same may succeed later: nothing was wrong with it. */
  get passes() {
    return this.status === 429 || this.status === 503;
  }
}

/** There was no answer. What was asked may have been done. */
export class Unreachable extends Error {
  constructor() {
    super("no answer");
    this.name = "Unreachable";
    this.code = "UNREACHABLE";
    this.passes = true;
  }
}

/** The session is over: sign in again. */
export class SignedOut extends Error {
  constructor() {
    super("signed out");
    this.name = "SignedOut";
    this.code = "SIGNED_OUT";
    this.passes = false;
  }
}

/**
 * @typedef {object} Asked
 * @property {any} [body] sent as JSON
 * @property {ArrayBuffer | Blob} [content] sent as it is
 * @property {Record<string, string | number | boolean | null | undefined>} [query] what is null is left out
 * @property {string} [idempotencyKey]
 * @property {AbortSignal} [signal]
 * @property {number} [limitMs]
 * @property {boolean} [anonymous] without saying who asks
 */

export class Client {
  #end = new AbortController();

  /** @param {import("./session.js").Session} session */
  constructor(session) {
    this.session = session;
  }

  /** What is under way is of no use to whoever signs in next. */
  close() {
    this.#end.abort(new SignedOut());
  }

  /**
   * The `data` of the answer. Throws Refusal, Unreachable, SignedOut, or an AbortError of the caller's own signal.
   * @param {string} method
   * @param {string} path
   * @param {Asked} [asked]
   * @returns {Promise<any>}
   */
  async ask(method, path, asked = {}) {
    return (await this.answer(method, path, asked)).data;
  }

  /**
   * The same with `status` and `meta`.
   * @param {string} method
   * @param {string} path
   * @param {Asked} [asked]
   * @returns {Promise<{ status: number, data: any, meta: any }>}
   */
  async answer(method, path, asked = {}) {
    const ends = this.#end.signal;
    asked = { ...asked, signal: asked.signal ? AbortSignal.any([asked.signal, ends]) : ends };
    let token = asked.anonymous ? null : await this.session.token();
    try {
      return await send(method, path, asked, token);
    } catch (error) {
      const isOld = error instanceof Refusal && OF_THE_TOKEN.has(error.code);
      if (!isOld || token === null) throw error;
      token = await this.session.token(token); // another one; throws when the session is over
      return send(method, path, asked, token);
    }
  }
}

/**
 * @param {string} method
 * @param {string} path
 * @param {Asked} asked
 * @param {string | null} token
 */
export async function send(
  method,
  path,
  { body, content, query, idempotencyKey, signal, limitMs = LIMIT_MS },
  token,
) {
  const url = new URL(path, location.origin);
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== null && value !== undefined) url.searchParams.set(name, String(value));
  }
  /** @type {Record<string, string>} */
  const headers = {};
  if (token !== null) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (idempotencyKey) headers["Idempotency-Key"] = idempotencyKey;
  const limit = AbortSignal.timeout(limitMs);
  let answer, told;
  try {
    answer = await fetch(url, {
      method,
      headers,
      body: content ?? (body === undefined ? null : JSON.stringify(body)),
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
      cache: "no-store",
    });
    told = answer.status === 204 ? { data: null } : await answer.json();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Unreachable();
  }
  if (!answer.ok)
    throw new Refusal(answer.status, told.error ?? {}, secondsOf(answer.headers.get("retry-after")));
  return { status: answer.status, data: told.data, meta: told.meta };
}

/** @param {string | null} header */
function secondsOf(header) {
  const seconds = Number(header);
  return header !== null && Number.isFinite(seconds) ? seconds : null;
}
