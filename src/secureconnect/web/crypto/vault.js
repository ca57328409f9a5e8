// What this browser keeps beside the library's store: the key of that store, how far it has come, choices.
//
// The store is encrypted by a random key. That key lies here, sealed by another one that the browser does not give
// out (not extractable). This keeps the store from being read by looking at files; whoever can run code in this page,
// or copies the whole profile of the browser, can read it.

import { committed, deleteDatabase, done, openDatabase } from "./database.js";

const STORE = "kept";

export class Vault {
  /** @param {IDBDatabase} database */
  constructor(database) {
    this.database = database;
  }

  /** @param {string} name of the account's store */
  static nameOf(name) {
    return `${name}:vault`;
  }

  /** @param {string} name */
  static async open(name) {
    const make = (/** @type {IDBDatabase} */ database) => void database.createObjectStore(STORE);
    return new Vault(await openDatabase(Vault.nameOf(name), make));
  }

  /** @param {string} name */
  static erase(name) {
    return deleteDatabase(Vault.nameOf(name));
  }

  /** @param {string} key */
  get(key) {
    return done(this.database.transaction(STORE).objectStore(STORE).get(key));
  }

  /**
   * @param {string} key
   * @param {unknown} value that can be cloned
   */
  async set(key, value) {
    const transaction = this.database.transaction(STORE, "readwrite");
    transaction.objectStore(STORE).put(value, key);
    await committed(transaction);
  }

  close() {
    this.database.close();
  }

  /**
   * 32 bytes, made the first time.
   * @returns {Promise<Uint8Array<ArrayBuffer>>}
   */
  async storeKey() {
    const kept = await this.get("storeKey");
    if (kept) return unsealed(kept);
    const iv = crypto.getRandomValues(new Uint8Array(12));
    const key = crypto.getRandomValues(new Uint8Array(32));
    const algorithm = { name: "AES-GCM", length: 256 };
    const around = await crypto.subtle.generateKey(algorithm, false, ["encrypt", "decrypt"]);
    const sealed = await crypto.subtle.encrypt({ name: "AES-GCM", iv }, around, key);
    await this.set("storeKey", { iv, sealed, around });
    return key;
  }
}

/** @param {{iv: Uint8Array<ArrayBuffer>, sealed: ArrayBuffer, around: CryptoKey}} kept */
async function unsealed({ iv, sealed, around }) {
  return new Uint8Array(await crypto.subtle.decrypt({ name: "AES-GCM", iv }, around, sealed));
}
