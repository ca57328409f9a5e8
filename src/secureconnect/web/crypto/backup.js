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
const SOUGHT_AGAIN_MS = 600_000; // after which the same key is asked for once more
const MOST_SOUGHT = 5_000; // that are remembered; the ones of longest ago go

export class Backup {
  #uploading = new Again(() => this.#uploadAll());
  /** @type {Map<string, number>} when the backup was asked for a session, by its place and name */
  #sought = new Map();
  #seeking = Promise.resolve();

  /**
   * @param {Machine} machine
   * @param {() => void} onChange when its state is another
   * @param {(sessions: string[]?) => void} onRestored when messages may be readable that were not: of these sessions, or any
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

  /** Whether every key of this device is in a backup that there still is. Where that cannot be asked, it is not. */
  async isBackedUp() {
    const counts = await this.machine.run((olm) => olm.roomKeyCounts());
    if (counts.total === 0) return true;
    if (counts.total !== counts.backedUp) return false;
    const latest = await this.#latest().catch(() => null);
    return latest !== null && (await this.#isOurs(latest.version));
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
    this.onRestored(null);
    return counted;
  }

  /**
   * Take one key out of the backup, if it is there and this device can open it; one after another.
   * @param {string} conversationId
   * @param {string} session
   */
  seekLater(conversationId, session) {
    const room = this.machine.roomId(conversationId).toString();
    const name = `${room} ${session}`;
    if (Date.now() - (this.#sought.get(name) ?? -Infinity) < SOUGHT_AGAIN_MS) return;
    this.#sought.delete(name);
    this.#sought.set(name, Date.now());
    if (this.#sought.size > MOST_SOUGHT) this.#sought.delete([...this.#sought.keys()][0]);
    this.#seeking = this.#seeking.then(() => this.#seek(room, session)).catch(() => this.#missed(name));
  }

  /** @param {string} name what could not be asked for may be asked for again */
  #missed(name) {
    this.#sought.delete(name);
  }

  /**
   * @param {string} room
   * @param {string} session
   */
  async #seek(room, session) {
    const { machine } = this;
    const { decryptionKey: key, backupVersion: version } = await machine.run((olm) => olm.getBackupKeys());
    if (!key || !version) return;
    const query = Object.entries({ version, room_id: room, session_id: session });
    const path = `/v1/e2ee/backup/keys?${query.map((each) => each.map(encodeURIComponent).join("=")).join("&")}`;
    const { rooms } = await machine.account.ask("GET", path);
    if ((await this.#import(key, version, rooms)).imported > 0) this.onRestored([session]);
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
