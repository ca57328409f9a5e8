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
const MOST_GONE = 1_000; // deleted messages that are remembered, should one of them be being opened

/** @type {Read} */
const NOT_READ = [];

export class Readings {
  /** @type {Map<string, Row>} by message */
  #rows = new Map();
  /** @type {Map<Row, Message>} tried in vain: without a network, say */
  #unread = new Map();
  /** @type {Set<string>} messages that were deleted */
  #gone = new Set();
  /** @type {Map<string, Map<string, number>>} of each conversation, what of messages has not reached the index yet */
  #unwritten = new Map();
  /** grows when something else may be found */
  indexed = signal(0);

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
      if ("payload" in answer) await this.#index(message, answer.payload);
      else if (message.edited_at) await this.#change(({ index }) => index.remove(message.message_id));
    } catch (error) {
      this.failed(/** @type {object} */ (error));
      this.#unread.set(row, message);
    }
  }

  /**
   * It is found by what it says now, and not by what it said before, also where nobody looks at it.
   * @param {Message & { change: number }} message as the event tells it
   */
  edited(message) {
    if (!message.is_encrypted) return;
    const { message_id, conversation_id, change } = message;
    void this.#writes(conversation_id, message_id, change, this.#decrypt(message, this.#row(message_id)));
  }

  /** Whoever follows them asks for them anew. */
  again() {
    const unread = [...this.#unread];
    this.#unread.clear();
    for (const [row, message] of unread) {
      row.value = NOT_READ;
      if (message.edited_at) void this.#decrypt(message, row);
    }
  }

  /**
   * Up to which change what was told of it has reached the index: should the page end now, what comes after must be
   * told again.
   * @param {string} conversationId
   * @returns {number} Infinity: all of it.  Less than 0: not even that one is in it no more
   */
  writtenUpTo(conversationId) {
    return Math.min(Infinity, ...(this.#unwritten.get(conversationId)?.values() ?? [])) - 1;
  }

  /**
   * @param {string} conversationId
   * @param {string} what is written of it: what is told later of the same takes its place
   * @param {number} change it was told as
   * @param {Promise<void>} done does not reject
   */
  async #writes(conversationId, what, change, done) {
    const unwritten = this.#unwritten.get(conversationId) ?? new Map();
    this.#unwritten.set(conversationId, unwritten.set(what, change));
    await done;
    if (unwritten.get(what) === change) unwritten.delete(what);
    if (unwritten.size === 0) this.#unwritten.delete(conversationId);
  }

  /**
   * @param {import("./index.js").Sealed} message
   * @param {Opened} opened
   */
  keep(message, opened) {
    put(this.#row(message.message_id), message.content, opened);
    void this.#index(message, opened.payload);
  }

  /**
   * @param {import("./index.js").Sealed & { is_earlier?: boolean }} message
   * @param {Payload} payload
   */
  async #index({ conversation_id, message_id, sent_at, edited_at, expires_at, is_earlier }, { body }) {
    if (expires_at || is_earlier || this.#gone.has(message_id)) return; // that must not live on here
    const writtenMs = Date.parse(edited_at ?? sent_at);
    if (body) await this.#change(({ index }) => index.add(conversation_id, message_id, body, writtenMs));
    else if (edited_at) await this.#change(({ index }) => index.remove(message_id));
  }

  /** @param {{ message_id: string, conversation_id: string, change: number }} event */
  deleted({ message_id, conversation_id, change }) {
    void this.#writes(conversation_id, message_id, change, this.forget(message_id));
  }

  /** @param {string} messageId of one that was deleted */
  async forget(messageId) {
    this.#rows.delete(messageId);
    this.#gone.add(messageId);
    if (this.#gone.size > MOST_GONE) this.#gone.delete([...this.#gone][0]);
    await this.#change((crypto) => {
      crypto.forget(messageId);
      return crypto.index.remove(messageId);
    });
  }

  /** @param {string} conversationId in which one is no more */
  leave(conversationId) {
    void this.#writes(
      conversationId,
      "",
      0,
      this.#change(({ index }) => index.leave(conversationId)),
    );
  }

  /** @param {(crypto: Crypto) => Promise<void>} work */
  async #change(work) {
    try {
      await work(await this.crypto());
      this.indexed.update((times) => times + 1);
    } catch {
      // there is none, or no room: it is only not found
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
