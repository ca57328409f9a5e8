// The last `change` held of each conversation: whether an event is news, and what to resume from. Pure.

/** @typedef {import("./types.js").Event} Event */

const NAMED_AT_ONCE = 1000; // conversations in one resume frame

/** @param {Event} event */
export function conversationOf(event) {
  return event.conversation_id ?? event.conversation?.conversation_id ?? event.poll?.conversation_id ?? null;
}

export class Positions {
  /**
   * @param {string} historyId "": before any hello
   * @param {Iterable<[string, number]>} [changes]
   */
  constructor(historyId = "", changes = []) {
    this.historyId = historyId;
    /** @type {Map<string, number>} */
    this.changes = new Map(changes);
    /** @type {Set<string>} */
    this.named = new Set();
    this.nextHistoryId = historyId;
  }

  /**
   * Whether it is news; if it is, it counts as held from now on. What has no `change` always is.
   * @param {Event} event
   */
  admit(event) {
    const conversation = conversationOf(event);
    const { change } = event;
    if (conversation === null || typeof change !== "number") return true;
    if (change <= (this.changes.get(conversation) ?? 0)) return false;
    this.changes.set(conversation, change);
    return true;
  }

  /**
   * The conversation was read anew.
   * @param {string} conversation
   * @param {number} change
   */
  reset(conversation, change) {
    this.changes.set(conversation, change);
  }

  /** @param {string} conversation */
  forget(conversation) {
    this.changes.delete(conversation);
  }

  /**
   * The frames that tell the server what is held. They carry the history our numbers belong to: another one than the
   * server's brings a `gap` for each conversation.
   * @param {string} historyId of the server's hello
   */
  resume(historyId) {
    const all = [...this.changes];
    this.nextHistoryId = historyId;
    this.named.clear();
    const frames = [];
    for (let start = 0; start === 0 || start < all.length; start += NAMED_AT_ONCE) {
      const conversations = Object.fromEntries(all.slice(start, start + NAMED_AT_ONCE));
      const more = start + NAMED_AT_ONCE < all.length;
      frames.push({ type: "resume", history_id: this.historyId || historyId, conversations, more });
    }
    return frames;
  }

  /**
   * @param {Event} frame
   * @returns {string[]} conversations one is no longer in, known with the last frame
   */
  resumed(frame) {
    for (const [conversation, head] of Object.entries(frame.conversations)) {
      this.named.add(conversation);
      const held = this.changes.get(conversation);
      if (held !== undefined) this.changes.set(conversation, Math.max(held, head.change));
    }
    if (frame.more) return [];
    this.historyId = this.nextHistoryId;
    const lost = [...this.changes.keys()].filter((each) => !this.named.has(each));
    for (const each of lost) this.forget(each);
    return lost;
  }
}
