// The messages of one conversation that are held, ascending, without a hole between the first and the last.

import { signal } from "./signal.js";

/** @typedef {import("./types.js").Message} Message */

const MOST_HELD = 20_000; // beyond, those farthest from the newest go
const KEPT_UNSEEN = 200; // of a conversation nobody looks at

export class Timeline {
  /** @param {string} conversationId */
  constructor(conversationId) {
    this.conversationId = conversationId;
    /** stored ones, ascending by seq */
    this.messages = signal(/** @type {readonly Message[]} */ ([]));
    /** accepted by the server and not stored yet, others' and one's own */
    this.provisional = signal(/** @type {readonly Message[]} */ ([]));
    /** whether the server may have earlier ones, and later ones, than are held */
    this.hasOlder = signal(true);
    this.hasNewer = signal(false);
    /** whether the newest, or those around a place, have been read */
    this.isLoaded = signal(false);
  }

  /** @param {string} messageId */
  find(messageId) {
    return this.messages.peek().find((each) => each.message_id === messageId) ?? null;
  }

  /**
   * In the place of all that is held.
   * @param {Message[]} messages ascending
   * @param {{ hasOlder: boolean, hasNewer: boolean }} beyond
   */
  reset(messages, { hasOlder, hasNewer }) {
    this.messages.value = messages;
    this.hasOlder.value = hasOlder;
    this.hasNewer.value = hasNewer;
    this.isLoaded.value = true;
  }

  /** Nothing is known any more. What others were seen to say provisionally comes back stored, or never. */
  clear() {
    this.messages.value = [];
    this.hasOlder.value = true;
    this.hasNewer.value = false;
    this.isLoaded.value = false;
  }

  /**
   * Earlier ones that follow up to the first that is held.
   * @param {Message[]} messages ascending
   * @param {boolean} hasOlder
   */
  prepend(messages, hasOlder) {
    const first = this.messages.peek()[0]?.seq ?? Infinity;
    const before = messages.filter((each) => (each.seq ?? 0) < first);
    if (before.length) this.messages.value = [...before, ...this.messages.peek()];
    this.hasOlder.value = hasOlder;
  }

  /**
   * Later ones that follow on the last that is held.
   * @param {Message[]} messages ascending
   * @param {boolean} hasNewer
   */
  append(messages, hasNewer) {
    const last = this.messages.peek().at(-1)?.seq ?? 0;
    const after = messages.filter((each) => (each.seq ?? 0) > last);
    if (after.length)
      this.messages.value = bounded([...this.messages.peek(), ...after], MOST_HELD, this.hasOlder);
    this.hasNewer.value = hasNewer;
  }

  /**
   * One that has come: new, or another version of one that is held.
   * @param {Message} message
   */
  put(message) {
    if (message.seq === null) {
      const others = this.provisional.peek().filter((each) => !isSame(each, message));
      if (this.messages.peek().some((each) => isSame(each, message))) return;
      this.provisional.value = [...others, message];
      return;
    }
    this.withdraw((each) => isSame(each, message));
    const held = this.messages.peek();
    const place = placeOf(held, message.seq);
    if (held[place]?.seq === message.seq)
      this.messages.value = held.with(place, { ...held[place], ...message });
    else if (place === held.length && this.isLoaded.peek() && !this.hasNewer.peek()) {
      this.messages.value = bounded([...held, message], MOST_HELD, this.hasOlder);
    }
  }

  /**
   * @param {string} messageId
   * @param {(message: Message) => Message} change
   */
  change(messageId, change) {
    const held = this.messages.peek();
    const place = held.findLastIndex((each) => each.message_id === messageId);
    if (place >= 0) this.messages.value = held.with(place, change(held[place]));
  }

  /** @param {(message: Message) => boolean} isMeant provisional ones to take away */
  withdraw(isMeant) {
    const held = this.provisional.peek();
    if (held.some(isMeant)) this.provisional.value = held.filter((each) => !isMeant(each));
  }

  /** Nobody looks at it now. */
  trim() {
    if (this.hasNewer.peek()) this.clear();
    else this.messages.value = bounded(this.messages.peek(), KEPT_UNSEEN, this.hasOlder);
  }
}

/**
 * @param {Message} one
 * @param {Message} other
 */
export function isSame(one, other) {
  return (
    one.message_id === other.message_id ||
    (one.sender_id === other.sender_id && one.client_message_id === other.client_message_id)
  );
}

/**
 * Where a message of this seq stands or belongs.
 * @param {readonly Message[]} held
 * @param {number} seq
 */
function placeOf(held, seq) {
  let low = 0;
  let high = held.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (/** @type {number} */ (held[middle].seq) < seq) low = middle + 1;
    else high = middle;
  }
  return low;
}

/**
 * @param {readonly Message[]} messages
 * @param {number} most
 * @param {import("./signal.js").Signal<boolean>} hasOlder
 */
function bounded(messages, most, hasOlder) {
  if (messages.length <= most) return messages;
  hasOlder.value = true;
  return messages.slice(-most);
}
