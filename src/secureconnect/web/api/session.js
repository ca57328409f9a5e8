// Who is signed in: the tokens, shared by all tabs of this browser, and the devices it has been.

import { Signal } from "../store/signal.js";
import { exclusively } from "../store/locks.js";
import { Refusal, send, SignedOut } from "./client.js";

/** @typedef {import("../store/types.js").User} User */

/**
 * @typedef {object} Tokens
 * @property {string} access_token
 * @property {string} refresh_token
 * @property {number} ends_ms when the access token ends, on this machine's clock
 * @property {string} session_id
 * @property {string} device_id
 * @property {User} user
 */

const KEPT = "sc.session";
const DEVICES = "sc.devices"; // {user_id: {names, device_id, device_secret}}: known devices are not locked out
const MOST_DEVICES = 8;
const MARGIN_MS = 30_000;

export class Session {
  constructor() {
    /** @type {Signal<Tokens | null>} */
    this.tokens = new Signal(kept());
    /** @type {Signal<string | null>} why the last one ended, to be shown where one signs in */
    this.ended = new Signal(/** @type {string | null} */ (null));
    /** the end of what this browser was before @type {Promise<unknown>} */
    this.leaving = Promise.resolve();
    addEventListener("storage", (event) => {
      if (event.key !== KEPT) return;
      const now = kept();
      if (now === null && this.tokens.peek() !== null) this.#forget("SIGNED_OUT_ELSEWHERE");
      else this.tokens.value = now;
    });
  }

  /** @returns {string | null} */
  get userId() {
    return this.tokens.value?.user.user_id ?? null;
  }

  /**
   * @param {{ name: string, password: string, totp_code?: string }} asked name: the username or the e-mail address
   */
  async signIn({ name, password, totp_code }) {
    const known = deviceFor(name);
    this.#take(await logIn({ name, password, totp_code }, known));
  }

  /**
   * As another device, in the place of this one, which is signed out.
   * @param {{ password: string, totp_code?: string }} asked
   */
  async signInAnew(asked) {
    const before = this.tokens.peek();
    if (before === null) throw new SignedOut();
    const data = await logIn({ name: before.user.username, ...asked }, null);
    // it can be ended in the settings, too; the socket it closes opens again with the tokens that are kept by then
    this.leaving = send("POST", "/v1/auth/logout", {}, before.access_token).catch(() => {});
    this.#take(data);
  }

  /**
   * @param {Record<string, string>} body of `POST /v1/auth/register`
   * @returns {Promise<boolean>} whether one is signed in; else the address is to be confirmed first
   */
  async register(body) {
    const { status, data } = await send("POST", "/v1/auth/register", { body }, null);
    if (status === 202) return false;
    this.#take(data);
    return true;
  }

  /**
   * What is kept of the account in this browser is taken away by whoever watches `tokens`. Throws Unreachable: the
   * session would live on at the server.
   * @param {"logout" | "logout-all"} [how] logout-all: on every device
   */
  async signOut(how = "logout") {
    const token = await this.token().catch(passingOnly);
    // other tabs, whose sockets the server closes, wait to be told that nobody is signed in any more
    await exclusively("sc.refresh", async () => {
      if (token !== null) await send("POST", `/v1/auth/${how}`, {}, token).catch(passingOnly);
      this.leave();
    });
  }

  /**
   * Signed out here, whether the server knows or not.
   * @param {string | null} [why] shown where one signs in
   */
  leave(why = null) {
    this.#forget(why);
  }

  /**
   * This browser is to be a stranger to the account the next time.
   * @param {string} userId
   */
  forgetDevice(userId) {
    const { [userId]: _, ...others } = devices();
    localStorage.setItem(DEVICES, JSON.stringify(others));
  }

  /**
   * Whether this browser has somebody signed in, also if this tab has not heard of it yet.
   * @param {string} userId
   */
  isKept(userId) {
    return kept()?.user.user_id === userId;
  }

  /**
   * A fresh access token. Throws SignedOut, Refusal, Unreachable.
   * @param {string | null} [old] one that was refused
   * @returns {Promise<string>}
   */
  async token(old = null) {
    const now = this.tokens.peek();
    if (now === null) throw new SignedOut();
    if (isGood(now, old)) return now.access_token;
    return exclusively("sc.refresh", async () => {
      const latest = kept(); // another tab may have been here meanwhile
      if (latest === null) {
        this.#forget("SIGNED_OUT_ELSEWHERE");
        throw new SignedOut();
      }
      if (isGood(latest, old)) {
        this.tokens.value = latest;
        return latest.access_token;
      }
      return this.#refresh(latest);
    });
  }

  /** @param {Tokens} latest */
  async #refresh(latest) {
    try {
      const { data } = await send(
        "POST",
        "/v1/auth/refresh",
        { body: { refresh_token: latest.refresh_token } },
        null,
      );
      const next = { ...latest, ...tokensOf(data) };
      this.#keep(next);
      return next.access_token;
    } catch (error) {
      if (error instanceof Refusal && (error.status === 401 || error.status === 403)) {
        this.#forget(error.code === "ACCOUNT_BANNED" ? error.code : "SESSION_ENDED");
        throw new SignedOut();
      }
      throw error;
    }
  }

  /** @param {User} user what is known of oneself now */
  keepUser(user) {
    const now = kept();
    if (now?.user.user_id !== user.user_id) return;
    this.#keep({ ...now, user });
    const known = devices()[user.user_id];
    if (known) rememberDevice(user, known.device_id, known.device_secret);
  }

  /** The server says that this session is over. */
  end() {
    this.#forget("SESSION_ENDED");
  }

  /** @param {any} data */
  #take(data) {
    const { user, device_secret } = data;
    if (device_secret) rememberDevice(user, data.device_id, device_secret);
    this.ended.value = null;
    this.#keep({ ...tokensOf(data), user });
  }

  /** @param {Tokens} tokens */
  #keep(tokens) {
    localStorage.setItem(KEPT, JSON.stringify(tokens));
    this.tokens.value = tokens;
  }

  /** @param {string | null} why */
  #forget(why) {
    if (this.tokens.peek() === null) return;
    localStorage.removeItem(KEPT);
    this.ended.value = why;
    this.tokens.value = null;
  }
}

/**
 * @param {{ name: string, password: string, totp_code?: string }} asked
 * @param {{ device_id: string, device_secret: string } | null} known the device to be again; null: another one
 */
async function logIn({ name, password, totp_code }, known) {
  const body = {
    ...(name.includes("@") ? { email: name } : { username: name }),
    password,
    ...(totp_code ? { totp_code } : {}),
    ...(known ? { device_id: known.device_id, device_secret: known.device_secret } : {}),
    device_name: deviceName(),
  };
  return (await send("POST", "/v1/auth/login", { body }, null)).data;
}

/**
 * Of a session that is to end: what may succeed later is thrown, any other refusal says that it is over already.
 * @param {any} error
 * @returns {null}
 */
function passingOnly(error) {
  if (error.passes || !(error instanceof Refusal || error instanceof SignedOut)) throw error;
  return null;
}

/** @returns {Tokens | null} */
function kept() {
  return JSON.parse(localStorage.getItem(KEPT) ?? "null");
}

/**
 * @param {Tokens} tokens
 * @param {string | null} old
 */
function isGood(tokens, old) {
  return tokens.access_token !== old && tokens.ends_ms - MARGIN_MS > Date.now();
}

/** @param {any} data */
function tokensOf({ access_token, refresh_token, expires_in, session_id, device_id }) {
  return { access_token, refresh_token, ends_ms: Date.now() + expires_in * 1000, session_id, device_id };
}

/** @returns {Record<string, { names: string[], device_id: string, device_secret: string }>} */
function devices() {
  return JSON.parse(localStorage.getItem(DEVICES) ?? "{}");
}

/** @param {string} name */
function deviceFor(name) {
  const wanted = name.toLowerCase();
  return Object.values(devices()).find((each) => each.names.includes(wanted)) ?? null;
}

/**
 * @param {User} user
 * @param {string} deviceId
 * @param {string} secret
 */
function rememberDevice(user, deviceId, secret) {
  const { [user.user_id]: _, ...others } = devices();
  const latest = Object.entries(others).slice(-(MOST_DEVICES - 1));
  const names = [user.username, user.email ?? ""].map((name) => name.toLowerCase());
  const mine = { names, device_id: deviceId, device_secret: secret };
  localStorage.setItem(DEVICES, JSON.stringify({ ...Object.fromEntries(latest), [user.user_id]: mine }));
}

const BROWSERS = /** @type {[RegExp, string][]} */ ([
  [/Edg\//, "Edge"],
  [/OPR\//, "Opera"],
  [/Firefox\//, "Firefox"],
  [/Chrom(e|ium)\//, "Chrome"],
  [/Safari\//, "Safari"],
]);
const SYSTEMS = /** @type {[RegExp, string][]} */ ([
  [/Android/, "Android"],
  [/iPhone|iPad/, "iOS"],
  [/Windows/, "Windows"],
  [/Mac OS X/, "macOS"],
  [/Linux/, "Linux"],
]);

/**
 * "Firefox, Linux": what a list of one's devices calls one that has no other name.
 * @param {string} [userAgent] of this browser if left out
 */
export function deviceName(userAgent = navigator.userAgent) {
  const known = (/** @type {[RegExp, string][]} */ table) =>
    table.find(([sign]) => sign.test(userAgent))?.[1];
  return [known(BROWSERS), known(SYSTEMS)].filter(Boolean).join(", ") || "Web";
}
