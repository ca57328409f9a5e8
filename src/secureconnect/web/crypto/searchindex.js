// Search in what was encrypted: the server cannot, so this browser keeps the words itself.
//
// Of each message lie here its text, sealed (AES-GCM), and its words as keyed hashes (HMAC), under keys that the browser
// does not give out. Whoever reads the files learns how many messages there are, when they were written and which of
// them share words. One word is found by itself or by how it begins, from PREFIX letters on.
//
// What is asked is done one after the other, however long one takes: what was asked before is in what is found.

import { committed, deleteDatabase, done, openDatabase } from "./database.js";
import { words } from "./words.js";

/** @typedef {import("./vault.js").Vault} Vault */
/** @typedef {{message_id: string, conversation_id: string, text: string}} Found */

const STORE = "messages";
const VERSION = 2;
const WORDS = "words";
const CONVERSATION = "conversation";
const MOST = 50_000; // messages; the oldest go
const DROPPED = 500; // at a time
const PREFIX = 2; // letters, at least, of the beginning of a word
const LONGEST_PREFIX = 8;
const HASH_BYTES = 12;
const FOUND = 100; // of one search, the newest

export class SearchIndex {
  /** @type {Promise<unknown>} what was asked last */
  #last = Promise.resolve();

  /**
   * @param {IDBDatabase} database
   * @param {{seal: CryptoKey, hash: CryptoKey}} keys
   */
  constructor(database, keys) {
    this.database = database;
    this.keys = keys;
  }

  /**
   * @param {string} storeName
   * @param {Vault} vault which keeps its keys
   */
  static async open(storeName, vault) {
    let keys = await vault.get("indexKeys");
    if (!keys) {
      const seal = await crypto.subtle.generateKey({ name: "AES-GCM", length: 256 }, false, [
        "encrypt",
        "decrypt",
      ]);
      const hash = await crypto.subtle.generateKey({ name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
      keys = { seal, hash };
      await vault.set("indexKeys", keys);
    }
    const database = await openDatabase(
      SearchIndex.nameOf(storeName),
      (made) => {
        if (made.objectStoreNames.contains(STORE)) made.deleteObjectStore(STORE); // it fills again
        const store = made.createObjectStore(STORE, { keyPath: "message_id" });
        store.createIndex(WORDS, "words", { multiEntry: true });
        store.createIndex(CONVERSATION, "conversation_id");
      },
      VERSION,
    );
    return new SearchIndex(database, keys);
  }

  /** @param {string} storeName */
  static nameOf(storeName) {
    return `${storeName}:search`;
  }

  /** @param {string} storeName */
  static erase(storeName) {
    return deleteDatabase(SearchIndex.nameOf(storeName));
  }

  /**
   * The same message again: what it says now, also where an earlier version is opened later.
   * @param {string} conversationId
   * @param {string} messageId
   * @param {string} text
   * @param {number} writtenMs
   */
  add(conversationId, messageId, text, writtenMs) {
    return this.#inTurn(() => this.#put(conversationId, messageId, text, writtenMs));
  }

  /**
   * @param {string} conversationId
   * @param {string} messageId
   * @param {string} text
   * @param {number} writtenMs
   */
  async #put(conversationId, messageId, text, writtenMs) {
    const hashes = await Promise.all([...entries(text)].map((entry) => this.#hash(entry)));
    const iv = crypto.getRandomValues(new Uint8Array(12));
    const plain = new TextEncoder().encode(text);
    const sealed = await crypto.subtle.encrypt({ name: "AES-GCM", iv }, this.keys.seal, plain);
    const transaction = this.database.transaction(STORE, "readwrite");
    const store = transaction.objectStore(STORE);
    const held = await done(store.get(messageId));
    if (held?.written_ms > writtenMs) return;
    const row = { message_id: messageId, conversation_id: conversationId, written_ms: writtenMs };
    store.put({ ...row, words: hashes, iv, sealed });
    if ((await done(store.count())) > MOST) await dropOldest(store);
    await committed(transaction);
  }

  /** @param {string} messageId */
  remove(messageId) {
    return this.#inTurn(async () => {
      const transaction = this.database.transaction(STORE, "readwrite");
      transaction.objectStore(STORE).delete(messageId);
      await committed(transaction);
    });
  }

  /** @param {string} conversationId */
  leave(conversationId) {
    return this.#inTurn(async () => {
      const transaction = this.database.transaction(STORE, "readwrite");
      const store = transaction.objectStore(STORE);
      for (const key of await done(store.index(CONVERSATION).getAllKeys(conversationId))) store.delete(key);
      await committed(transaction);
    });
  }

  /**
   * Messages with all of these words, the newest first; the last word may be the beginning of one.
   * @param {string} question
   * @param {string?} [conversationId] in this conversation alone
   * @returns {Promise<Found[]>}
   */
  search(question, conversationId = null) {
    return this.#inTurn(() => this.#search(question, conversationId));
  }

  /**
   * @param {string} question
   * @param {string?} conversationId
   */
  async #search(question, conversationId) {
    const asked = words(question);
    if (asked.length === 0) return [];
    const hashes = await Promise.all(
      asked.map((word, at) => this.#hash(entryOf(word, at === asked.length - 1))),
    );
    const transaction = this.database.transaction(STORE);
    const index = transaction.objectStore(STORE).index(WORDS);
    /** @type {string[]?} */
    let ids = null;
    for (const hash of hashes) {
      const having = /** @type {string[]} */ (await done(index.getAllKeys(hash)));
      ids = ids === null ? having : intersection(ids, having);
    }
    return this.#open((ids ?? []).sort().reverse(), conversationId);
  }

  /**
   * @param {string[]} ids
   * @param {string?} conversationId
   */
  async #open(ids, conversationId) {
    /** @type {Found[]} */
    const found = [];
    for (const id of ids) {
      const row = await done(this.database.transaction(STORE).objectStore(STORE).get(id));
      if (!row || (conversationId !== null && row.conversation_id !== conversationId)) continue;
      const plain = await crypto.subtle.decrypt({ name: "AES-GCM", iv: row.iv }, this.keys.seal, row.sealed);
      const { message_id, conversation_id } = row;
      found.push({ message_id, conversation_id, text: new TextDecoder().decode(plain) });
      if (found.length === FOUND) break;
    }
    return found;
  }

  close() {
    this.database.close();
  }

  /**
   * @template T
   * @param {() => Promise<T>} work
   * @returns {Promise<T>}
   */
  #inTurn(work) {
    const mine = this.#last.then(work);
    this.#last = mine.catch(() => {});
    return mine;
  }

  /** @param {string} entry */
  async #hash(entry) {
    const whole = await crypto.subtle.sign("HMAC", this.keys.hash, new TextEncoder().encode(entry));
    return whole.slice(0, HASH_BYTES);
  }
}

/**
 * What a text is found by: its words, and how they begin.
 * @param {string} text
 * @returns {Set<string>}
 */
function entries(text) {
  const found = new Set();
  for (const word of words(text)) {
    found.add(`=${word}`);
    const letters = [...word];
    const longest = Math.min(letters.length, LONGEST_PREFIX);
    for (let length = PREFIX; length <= longest; length += 1)
      found.add(`^${letters.slice(0, length).join("")}`);
  }
  return found;
}

/**
 * @param {string} word
 * @param {boolean} isLast
 */
function entryOf(word, isLast) {
  const { length } = [...word];
  return isLast && length >= PREFIX && length <= LONGEST_PREFIX ? `^${word}` : `=${word}`;
}

/** Message ids ascend with time. @param {IDBObjectStore} store */
async function dropOldest(store) {
  const oldest = await done(store.getAllKeys(null, DROPPED));
  for (const key of oldest) store.delete(key);
}

/**
 * @param {string[]} some
 * @param {string[]} others
 * @returns {string[]}
 */
function intersection(some, others) {
  const known = new Set(others);
  return some.filter((id) => known.has(id));
}
