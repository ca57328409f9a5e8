// What stands in the timeline, line by line: messages and polls in their order, what is on its way after them, and what
// divides them.

import { dayName } from "../../i18n/index.js";

/**
 * @typedef {import("../../store/types.js").Message} Message
 * @typedef {import("../../store/types.js").Outgoing} Outgoing
 * @typedef {import("../../store/types.js").Poll} Poll
 */

/**
 * @typedef {object} Row
 * @property {string} key
 * @property {"older" | "begin" | "day" | "unread" | "message" | "poll" | "newer"} kind
 * @property {boolean} [isLoose]
 * @property {string} [text] of a day
 * @property {Message} [message]
 * @property {Outgoing} [outgoing] one's own, not stored yet
 * @property {Poll} [poll] as it was when the row was made: who shows it follows the state's
 * @property {boolean} [isFirst] of several its author has written in a row
 */

/**
 * @typedef {object} Held what is there to be shown
 * @property {readonly Message[]} messages
 * @property {readonly Message[]} provisional
 * @property {readonly Outgoing[]} outgoing
 * @property {readonly Poll[]} polls the oldest first
 * @property {string | null} me
 * @property {number | null} readTo what lies behind is new; null: nothing is
 * @property {boolean} hasOlder
 * @property {boolean} hasNewer
 */

const RECENT = 500; // messages among which one may be that is still on its way
const TOGETHER_MS = 5 * 60_000; // what one writes within it belongs together

/** @type {WeakMap<object, Row>} the same thing in the same place keeps its row, so that nothing is drawn anew */
const made = new WeakMap();
/** @type {WeakMap<object, number>} */
const times = new WeakMap();

/** @param {Message} message */
function timeOf(message) {
  let at = times.get(message);
  if (at === undefined) times.set(message, (at = Date.parse(message.sent_at)));
  return at;
}

/** @param {{ sender_id?: string, client_message_id: string }} message */
export function keyOf({ sender_id, client_message_id }) {
  return `${sender_id} ${client_message_id}`;
}

/**
 * @param {Held} held
 * @returns {Row[]}
 */
export function rowsOf(held) {
  const { messages, provisional, outgoing, me, hasOlder, hasNewer } = held;
  const lines = new Lines(held);
  if (hasOlder) lines.rows.push({ key: "older", kind: "older", isLoose: true });
  else lines.rows.push({ key: "begin", kind: "begin", isLoose: true });
  const polls = pollsWithin(held);
  let next = 0;
  for (const message of messages) {
    const at = timeOf(message);
    while (next < polls.length && Date.parse(polls[next].created_at) < at) lines.poll(polls[next++]);
    lines.message(message, at);
  }
  for (; next < polls.length; next++) lines.poll(polls[next]);
  if (hasNewer) lines.rows.push({ key: "newer", kind: "newer", isLoose: true });
  const waiting = new Map(outgoing.map((each) => [each.client_message_id, each]));
  for (const message of provisional) {
    if (message.sender_id === me) waiting.delete(message.client_message_id);
    lines.message(message, timeOf(message));
  }
  for (const message of waiting.size ? messages.slice(-RECENT) : []) {
    if (message.sender_id === me) waiting.delete(message.client_message_id);
  }
  for (const entry of waiting.values()) lines.outgoing(entry);
  return lines.rows;
}

/**
 * Those of the time that is held.
 * @param {Held} held
 */
function pollsWithin({ polls, messages, hasOlder, hasNewer }) {
  const from = hasOlder && messages.length ? messages[0].sent_at : "";
  const to = hasNewer && messages.length ? messages[messages.length - 1].sent_at : "9";
  return polls.filter(({ created_at }) => created_at >= from && created_at <= to);
}

class Lines {
  /** @type {Row[]} */
  rows = [];
  #dayEnds = -Infinity;
  #dayBegins = Infinity;
  /** @type {string | null} who wrote the line before, if it was written */
  #author = null;
  #at = 0;

  /** @param {Held} held */
  constructor({ me, readTo }) {
    this.me = me;
    this.readTo = readTo;
  }

  /**
   * @param {Message} message
   * @param {number} at
   */
  message(message, at) {
    const { seq, sender_id, message_type } = message;
    const isNotice = message_type === "system";
    this.#divide(at, message.message_id);
    if (this.readTo !== null && seq !== null && seq > this.readTo && sender_id !== this.me && !isNotice) {
      this.rows.push({ key: "unread", kind: "unread", isLoose: true });
      this.readTo = null;
      this.#author = null;
    }
    const isFirst = this.#begins(isNotice ? null : sender_id, at);
    this.#put(message, { key: keyOf(message), kind: "message", message, isFirst });
  }

  /** @param {Outgoing} entry */
  outgoing(entry) {
    this.#divide(entry.queued_at, entry.client_message_id);
    const isFirst = this.#begins(this.me, entry.queued_at);
    const key = keyOf({ sender_id: this.me ?? "", client_message_id: entry.client_message_id });
    this.#put(entry, { key, kind: "message", outgoing: entry, isFirst });
  }

  /** @param {Poll} poll */
  poll(poll) {
    const at = Date.parse(poll.created_at);
    this.#divide(at, poll.poll_id);
    this.#begins(null, at);
    this.#put(poll, { key: poll.poll_id, kind: "poll", poll, isFirst: true });
  }

  /**
   * @param {object} thing
   * @param {Row} row
   */
  #put(thing, row) {
    const before = made.get(thing);
    if (before?.isFirst !== row.isFirst || before?.key !== row.key) made.set(thing, row);
    this.rows.push(/** @type {Row} */ (made.get(thing)));
  }

  /**
   * Whether something begins with it that its author has written.
   * @param {string | null} author
   * @param {number} at
   */
  #begins(author, at) {
    const isFirst = author === null || author !== this.#author || at - this.#at > TOGETHER_MS;
    this.#author = author;
    this.#at = at;
    return isFirst;
  }

  /**
   * @param {number} at
   * @param {string} id of what comes after
   */
  #divide(at, id) {
    if (at < this.#dayEnds && at >= this.#dayBegins) return;
    const begin = new Date(at);
    begin.setHours(0, 0, 0, 0);
    const end = new Date(begin);
    end.setDate(end.getDate() + 1);
    this.#dayBegins = begin.getTime();
    this.#dayEnds = end.getTime();
    this.#author = null;
    this.rows.push({ key: `day ${id}`, kind: "day", isLoose: true, text: dayName(at) });
  }
}
