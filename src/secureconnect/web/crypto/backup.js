// The backup of keys: sealed here by a key that only a person has (the recovery key), kept by the server.

import { Again } from "./again.js";
import { Problem } from "./problem.js";
import { readRecoveryKey, writeRecoveryKey } from "./recovery.js";

/** @typedef {import("./machine.js").Machine} Machine */
/** @typedef {import("../vendor/matrix-sdk-crypto-wasm/pkg/matrix_sdk_crypto_wasm.js").BackupDecryptionKey} DecryptionKey */

/** @typedef {{ version: string, algorithm: string, auth_data: { public_key?: string } }} Version */

const ALGORITHM = "m.megolm_backup.v1.curve25519-aes-sha2";
const SECRET = "m.megolm_backup.v1"; // as one's devices ask each other for it
const BATCHES = 1_000; // of one upload
const PAGES = 2_000; // of one restore
const PAGE = 100;

export class Backup {
  #uploading = new Again(() => this.#uploadAll());

  /**
   * @param {Machine} machine
   * @param {() => void} onChange when its state is another
   * @param {() => void} onRestored when messages may be readable that were not
   */
  constructor(machine, onChange, onRestored) {
    this.machine = machine;
    this.onChange = onChange;
    this.onRestored = onRestored;
    machine.olm.registerReceiveSecretCallback(async (name, value) => {
      if (name === SECRET) setTimeout(() => this.#takeSecret(value).catch(() => {}), 0);
    });
  }

  /**
   * version: on the server, null without any.  isEnabled: this device puts keys into it.
   * @returns {Promise<{version: string?, isEnabled: boolean, keys: number, backedUp: number}>}
   */
  async state() {
    const latest = await this.#latest();
    const isEnabled = latest !== null && (await this.#isOurs(latest.version));
    const counts = await this.machine.run((olm) => olm.roomKeyCounts());
    return {
      version: latest?.version ?? null,
      isEnabled,
      keys: counts.total,
      backedUp: isEnabled ? counts.backedUp : 0,
    };
  }

  /** Whether every key of this device is in the backup, as far as is known without asking the server. */
  async isBackedUp() {
    const counts = await this.machine.run((olm) => olm.roomKeyCounts());
    if (counts.total === 0) return true;
    return counts.total === counts.backedUp && (await this.machine.run((olm) => olm.isBackupEnabled()));
  }

  /**
   * Begin a backup, in the place of one that there was.
   * @returns {Promise<string>} the recovery key, for people to keep: it is shown once and cannot be asked for again
   */
  async create() {
    const { machine } = this;
    const before = await this.#versions();
    await this.#delete(before.slice(1)); // what was left of earlier attempts: there may be a few only
    const key = machine.library.BackupDecryptionKey.createRandomKey();
    const signed = { public_key: key.megolmV1PublicKey.publicKeyBase64 };
    const signatures = await machine.run((olm) => olm.sign(JSON.stringify(signed)));
    const auth_data = { ...signed, signatures: JSON.parse(signatures.asJSON()) };
    const { version } = await machine.account.ask("POST", "/v1/e2ee/backup/version", {
      body: { algorithm: ALGORITHM, auth_data },
      idempotencyKey: crypto.randomUUID(),
    });
    await machine.run((olm) => olm.disableBackup()); // keys count as kept in another version no more
    const text = writeRecoveryKey(key.toBase64());
    await this.#enable(key, version);
    await this.upload();
    await this.#delete(before.slice(0, 1)); // not before the new one has all keys
    return text;
  }

  /**
   * Take all keys out of the backup, and put this device's into it from now on.
   * @param {string} recoveryKey as people type it
   * @returns {Promise<{imported: number, total: number}>} rejects with RECOVERY_KEY_WRONG, NO_BACKUP
   */
  async restore(recoveryKey) {
    const key = this.machine.library.BackupDecryptionKey.fromBase64(readRecoveryKey(recoveryKey));
    const latest = await this.#latest();
    if (!latest) throw new Problem("NO_BACKUP", "There is no backup.");
    if (!opens(key, latest)) {
      throw new Problem("RECOVERY_KEY_WRONG", "This recovery key is not that of the backup.");
    }
    const counted = await this.#takeAll(key, latest.version);
    await this.#enable(key, latest.version);
    return counted;
  }

  /** Delete the backup on the server. */
  async remove() {
    await this.#delete(await this.#versions());
    await this.machine.run((olm) => olm.disableBackup());
    this.onChange();
  }

  /** Put what is not in it yet into the backup, if there is one. */
  uploadLater() {
    this.upload().catch(() => {}); // the next key tries again, and so does the next start
  }

  /** @returns {Promise<void>} */
  upload() {
    return this.#uploading.run();
  }

  async #uploadAll() {
    const { machine } = this;
    let sent = 0;
    for (; sent < BATCHES; sent += 1) {
      const request = await machine.run((olm) => olm.backupRoomKeys());
      if (!request) break;
      await this.#put(request);
    }
    if (sent > 0) this.onChange();
  }

  /** @param {import("../vendor/matrix-sdk-crypto-wasm/pkg/matrix_sdk_crypto_wasm.js").KeysBackupRequest} request */
  async #put(request) {
    try {
      await this.machine.send(request);
    } catch (error) {
      const { code } = Problem.of(error);
      if (code === "BACKUP_VERSION_WRONG" || code === "NOT_FOUND") {
        await this.machine.run((olm) => olm.disableBackup()); // another device has begun another, or deleted it
        this.onChange();
      }
      throw error;
    }
  }

  /**
   * Another device of one's own, verified, has given its key of the backup.
   * @param {string} secret in base64
   */
  async #takeSecret(secret) {
    const { machine } = this;
    const key = machine.library.BackupDecryptionKey.fromBase64(secret);
    const latest = await this.#latest();
    if (!latest || !opens(key, latest)) return;
    await this.#takeAll(key, latest.version);
    await this.#enable(key, latest.version);
    await machine.run((olm) => olm.deleteSecretsFromInbox(SECRET));
  }

  /**
   * @param {DecryptionKey} key
   * @param {string} version
   */
  async #enable(key, version) {
    const { machine } = this;
    const { publicKeyBase64 } = key.megolmV1PublicKey;
    await machine.run((olm) => olm.enableBackupV1(publicKeyBase64, version));
    await machine.run((olm) => olm.saveBackupDecryptionKey(key, version));
    this.onChange();
    this.uploadLater();
  }

  /**
   * @param {DecryptionKey} key
   * @param {string} version
   */
  async #takeAll(key, version) {
    const { machine } = this;
    let cursor = "";
    const counted = { imported: 0, total: 0 };
    for (let page = 0; page < PAGES; page += 1) {
      const place = cursor ? `&cursor=${encodeURIComponent(cursor)}` : "";
      const path = `/v1/e2ee/backup/keys?version=${encodeURIComponent(version)}&limit=${PAGE}${place}`;
      const told = await machine.account.ask("GET", path);
      const result = await this.#import(key, version, told.rooms);
      counted.imported += result.imported;
      counted.total += result.total;
      if (!told.next_cursor) break;
      cursor = told.next_cursor;
    }
    this.onRestored();
    return counted;
  }

  /**
   * @param {DecryptionKey} key
   * @param {string} version
   * @param {Record<string, {sessions: Record<string, {session_data: Record<string, string>}>}>} rooms
   */
  async #import(key, version, rooms) {
    let total = 0;
    /** @type {Map<import("../vendor/matrix-sdk-crypto-wasm/pkg/matrix_sdk_crypto_wasm.js").RoomId, Map<string, any>>} */
    const opened = new Map();
    for (const [room, { sessions }] of Object.entries(rooms)) {
      const keys = new Map();
      for (const [session, { session_data }] of Object.entries(sessions)) {
        total += 1;
        const plain = openSession(key, session_data);
        if (plain) keys.set(session, plain);
      }
      opened.set(new this.machine.library.RoomId(room), keys);
    }
    const result = await this.machine.run((olm) => olm.importBackedUpRoomKeys(opened, () => {}, version));
    return { imported: result.importedCount, total };
  }

  /** @returns {Promise<Version | null>} the one that takes keys */
  async #latest() {
    return (await this.#versions())[0] ?? null;
  }

  /** @returns {Promise<Version[]>} the latest first */
  async #versions() {
    return (await this.machine.account.ask("GET", "/v1/e2ee/backup/versions")).versions;
  }

  /** @param {Version[]} versions */
  async #delete(versions) {
    for (const { version } of versions) {
      await this.machine.account.ask("DELETE", `/v1/e2ee/backup/version/${encodeURIComponent(version)}`);
    }
  }

  /** @param {string} version */
  async #isOurs(version) {
    if (!(await this.machine.run((olm) => olm.isBackupEnabled()))) return false;
    return (await this.machine.run((olm) => olm.getBackupKeys())).backupVersion === version;
  }
}

/**
 * @param {DecryptionKey} key
 * @param {{algorithm: string, auth_data: {public_key?: string}}} backup
 */
function opens(key, { algorithm, auth_data }) {
  return algorithm === ALGORITHM && auth_data.public_key === key.megolmV1PublicKey.publicKeyBase64;
}

/**
 * @param {DecryptionKey} key
 * @param {Record<string, string>} sealed
 */
function openSession(key, { ephemeral, mac, ciphertext }) {
  try {
    return JSON.parse(key.decryptV1(ephemeral, mac, ciphertext));
  } catch {
    return null; // one that was spoilt must not keep the others back
  }
}
