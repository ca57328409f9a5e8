// What one has begun to write and not sent, conversation by conversation; on the disk a moment later.

import { Table } from "./state.js";

/** @typedef {{ conversation_id: string, text: string, reply_to: string | null }} Begun */

const PAUSE_MS = 400; // between writes
const MOST = 500; // the oldest go

export class Drafts {
  /** @type {Table<Begun>} by conversation */
  #table = new Table(MOST);
  /** @type {Set<string>} */
  #dirty = new Set();
  #timer = 0;
  #leave = () => void this.flush();

  /** @param {import("./disk.js").Disk} disk */
  constructor(disk) {
    this.disk = disk;
    addEventListener("pagehide", this.#leave);
  }

  async open() {
    /** @type {Begun[]} */
    const kept = await this.disk.all("drafts");
    this.#table.setAll(kept.map((each) => [each.conversation_id, each]));
  }

  close() {
    removeEventListener("pagehide", this.#leave);
    clearTimeout(this.#timer);
  }

  /**
   * Followed by whoever shows it.
   * @param {string} conversationId
   */
  of(conversationId) {
    return this.#table.get(conversationId);
  }

  /** @param {string} conversationId */
  peek(conversationId) {
    return this.#table.peek(conversationId);
  }

  /**
   * @param {string} conversationId
   * @param {string} text "": nothing
   * @param {string | null} [replyTo]
   */
  keep(conversationId, text, replyTo = null) {
    const held = this.#table.peek(conversationId);
    if ((held?.text ?? "") === text && (held?.reply_to ?? null) === replyTo) return;
    if (text.trim() || replyTo)
      this.#table.set(conversationId, { conversation_id: conversationId, text, reply_to: replyTo });
    else this.#table.delete(conversationId);
    this.#dirty.add(conversationId);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.flush(), PAUSE_MS);
  }

  async flush() {
    clearTimeout(this.#timer);
    const dirty = [...this.#dirty];
    this.#dirty.clear();
    if (!dirty.length) return;
    try {
      await this.disk.write(["drafts"], ([drafts]) => {
        for (const id of dirty) {
          const held = this.#table.peek(id);
          if (held) drafts.put(held, id);
          else drafts.delete(id);
        }
      });
    } catch {
      // signed out meanwhile, or no room: it is kept as long as the page is
    }
  }
}
