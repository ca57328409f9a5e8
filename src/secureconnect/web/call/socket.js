// The signaling socket of this device in one call. It comes back by itself, as who it was, until it is closed.
// Source: docs/protocol.md, "A call".

import { newId } from "../api/ids.js";

/** @import { Frame } from "./types.js" */

const PROTOCOL = "secureconnect.v1";
const KEPT = "sc.call"; // in sessionStorage: one call for each tab
const FIRST_WAIT_MS = 200;
const LONGEST_WAIT_MS = 2_000; // of a call's few devices: the server bears it, and one is back soon
const PING_MS = 10_000;
const SILENT_MS = 25_000; // after two pings that nobody answered the connection is taken for lost
const ASK_AFTER = 3; // attempts that did not even open: ask whether the call is still there
const GIVEN_UP = new Set([4400, 4403, 4404]);

/**
 * What outlives a reload: which call this tab is in, what it comes back with, and what it showed.
 * @typedef {{ callId: string, conversationId: string, token: string | null, isMuted: boolean,
 *   withCamera: boolean }} Kept
 */

/** @returns {Kept | null} */
export function keptCall() {
  try {
    return JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
  } catch {
    return null;
  }
}

/** @param {Kept | null} kept */
export function keepCall(kept) {
  if (kept) sessionStorage.setItem(KEPT, JSON.stringify(kept));
  else sessionStorage.removeItem(KEPT);
}

/**
 * token: a good access token.  hear: every frame; those that greet (`peers`, `resumed`) come first after each
 * connection.  lost: the connection is gone, and will be made again.  isOn: whether this device may still be in
 * the call, asked when it was turned away, or another page has taken its place; false ends the socket.
 * @typedef {{
 *   url: URL, callId: string, keep: (token: string | null) => void, token: () => Promise<string>,
 *   hear: (frame: Frame) => void, lost: () => void, isOn: (isReplaced: boolean) => Promise<boolean>,
 * }} Given
 */

export class Signaling {
  /** @param {Given} given */
  constructor(given) {
    this.given = given;
    this.instanceId = newId(); // of this load of the page
    const kept = keptCall();
    /** @type {string | null} */
    this.resumeToken = kept?.callId === given.callId ? kept.token : null;
    /** @type {WebSocket | null} */
    this.socket = null;
    this.isGreeted = false;
    this.isOver = false;
    this.epoch = 0;
    this.waitMs = FIRST_WAIT_MS;
    this.unopened = 0;
    this.heardAt = 0;
    /** @type {number | undefined} */
    this.waiting = undefined;
    this.onOnline = () => this.hurry();
  }

  open() {
    this.given.keep(this.resumeToken);
    this.pinging = setInterval(() => this.ping(), PING_MS);
    addEventListener("online", this.onOnline);
    this.connect();
  }

  async connect() {
    clearTimeout(this.waiting);
    this.waiting = undefined;
    let token;
    try {
      token = await this.given.token();
    } catch {
      return this.later();
    }
    if (this.isOver || this.socket) return;
    const socket = new WebSocket(this.given.url, [PROTOCOL, `bearer.${token}`]);
    this.socket = socket;
    this.heardAt = performance.now();
    let hasOpened = false;
    socket.onopen = () => {
      hasOpened = true;
      const comes = this.resumeToken ? { type: "resume", resume_token: this.resumeToken } : { type: "join" };
      socket.send(JSON.stringify({ ...comes, instance_id: this.instanceId }));
    };
    socket.onmessage = ({ data }) => this.hear(JSON.parse(data));
    socket.onclose = ({ code }) => this.closed(code, hasOpened);
  }

  /** @param {Frame} frame */
  hear(frame) {
    this.heardAt = performance.now();
    if (frame.type === "peers" || frame.type === "resumed") {
      this.isGreeted = true;
      this.waitMs = FIRST_WAIT_MS;
      this.unopened = 0;
      this.resumeToken = frame.resume_token ?? null;
      this.given.keep(this.resumeToken);
    } else if (frame.type === "error" && frame.code === "INVALID_TOKEN") {
      this.resumeToken = null; // nobody waits for it: join
    } else if (frame.type === "token_expiring") {
      this.renew();
    }
    if (frame.epoch && frame.epoch > this.epoch) this.epoch = frame.epoch;
    this.given.hear(frame);
  }

  /** @param {number} code @param {boolean} hasOpened */
  async closed(code, hasOpened) {
    const wasGreeted = this.isGreeted;
    this.drop();
    if (this.isOver) return;
    this.given.lost();
    this.unopened = hasOpened ? 0 : this.unopened + 1;
    const isTurnedAway = GIVEN_UP.has(code) && !wasGreeted && this.resumeToken === null;
    const isReplaced = wasGreeted && code === 1000;
    const isOut = isReplaced || (wasGreeted && GIVEN_UP.has(code));
    if (GIVEN_UP.has(code)) this.resumeToken = null;
    if (isTurnedAway || isOut || this.unopened >= ASK_AFTER) {
      this.unopened = 0;
      if (!(await this.given.isOn(isReplaced)) || this.isOver) return this.close();
    }
    this.later();
  }

  later() {
    if (this.isOver) return;
    this.waiting = setTimeout(() => this.connect(), this.waitMs * (0.5 + Math.random() / 2));
    this.waitMs = Math.min(2 * this.waitMs, LONGEST_WAIT_MS);
  }

  hurry() {
    if (this.waiting !== undefined) this.connect();
  }

  /** A connection may be dead and nobody says so. */
  ping() {
    if (!this.socket) return;
    if (performance.now() - this.heardAt > SILENT_MS) {
      this.drop();
      this.given.lost();
      this.connect();
    } else this.put({ type: "ping" });
  }

  async renew() {
    try {
      this.put({ type: "auth", token: await this.given.token() });
    } catch {
      // the socket will be closed with 4401, and is opened again with what is good then
    }
  }

  /**
   * What is said while there is no connection is lost; whoever says it says again what still matters.
   * @param {Record<string, unknown>} frame
   */
  send(frame) {
    if (this.isGreeted) this.put({ ...frame, epoch: this.epoch });
  }

  /** @param {Record<string, unknown>} frame */
  put(frame) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(frame));
  }

  drop() {
    if (!this.socket) return;
    Object.assign(this.socket, { onopen: null, onmessage: null, onclose: null });
    this.socket.close();
    this.socket = null;
    this.isGreeted = false;
  }

  /** For good: this device is out of the call. */
  close() {
    this.isOver = true;
    clearTimeout(this.waiting);
    clearInterval(this.pinging);
    removeEventListener("online", this.onOnline);
    this.drop();
    keepCall(null);
  }
}
