// Calls, as far as the page knows of them while nobody is in one: what rings, what is under way, and which call this
// tab was in when it was loaded anew. All else is loaded with the first call.

import { batch, signal } from "../store/signal.js";

/** @import { CallShape, Sealing } from "./types.js" */
/** @import { Call } from "./call.js" */
/** @import { Media } from "./media.js" */

const KEPT = "sc.call"; // as in socket.js, which is not loaded yet
const UNSENT = "sc.recordings.unsent"; // as in sender.js
const RECORDINGS = "sc.recordings"; // as in shelf.js
const MOST_UNDER_WAY = 200; // conversations of which a call under way is remembered
const EVENTS = ["call_incoming", "call_answered", "call_declined", "call_missed", "call_ended"];

/**
 * What somebody wants who has not said yet with which camera and microphone.
 * calleeIds: all others, if left out.
 * @typedef {{ conversationId: string, callId: string | null, withCamera: boolean, isMuted?: boolean,
 *   calleeIds?: string[] }} Wanted
 */

/**
 * on: hears events of the chat socket.  put: sends bytes.
 * sealing: what the descriptions and recordings of an encrypted conversation are sealed with; null while this page
 * cannot do that, so that there is no call rather than one that anybody could listen to.
 * @typedef {{
 *   ask: (method: string, path: string, options?: { body?: unknown, query?: Record<string, any>,
 *     idempotencyKey?: string }) => Promise<any>,
 *   put: (path: string, content: ArrayBuffer) => Promise<unknown>,
 *   token: () => Promise<string>,
 *   heldToken: () => string | null,
 *   on: (type: string, listener: (event: any) => void) => () => void,
 *   userId: string,
 *   nameOf: (userId: string | null) => string,
 *   isEncrypted: (conversationId: string) => Promise<boolean>,
 *   sealing: (conversationId: string) => Sealing | null,
 *   connecting?: RTCConfiguration,
 * }} Given
 */

export class Calls {
  /** @param {Given} given */
  constructor(given) {
    this.given = given;
    this.incoming = signal(/** @type {CallShape | null} */ (null)); // that rings for this person
    this.wanted = signal(/** @type {Wanted | null} */ (null)); // asked for, and not begun yet
    this.current = signal(/** @type {Call | null} */ (null)); // that this tab is in
    this.missed = signal(/** @type {CallShape | null} */ (null)); // that nobody here has answered
    this.left = signal(/** @type {Wanted | null} */ (null)); // that it was in before it was loaded anew
    this.underway = signal(/** @type {ReadonlyMap<string, CallShape>} */ (new Map())); // by conversation
    /** @type {number | undefined} */
    this.ringing = undefined;
    /** @type {string | null} a call that somebody here wants to hear no more of, though it goes on ringing elsewhere */
    this.silenced = null;
    this.isClosed = false;
    /** @type {(() => void)[]} */
    this.ends = EVENTS.map((type) => given.on(type, ({ call }) => this.hear(call)));
    // what rings is not told again after a connection
    for (const type of ["resumed", "resuming"])
      this.ends.push(given.on(type, ({ more }) => void (more || (this.look(), this.lookBack()))));
    this.ends.push(answerWorker());
    if (this.hasUnsent()) this.sendKept();
  }

  /** Somebody has signed out: nothing stays of their calls. */
  close() {
    this.isClosed = true;
    for (const end of this.ends) end();
    clearTimeout(this.ringing);
    this.sender?.end();
    this.current.peek()?.leave();
    this.forget();
    localStorage.removeItem(UNSENT);
    indexedDB.deleteDatabase(RECORDINGS);
  }

  // what is heard

  /** @param {CallShape} call */
  hear(call) {
    batch(() => {
      this.note(call);
      this.current.peek()?.heardOf(call);
      if (this.ringsHere(call)) this.ring(call);
      else if (this.incoming.peek()?.call_id === call.call_id) {
        this.hush();
        if (this.stateIn(call) === "missed") this.missed.value = call;
      }
      if (call.ended_at && this.left.peek()?.callId === call.call_id) this.forget();
    });
  }

  /** @param {CallShape} call */
  stateIn(call) {
    return call.participants.find(({ user_id }) => user_id === this.given.userId)?.state;
  }

  /** @param {CallShape} call */
  ringsHere(call) {
    const isKnown = call.call_id === this.silenced || call.call_id === this.current.peek()?.callId;
    return this.stateIn(call) === "ringing" && !call.ended_at && !isKnown;
  }

  /** @param {CallShape} call */
  ring(call) {
    clearTimeout(this.ringing);
    // by the server's clock alone: this one may be wrong
    const ringsMs = call.ring_until ? Date.parse(call.ring_until) - Date.parse(call.started_at) : 0;
    this.incoming.value = call;
    // the server says when it is over; this is for when it cannot
    this.ringing = setTimeout(() => this.hush(), Math.max(ringsMs, 0) + 5_000);
  }

  hush() {
    clearTimeout(this.ringing);
    this.incoming.value = null;
  }

  /** Not to ring here any more, whatever else is heard of this call. */
  silence() {
    this.silenced = this.incoming.peek()?.call_id ?? this.silenced;
    this.hush();
  }

  async look() {
    try {
      const { calls } = await this.given.ask("GET", "/v1/calls", { query: { ringing: true } });
      const known = this.incoming.peek();
      if (known && !calls.some((/** @type {CallShape} */ { call_id }) => call_id === known.call_id))
        this.hush();
      for (const call of calls) this.hear(call);
    } catch {
      // what is missed so the history tells
    }
  }

  /** Come to it, if it is still there. Gives its conversation. @param {string} callId */
  async visit(callId) {
    const call = /** @type {CallShape} */ (await this.given.ask("GET", `/v1/calls/${callId}`));
    const isVideo = call.call_type === "video";
    if (!call.ended_at && this.current.peek()?.callId !== callId && this.incoming.peek()?.call_id !== callId)
      this.want({ conversationId: call.conversation_id, callId, withCamera: isVideo });
    return call.conversation_id;
  }

  /** @param {CallShape} call */
  note(call) {
    const next = new Map(this.underway.peek());
    next.delete(call.conversation_id);
    if (!call.ended_at) next.set(call.conversation_id, call);
    if (next.size > MOST_UNDER_WAY) next.delete(next.keys().next().value ?? "");
    this.underway.value = next;
  }

  /** Whether there is a call one could come to. @param {string} conversationId */
  async lookAt(conversationId) {
    const query = { conversation_id: conversationId, limit: 1 };
    const { calls } = await this.given.ask("GET", "/v1/calls", { query });
    if (calls[0]) this.note(calls[0]);
  }

  // after a reload

  async lookBack() {
    const kept = keptHere();
    if (!kept || this.current.peek() || this.left.peek()) return;
    try {
      const call = /** @type {CallShape} */ (await this.given.ask("GET", `/v1/calls/${kept.callId}`));
      if (call.ended_at) return this.forget();
      this.note(call);
      const { conversationId, callId, withCamera, isMuted } = kept;
      if (!this.current.peek()) this.left.value = { conversationId, callId, withCamera, isMuted };
    } catch (error) {
      if (/** @type {{ status?: number }} */ (error).status) this.forget();
    }
  }

  /** Not to come back. */
  leaveLeft() {
    const left = this.left.peek();
    this.forget();
    if (left) this.given.ask("POST", `/v1/calls/${left.callId}/leave`).catch(() => {}); // its time runs out
  }

  forget() {
    this.left.value = null;
    sessionStorage.removeItem(KEPT);
  }

  /** Something that was recorded here is on no server yet, or is being recorded. */
  hasUnsent() {
    return localStorage.getItem(UNSENT) !== null;
  }

  async sendKept() {
    const { Sender } = await import("./sender.js");
    this.sender = new Sender(this.given);
    await this.sender.sendKept();
  }

  // what one does

  /** @param {Wanted} wanted */
  want(wanted) {
    if (wanted.callId !== null && wanted.callId === this.incoming.peek()?.call_id) this.silence();
    this.wanted.value = wanted;
  }

  /** @param {CallShape} call */
  async decline(call) {
    this.silence();
    await this.given.ask("POST", `/v1/calls/${call.call_id}/decline`).catch(() => {}); // it rings itself out
  }

  /**
   * Begin the call that is wanted, or come to it. Throws what refuses it.
   * @param {Wanted} wanted
   * @param {Media} media with what was chosen; the call closes it
   * @param {AbortSignal} [cancelled] somebody wants it no more
   */
  async begin(wanted, media, cancelled) {
    const { begin } = await import("./begin.js");
    return begin(this, wanted, media, cancelled);
  }

  /** The call is over, and the page has said why. */
  clear() {
    this.current.value = null;
  }
}

/** Which call this tab is in, or was before it was loaded anew. */
function keptHere() {
  return JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
}

/**
 * The worker wants to know whether a tab that was in a call is here again.
 * @returns {() => void} ends it
 */
function answerWorker() {
  const { serviceWorker } = navigator;
  const answer = (/** @type {MessageEvent} */ { data, ports }) => {
    if (data.type === "in call?" && keptHere()?.callId === data.callId) ports[0].postMessage(true);
  };
  serviceWorker?.addEventListener("message", answer);
  return () => serviceWorker?.removeEventListener("message", answer);
}
