// What this browser keeps beside the library's store: the key of that store, how far it has come, choices.
//
// The store is encrypted by a random key. That key lies here, sealed by another one that the browser does not give
// out (not extractable) or that is made of a passphrase. Without a passphrase this keeps the store from being read
// by looking at files; whoever can run code in this page, or copies the whole profile of the browser, can read it.

import { committed, deleteDatabase, done, openDatabase } from "./database.js";
import { Problem } from "./problem.js";

const STORE = "kept";
const ROUNDS = 600_000; // of PBKDF2 with SHA-256, as OWASP advises

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
   * @param {string} [passphrase]
   * @returns {Promise<Uint8Array<ArrayBuffer>>} rejects with CRYPTO_PASSPHRASE for a wrong one
   */
  async storeKey(passphrase) {
    const kept = await this.get("storeKey");
    if (kept) return this.#unseal(kept, passphrase);
    const salt = crypto.getRandomValues(new Uint8Array(16));
    const iv = crypto.getRandomValues(new Uint8Array(12));
    const key = crypto.getRandomValues(new Uint8Array(32));
    const around = await aroundKey(passphrase, salt);
    const sealed = await crypto.subtle.encrypt({ name: "AES-GCM", iv }, around, key);
    await this.set("storeKey", { salt, iv, sealed, around: passphrase === undefined ? around : null });
    return key;
  }

  /**
   * @param {{salt: Uint8Array<ArrayBuffer>, iv: Uint8Array<ArrayBuffer>, sealed: ArrayBuffer, around: CryptoKey?}} kept
   * @param {string} [passphrase]
   */
  async #unseal({ salt, iv, sealed, around }, passphrase) {
    try {
      const key = around ?? (await aroundKey(passphrase ?? "", salt));
      return new Uint8Array(await crypto.subtle.decrypt({ name: "AES-GCM", iv }, key, sealed));
    } catch {
      throw new Problem("CRYPTO_PASSPHRASE", "This passphrase does not open the keys of this browser.");
    }
  }
}

/**
 * @param {string | undefined} passphrase
 * @param {Uint8Array<ArrayBuffer>} salt
 * @returns {Promise<CryptoKey>}
 */
async function aroundKey(passphrase, salt) {
  const algorithm = { name: "AES-GCM", length: 256 };
  if (passphrase === undefined) return crypto.subtle.generateKey(algorithm, false, ["encrypt", "decrypt"]);
  const bytes = new TextEncoder().encode(passphrase.normalize("NFC"));
  const secret = await crypto.subtle.importKey("raw", bytes, "PBKDF2", false, ["deriveKey"]);
  const how = { name: "PBKDF2", hash: "SHA-256", salt, iterations: ROUNDS };
  return crypto.subtle.deriveKey(how, secret, algorithm, false, ["encrypt", "decrypt"]);
}
