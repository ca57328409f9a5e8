// The socket that brings what happens as it happens, comes back by itself, and never misses anything: the rules of
// docs/protocol.md.

import { batch, Signal } from "../store/signal.js";
import { Refusal, SignedOut, Unreachable } from "./client.js";

/** @typedef {import("../store/types.js").Event} Event */
/** @typedef {"offline" | "connecting" | "resuming" | "online"} Link */

const PROTOCOL = "secureconnect.v1";
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 20_000;
const ANSWER_MS = 20_000; // for a frame with a `ref`
const SILENCE_MS = 30_000; // after which it is asked whether there is anybody: a dead link does not say so
const LOOK_MS = 10_000;
const NO_RETURN = new Set([1002, 1007, 4400]);

export class ChatSocket {
  /** @type {WebSocket | null} */
  #socket = null;
  /** @type {Map<string, { resolve: (frame: Event) => void, reject: (error: Error) => void, timer: number }>} */
  #asked = new Map();
  /** @type {Map<string, Set<(event: Event) => void>>} */
  #listeners = new Map();
  #pauseMs = FIRST_PAUSE_MS;
  #retry = 0;
  #refs = 0;
  #looking = 0;
  #ended = new AbortController();
  #hasMet = false; // the server has said hello on this socket
  #isWanted = false;
  #isBusy = false; // a connection is being made
  #cameMs = 0;

  /**
   * @param {import("./session.js").Session} session
   * @param {import("../store/positions.js").Positions} positions
   * @param {() => Promise<unknown>} check asks the server who one is: a browser does not tell why a socket was refused
   */
  constructor(session, positions, check) {
    this.session = session;
    this.positions = positions;
    this.check = check;
    /** @type {Signal<Link>} */
    this.link = new Signal(/** @type {Link} */ ("offline"));
    /** @type {Signal<number | null>} when the link was lost; null while there is one */
    this.lostMs = new Signal(/** @type {number | null} */ (Date.now()));
  }

  open() {
    this.#isWanted = true;
    this.#pauseMs = FIRST_PAUSE_MS;
    this.#looking = setInterval(() => this.#look(), LOOK_MS);
    const { signal } = this.#ended;
    const hurry = () => this.#hurry();
    addEventListener("online", hurry, { signal });
    addEventListener("pageshow", hurry, { signal });
    addEventListener("offline", () => this.#drop(), { signal });
    addEventListener("pagehide", () => this.#drop(), { signal }); // kept for "back": nobody sees what comes
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && hurry(), {
      signal,
    });
    void this.#connect();
  }

  close() {
    this.#isWanted = false;
    this.#ended.abort();
    clearInterval(this.#looking);
    clearTimeout(this.#retry);
    this.#socket?.close(1000);
    this.#lose();
  }

  /**
   * Hear events of a type. Returns what ends that.
   * @param {string} type "*": all
   * @param {(event: Event) => void} listener
   */
  on(type, listener) {
    const all = this.#listeners.get(type) ?? new Set();
    this.#listeners.set(type, all.add(listener));
    return () => all.delete(listener);
  }

  /**
   * Send something that needs no answer; false if there is no link.
   * @param {Event} frame
   */
  say(frame) {
    return this.link.peek() === "online" && this.#send(frame);
  }

  /**
   * Send a frame, and resolve with its `ack`. Rejects with a Refusal, or Unreachable when the link is lost first: it may
   * have been done then.
   * @param {Event} frame
   * @returns {Promise<Event>}
   */
  ask(frame) {
    this.#refs += 1;
    const ref = String(this.#refs);
    return new Promise((resolve, reject) => {
      if (!this.say({ ...frame, ref })) {
        reject(new Unreachable());
        return;
      }
      const timer = setTimeout(() => {
        this.#asked.delete(ref);
        reject(new Unreachable());
      }, ANSWER_MS);
      this.#asked.set(ref, { resolve, reject, timer });
    });
  }

  /**
   * False when the socket is being closed, too: it would drop what it is given without a word.
   * @param {Event} frame
   */
  #send(frame) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(frame));
    return true;
  }

  async #connect() {
    if (!this.#isWanted || this.#isBusy || this.#socket !== null) return;
    this.#isBusy = true;
    clearTimeout(this.#retry);
    this.link.value = "connecting";
    let token;
    try {
      token = await this.session.token();
    } catch (error) {
      this.#isBusy = false;
      if (!(error instanceof SignedOut)) this.#comeBackLater();
      return;
    }
    this.#isBusy = false;
    if (!this.#isWanted) return;
    const url = new URL("/v1/ws/chat?resume=1", location.origin.replace(/^http/, "ws"));
    const socket = new WebSocket(url, [PROTOCOL, `bearer.${token}`]);
    this.#socket = socket;
    this.#hasMet = false;
    socket.onmessage = ({ data }) => this.#socket === socket && this.#hear(JSON.parse(data), token);
    socket.onclose = ({ code }) => this.#socket === socket && this.#closed(code, token);
  }

  /**
   * @param {number} code
   * @param {string} token
   */
  #closed(code, token) {
    this.#lose();
    if (!this.#isWanted) return;
    if (NO_RETURN.has(code)) this.#pauseMs = LONGEST_PAUSE_MS;
    const later = () => this.#comeBackLater();
    if (code === 4401) this.session.token(token).then(later, later);
    else if (!this.#hasMet) this.check().then(later, later);
    else later();
  }

  #comeBackLater() {
    if (!this.#isWanted) return;
    clearTimeout(this.#retry);
    const pause = this.#pauseMs * (0.5 + Math.random());
    this.#pauseMs = Math.min(2 * this.#pauseMs, LONGEST_PAUSE_MS);
    this.#retry = setTimeout(() => void this.#connect(), pause);
  }

  /** There may be a network again: try at once, and see whether the link is a live one. */
  #hurry() {
    if (!this.#isWanted) return;
    if (this.#socket === null) {
      this.#pauseMs = FIRST_PAUSE_MS;
      void this.#connect();
    } else this.#look();
  }

  /** Whether anybody is at the other end, when nothing has come for a while. */
  #look() {
    if (this.link.peek() !== "online" || Date.now() - this.#cameMs < SILENCE_MS) return;
    void this.ask({ type: "ping" }).catch(() => this.#drop());
  }

  #drop() {
    const socket = this.#socket;
    if (socket === null) return;
    this.#lose();
    socket.close();
    this.#comeBackLater();
  }

  #lose() {
    this.#socket = null;
    this.link.value = "offline";
    this.lostMs.value ??= Date.now();
    const asked = [...this.#asked.values()];
    this.#asked.clear();
    for (const { reject, timer } of asked) {
      clearTimeout(timer);
      reject(new Unreachable());
    }
  }

  /**
   * @param {Event} event
   * @param {string} token
   */
  #hear(event, token) {
    this.#cameMs = Date.now();
    batch(() => this.#take(event, token)); // whoever sees that there is a link sees what it has told, too
  }

  /**
   * @param {Event} event
   * @param {string} token
   */
  #take(event, token) {
    switch (event.type) {
      case "hello":
        this.#hasMet = true;
        this.link.value = "resuming";
        for (const frame of this.positions.resume(event.history_id)) this.#send(frame);
        break;
      case "resumed":
        event.lost = this.positions.resumed(event);
        if (!event.more) {
          this.#pauseMs = FIRST_PAUSE_MS;
          this.link.value = "online";
          this.lostMs.value = null;
        }
        break;
      case "resuming": // the database is away: live in what it names, and one may send
        for (const [id, change] of Object.entries(event.conversations)) this.positions.reset(id, change);
        this.link.value = "online";
        this.lostMs.value = null;
        break;
      case "token_expiring":
        void this.#renew(token);
        return;
      case "going_away":
        this.#pauseMs = Math.max(FIRST_PAUSE_MS, event.reconnect_after_ms);
        break;
      default:
        if (event.ref !== undefined && this.#answer(event)) return;
        if (!this.positions.admit(event)) return;
    }
    for (const listener of this.#listeners.get(event.type) ?? []) listener(event);
    for (const listener of this.#listeners.get("*") ?? []) listener(event);
  }

  /** @param {Event} event */
  #answer(event) {
    const asked = this.#asked.get(event.ref);
    if (asked === undefined) return false;
    this.#asked.delete(event.ref);
    clearTimeout(asked.timer);
    if (event.type === "error") asked.reject(refusalOf(event));
    else asked.resolve(event);
    return true;
  }

  /** @param {string} old */
  async #renew(old) {
    try {
      const token = await this.session.token(old);
      this.#send({ type: "auth", token });
    } catch {
      // the server closes the socket when the token is over, and the next one learns why
    }
  }
}

const PASSING = new Set([
  "UNAVAILABLE",
  "OVERLOADED",
  "RATE_LIMITED",
  "DB_POOL_EXHAUSTED",
  "DEADLINE_EXCEEDED",
  "DRAINING",
]);

/** @param {Event} event */
function refusalOf(event) {
  return new Refusal(PASSING.has(event.code) ? 503 : 400, /** @type {any} */ (event), null);
}
