// Encryption, as the rest of the client sees it. The same in every tab: one of them has the machine (tabs.js).

import { exclusively } from "../store/locks.js";
import { Host } from "./engine.js";
import { Machine } from "./machine.js";
import { Problem } from "./problem.js";
import { SearchIndex } from "./searchindex.js";
import { Tabs, channelName, lockName } from "./tabs.js";
import { Waiting } from "./waiting.js";

export { Problem } from "./problem.js";
export { SealedFile, newFileKey, openFile, openedFile, sealedSize } from "./files.js";

/**
 * @typedef {import("./machine.js").Account} Account
 * @typedef {import("./rooms.js").Payload} Payload
 * @typedef {import("./rooms.js").Sealed} Sealed
 * @typedef {import("./rooms.js").Opened} Opened
 * @typedef {import("./rooms.js").Unopened} Unopened
 * @typedef {import("./rooms.js").Trusted} Trusted
 * @typedef {import("./trust.js").Device} Device
 * @typedef {import("./verification.js").Flow} Flow
 */

/**
 * What can be heard. decrypted: a message that could not be opened before.  trust: a person's devices or identity
 * are others.  restarted: the encryption module broke and was loaded again; messages that were being sealed were
 * tried again.  failed: there is no encryption in this tab, and why; KEYS_LOST: none until this browser is another
 * device.  leader: another tab has the machine now.
 *
 * @typedef {{
 *   decrypted: {message: Sealed, opened: Opened},
 *   trust: {userId: string},
 *   verification: Flow,
 *   backup: null,
 *   restarted: {times: number},
 *   failed: {code: string, message: string},
 *   leader: null,
 * }} Events
 */

export class Crypto {
  /** @type {Map<string, Set<(data: any) => void>>} */
  #ears = new Map();

  /**
   * @param {Account} account
   * @param {import("./engine.js").On} on
   */
  constructor(account, on) {
    this.account = account;
    this.tabs = new Tabs(
      account.storeName,
      () => Host.open(account, on, (event, data) => this.tabs.tell(event, data)),
      (event, data) => this.#hear(event, data),
    );
    this.waiting = new Waiting(
      (message) => this.tabs.call("decrypt", message),
      (message, opened) => this.#hear("decrypted", { message, opened }),
    );
    const call = this.tabs.call.bind(this.tabs);
    this.verification = {
      /** @returns {Promise<Flow[]>} those that are under way */
      list: () => call("verification.list"),
      /** @type {(userId: string, deviceId?: string?) => Promise<Flow>} */
      begin: (userId, deviceId = null) => call("verification.begin", userId, deviceId),
      /** @type {(flowId: string) => Promise<void>} */
      accept: (flowId) => call("verification.accept", flowId),
      /** @type {(flowId: string) => Promise<void>} the pictures are the same */
      confirm: (flowId) => call("verification.confirm", flowId),
      /** @type {(flowId: string, isMismatch?: boolean) => Promise<void>} */
      cancel: (flowId, isMismatch = false) => call("verification.cancel", flowId, isMismatch),
    };
    this.backup = {
      /** @type {() => Promise<{version: string?, isEnabled: boolean, keys: number, backedUp: number}>} */
      state: () => call("backup.state"),
      /** @type {() => Promise<string>} the recovery key, to be shown once */
      create: () => call("backup.create"),
      /** @type {(recoveryKey: string) => Promise<{imported: number, total: number}>} */
      restore: (recoveryKey) => call("backup.restore", recoveryKey),
      /** @type {() => Promise<void>} */
      remove: () => call("backup.remove"),
    };
    this.index = {
      /** @type {(conversationId: string, messageId: string, text: string, writtenMs: number) => Promise<void>} */
      add: (...added) => call("index.add", ...added),
      /** @type {(messageId: string) => Promise<void>} */
      remove: (messageId) => call("index.remove", messageId),
      /** @type {(conversationId: string) => Promise<void>} nothing of it is found any more */
      leave: (conversationId) => call("index.leave", conversationId),
      /** @type {(question: string, conversationId?: string?) => Promise<import("./searchindex.js").Found[]>} */
      search: (question, conversationId = null) => call("index.search", question, conversationId),
    };
  }

  get isLeader() {
    return this.tabs.isLeader;
  }

  /** Resolves when the keys of this device are published and it has taken what waited for it. @returns {Promise<void>} */
  ready() {
    return this.tabs.call("ready");
  }

  /**
   * @param {string} conversationId
   * @param {string[]} memberIds all of them
   * @param {Omit<Payload, "v">} payload
   * @returns {Promise<string>} the `content` to send with `is_encrypted`.  Rejects with a Problem: IDENTITY_CHANGED
   *   (details.users), MESSAGE_TOO_LONG, CRYPTO_…, or the server's refusal when keys could not be fetched or sent
   */
  encrypt(conversationId, memberIds, payload) {
    return this.tabs.call("encrypt", conversationId, memberIds, payload);
  }

  /**
   * What cannot be opened is remembered, and told as `decrypted` once it can.
   * @param {Sealed} message
   * @returns {Promise<Opened | Unopened>}
   */
  decrypt(message) {
    return this.waiting.decrypt(onlySealed(message));
  }

  /**
   * A message that was deleted: it is not waited for any more.
   * @param {string} messageId
   */
  forget(messageId) {
    this.waiting.forget(messageId);
  }

  /**
   * @param {string} userId
   * @param {string} deviceId
   * @param {string} type
   * @param {object} content name in it what it belongs to: what was sealed for one call must not serve another
   * @returns {Promise<object>} JSON that this device alone can open, once
   */
  seal(userId, deviceId, type, content) {
    return this.tabs.call("seal", userId, deviceId, type, content);
  }

  /**
   * @param {string} userId
   * @param {object} sealed
   * @returns {Promise<{type: string, content: Record<string, any>, device: string, trust: Trusted}>}
   */
  unseal(userId, sealed) {
    return this.tabs.call("unseal", userId, sealed);
  }

  /** As far as is known here. @param {string} userId @returns {Promise<Trusted>} */
  trust(userId) {
    return this.tabs.call("trust", userId);
  }

  /** As far as they are known here. @param {string} userId @returns {Promise<Device[]>} */
  devices(userId) {
    return this.tabs.call("devices", userId);
  }

  /** As the server knows it now. @param {string} userId @returns {Promise<{trust: Trusted, devices: Device[]}>} */
  look(userId) {
    return this.tabs.call("look", userId);
  }

  /** The person's changed keys are fine. @param {string} userId @returns {Promise<void>} */
  approve(userId) {
    return this.tabs.call("approve", userId);
  }

  /** @returns {Promise<{exists: boolean, canSign: boolean, isVerified: boolean}>} one's own identity, and this device */
  own() {
    return this.tabs.call("own");
  }

  /** @param {{password: string, totpCode?: string, reset?: boolean}} given @returns {Promise<void>} */
  bootstrap(given) {
    return this.tabs.call("bootstrap", given);
  }

  /** @returns {Promise<boolean>} whether unverified devices of verified people get no keys */
  isStrict() {
    return this.tabs.call("isStrict");
  }

  /** @param {boolean} isStrict @returns {Promise<void>} */
  setStrict(isStrict) {
    return this.tabs.call("setStrict", isStrict);
  }

  /** Whether signing out loses no key. @returns {Promise<boolean>} */
  isBackedUp() {
    return this.tabs.call("backup.isComplete");
  }

  /**
   * @template {keyof Events} T
   * @param {T} event
   * @param {(data: Events[T]) => void} hear
   * @returns {() => void} stops it
   */
  on(event, hear) {
    const ears = this.#ears.get(event) ?? new Set();
    this.#ears.set(event, ears.add(hear));
    return () => void ears.delete(hear);
  }

  /** The keys stay in this browser. */
  close() {
    this.tabs.close();
  }

  /** At sign-out: nothing of the account's keys and messages stays in this browser. */
  async erase() {
    this.close();
    await erase(this.account.storeName);
  }

  /**
   * @param {string} event
   * @param {any} data
   */
  #hear(event, data) {
    if (event === "keys") this.waiting.tryAgain(data.sessions);
    if (event === "leader" || event === "restarted") this.waiting.tryAgain(null);
    if (event === "erased") this.close();
    for (const hear of this.#ears.get(event) ?? []) hear(data);
  }
}

/**
 * @param {Account & {on: import("./engine.js").On}} given
 * @returns {Promise<Crypto>} at once; what is asked of it waits until there are keys.  Rejects with INSECURE_CONTEXT,
 *   LOCKS_MISSING: two tabs would write to one store
 */
export async function open({ on, ...account }) {
  if (!globalThis.isSecureContext) {
    throw new Problem("INSECURE_CONTEXT", "Encryption needs https, or localhost.");
  }
  if (!navigator.locks) throw new Problem("LOCKS_MISSING", "Encryption needs a browser with Web Locks.");
  return new Crypto(account, on);
}

/**
 * What an account has left in this browser; tabs that still use it let go of it.
 * @param {string} storeName
 */
export async function erase(storeName) {
  const channel = new BroadcastChannel(channelName(storeName));
  channel.postMessage({ event: "erased", data: null });
  channel.close();
  await exclusively(lockName(storeName), async () => {
    await Promise.all([Machine.erase(storeName), SearchIndex.erase(storeName)]);
  });
}

/** @param {Sealed} message @returns {Sealed} what can be posted to another tab */
function onlySealed({
  message_id,
  conversation_id,
  sender_id,
  content,
  sent_at,
  client_message_id,
  edited_at,
  expires_at,
}) {
  const ids = { message_id, conversation_id, sender_id, client_message_id };
  return { ...ids, content, sent_at, edited_at, expires_at };
}
