// What has been opened of encrypted messages, to be followed by whoever shows them; and the index they are found by.

import { signal } from "../store/signal.js";

/**
 * @typedef {import("./index.js").Crypto} Crypto
 * @typedef {import("./index.js").Opened} Opened
 * @typedef {import("./index.js").Unopened} Unopened
 * @typedef {import("./index.js").Payload} Payload
 * @typedef {import("../store/types.js").Message} Message
 */

/** @typedef {readonly { content: string, answer: Opened | Unopened | null }[]} Read what is known of its versions */
/** @typedef {import("../store/signal.js").Signal<Read>} Row */

const MOST_READ = 5_000; // messages held opened; the oldest go
const MOST_VERSIONS = 3; // of one message, as it was and is shown at once while it is edited

/** @type {Read} */
const NOT_READ = [];

export class Readings {
  /** @type {Map<string, Row>} by message */
  #rows = new Map();
  /** @type {Set<Row>} tried in vain: without a network, say */
  #unread = new Set();

  /**
   * @param {() => Promise<Crypto>} crypto
   * @param {(error: object) => void} failed is told why nothing could be opened
   */
  constructor(crypto, failed) {
    this.crypto = crypto;
    this.failed = failed;
  }

  /**
   * What an encrypted message says, or why that is not known; null while it is being opened. To be followed.
   * @param {Message} message
   * @returns {Opened | Unopened | null}
   */
  read(message) {
    const row = this.#row(message.message_id);
    const known = row.value.find(({ content }) => content === message.content);
    if (known) return known.answer;
    // it is another since an edit, or has not been seen before
    queueMicrotask(() => void this.#decrypt(message, row));
    return null;
  }

  /**
   * @param {Message} message
   * @param {Row} row
   */
  async #decrypt(message, row) {
    const { content } = message;
    if (row.peek().some((each) => each.content === content)) return;
    put(row, content, null);
    try {
      const crypto = await this.crypto();
      const answer = await crypto.decrypt(message);
      put(row, content, answer);
      if ("payload" in answer) this.#index(message, answer.payload);
    } catch (error) {
      this.failed(/** @type {object} */ (error));
      this.#unread.add(row);
    }
  }

  /**
   * It is not found any more by what it said before.
   * @param {Message} message
   */
  async edited(message) {
    if (!message.is_encrypted) return;
    await this.#unindex((index) => index.remove(message.message_id));
    await this.#decrypt(message, this.#row(message.message_id));
  }

  /** Whoever follows them asks for them anew. */
  again() {
    for (const row of this.#unread) row.value = NOT_READ;
    this.#unread.clear();
  }

  /**
   * @param {import("./index.js").Sealed} message
   * @param {Opened} opened
   */
  keep(message, opened) {
    put(this.#row(message.message_id), message.content, opened);
    this.#index(message, opened.payload);
  }

  /**
   * @param {import("./index.js").Sealed & { expires_at?: string | null }} message
   * @param {Payload} payload
   */
  #index({ conversation_id, message_id, expires_at }, { body }) {
    if (!body || expires_at) return; // what disappears must not live on here
    void this.crypto()
      .then((crypto) => crypto.index.add(conversation_id, message_id, body))
      .catch(() => {}); // without room it is only not found
  }

  /**
   * A message that was deleted.
   * @param {string} messageId
   */
  forget(messageId) {
    this.#rows.delete(messageId);
    void this.#unindex((index) => index.remove(messageId));
  }

  /** @param {string} conversationId in which one is no more */
  leave(conversationId) {
    void this.#unindex((index) => index.leave(conversationId));
  }

  /** @param {(index: Crypto["index"]) => Promise<void>} work */
  async #unindex(work) {
    try {
      await work((await this.crypto()).index);
    } catch {
      // there is none: nothing is found
    }
  }

  /** @param {string} messageId */
  #row(messageId) {
    let row = this.#rows.get(messageId);
    if (!row) {
      row = signal(NOT_READ);
      this.#rows.set(messageId, row);
      if (this.#rows.size > MOST_READ) this.#rows.delete([...this.#rows.keys()][0]);
    }
    return row;
  }
}

/**
 * @param {Row} row
 * @param {string} content
 * @param {Opened | Unopened | null} answer
 */
function put(row, content, answer) {
  const others = row.peek().filter((each) => each.content !== content);
  row.value = [...others, { content, answer }].slice(-MOST_VERSIONS);
}
