// What this browser keeps of one account, in IndexedDB: what is on its way out, drafts, and enough of the conversations
// that the page is there at once, also without a network. Messages of encrypted conversations are kept as the server has
// them; what one has written and not sent is kept as it was written.

const VERSION = 2;
const STORES = /** @type {const} */ (["outbox", "blobs", "drafts", "conversations", "people", "facts"]);

/** @typedef {(typeof STORES)[number]} Store */

export class Disk {
  /** @param {IDBDatabase} db */
  constructor(db) {
    this.db = db;
  }

  /**
   * Rejects where the browser keeps nothing for the page.
   * @param {string} userId
   * @returns {Promise<Disk>}
   */
  static async open(userId) {
    const asked = indexedDB.open(nameOf(userId), VERSION);
    asked.onupgradeneeded = () => {
      const { result: db } = asked;
      for (const store of STORES) if (!db.objectStoreNames.contains(store)) db.createObjectStore(store);
    };
    const db = await done(asked);
    db.onversionchange = () => db.close(); // another tab signs out, or is of a later version
    return new Disk(db);
  }

  /** @param {string} userId */
  static async destroy(userId) {
    await done(indexedDB.deleteDatabase(nameOf(userId)));
  }

  /**
   * @param {Store} store
   * @param {string} key
   * @returns {Promise<any>}
   */
  get(store, key) {
    return done(this.db.transaction(store).objectStore(store).get(key));
  }

  /**
   * @param {Store} store
   * @returns {Promise<any[]>}
   */
  all(store) {
    return done(this.db.transaction(store).objectStore(store).getAll());
  }

  /**
   * Returns when it is on the disk.
   * @param {Store} store
   * @param {string} key
   * @param {any} value
   */
  put(store, key, value) {
    return this.write([store], ([into]) => into.put(value, key));
  }

  /**
   * @param {Store} store
   * @param {string} key
   */
  delete(store, key) {
    return this.write([store], ([from]) => from.delete(key));
  }

  /**
   * All of it, or nothing.
   * @param {Store[]} stores
   * @param {(stores: IDBObjectStore[]) => void} work asks for all of it at once
   * @returns {Promise<void>}
   */
  write(stores, work) {
    return new Promise((resolve, reject) => {
      const transaction = this.db.transaction(stores, "readwrite", { durability: "strict" });
      transaction.oncomplete = () => resolve();
      transaction.onerror = transaction.onabort = () => reject(transaction.error ?? new Error("not written"));
      work(stores.map((store) => transaction.objectStore(store)));
      transaction.commit(); // should the page end now, it is done all the same
    });
  }

  close() {
    this.db.close();
  }
}

/** @param {string} userId */
function nameOf(userId) {
  return `sc.${userId}`;
}

/**
 * @template T
 * @param {IDBRequest<T>} asked
 * @returns {Promise<T>}
 */
function done(asked) {
  return new Promise((resolve, reject) => {
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  });
}
