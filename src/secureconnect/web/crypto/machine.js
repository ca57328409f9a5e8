// One device: the library's machine with its store, what it wants sent, and what the server has for it.

import { Again } from "./again.js";
import { deleteDatabase } from "./database.js";
import { Guard, SILENT, load } from "./library.js";
import { Problem } from "./problem.js";
import { Vault } from "./vault.js";

/**
 * @typedef {import("./library.js").Library} Library
 * @typedef {import("../vendor/matrix-sdk-crypto-wasm/pkg/matrix_sdk_crypto_wasm.js").OlmMachine} OlmMachine
 * @typedef {import("../vendor/matrix-sdk-crypto-wasm/pkg/matrix_sdk_crypto_wasm.js").Device} Device
 * @typedef {import("../vendor/matrix-sdk-crypto-wasm/pkg/matrix_sdk_crypto_wasm.js").OwnUserIdentity} OwnUserIdentity
 * @typedef {import("../vendor/matrix-sdk-crypto-wasm/pkg/matrix_sdk_crypto_wasm.js").OtherUserIdentity} OtherUserIdentity
 * @typedef {{id?: string, type: number, body: string, event_type?: string, txn_id?: string, version?: string}} Outgoing
 * @typedef {(method: string, path: string, more?: {body?: object, idempotencyKey?: string}) => Promise<any>} Ask
 * @typedef {{sender: string, type: string, content: Record<string, any>}} ToDevice what another device has sent
 * @typedef {{ask: Ask, user: string, deviceId: string, serverName: string, storeName: string}} Account
 */

const STORES = ["::matrix-sdk-crypto", "::matrix-sdk-crypto-meta"]; // the databases of the library, behind the name
const RETRY_MS = 2_000;
const LONGEST_RETRY_MS = 60_000;
const ROUNDS = 20; // of requests that follow from answers, before the rest waits for the next time
/** of an upload of keys: the server has others of this device, which are not here any more */
const OTHER_KEYS = new Set(["IDENTITY_KEY_CHANGED", "KEY_ID_REUSED"]);
const PAGES = 200; // of one sync
const CLAIMED = 50; // people whose devices are claimed for in one call; each may have many

export class Machine {
  /**
   * @param {Account} account
   * @param {Library} library
   * @param {OlmMachine} olm
   * @param {Vault} vault
   * @param {Guard} guard
   */
  constructor(account, library, olm, vault, guard) {
    this.account = account;
    this.library = library;
    this.olm = olm;
    this.vault = vault;
    this.guard = guard;
    this.hasSynced = false;
    this.isClosed = false;
    /** whether the keys that this device has published are gone: others cannot reach it until it is another device */
    this.isLost = false;
    /** @type {Set<string>} people whose devices must be asked for before anything is encrypted for them */
    this.stale = new Set();
    /** @type {(events: ToDevice[]) => void} what has come for this device, opened where it was sealed */
    this.onToDevice = () => {};
    this.onLost = () => {};
    this.syncing = new Again(() => this.#syncAll());
    this.pumping = new Again(() => this.#pumpAll());
    this.retryMs = RETRY_MS;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.retry = undefined;
  }

  /**
   * @param {Account} account
   * @param {() => void} onBroken when the library must be loaded again
   * @returns {Promise<Machine>}
   */
  static async open(account, onBroken) {
    await Machine.sweep();
    const library = await load();
    const guard = new Guard(onBroken);
    const vault = await Vault.open(account.storeName);
    try {
      const key = await vault.storeKey();
      const olm = await guard.run(async () => {
        const store = await library.StoreHandle.openWithKey(account.storeName, key, SILENT);
        const user = new library.UserId(`@${account.user}:${account.serverName}`);
        const device = new library.DeviceId(account.deviceId);
        try {
          return await library.OlmMachine.initFromStore(user, device, store, SILENT);
        } finally {
          store.free(); // it would keep the database open after the machine has closed
        }
      });
      return new Machine(account, library, olm, vault, guard);
    } catch (error) {
      vault.close();
      guard.close();
      throw error;
    }
  }

  /**
   * Delete what an account has here; its machine must be closed. The store may outlive that for as long as the
   * library has not let go of it: without the key in the vault nobody reads it.
   * @param {string} storeName
   */
  static async erase(storeName) {
    await Vault.erase(storeName);
    await Promise.all(STORES.map((store) => deleteDatabase(`${storeName}${store}`)));
  }

  /** Delete stores that were left without their key. */
  static async sweep() {
    const names = (await indexedDB.databases?.())?.map(({ name }) => name ?? "") ?? [];
    const left = names.filter((name) => {
      const store = STORES.find((each) => name.endsWith(each));
      return store && !names.includes(Vault.nameOf(name.slice(0, -store.length)));
    });
    await Promise.all(left.map(deleteDatabase));
  }

  close() {
    this.isClosed = true;
    clearTimeout(this.retry);
    this.guard.close();
    this.vault.close();
    if (!this.guard.isBroken) this.olm.close();
  }

  // names

  /** @param {string} user */
  userName(user) {
    return `@${user}:${this.account.serverName}`;
  }

  /**
   * The library takes what it is given: make a new one for each call.
   * @param {string} user
   */
  userId(user) {
    return new this.library.UserId(this.userName(user));
  }

  /** @param {string} conversation */
  roomId(conversation) {
    return new this.library.RoomId(`!${conversation}:${this.account.serverName}`);
  }

  /**
   * @param {{toString(): string} | string} name `@<user>:<server>` or `!<conversation>:<server>`
   * @returns {string} the id within
   */
  idOf(name) {
    return name.toString().slice(1).split(":", 1)[0];
  }

  /**
   * Use the machine. Rejects with CRYPTO_BROKEN when the library breaks meanwhile.
   * @template T
   * @param {(olm: OlmMachine, library: Library) => T | Promise<T>} work
   * @returns {Promise<T>}
   */
  run(work) {
    if (this.isClosed) return Promise.reject(new Problem("CRYPTO_CLOSED", "The keys are closed."));
    return this.guard.run(() => work(this.olm, this.library));
  }

  /**
   * A person's devices as they are known here, lent while `work` is at it: kept beyond, they would keep the store open.
   * @template T
   * @param {string} user
   * @param {(devices: Device[]) => T | Promise<T>} work
   * @returns {Promise<T>}
   */
  async withDevices(user, work) {
    const found = await this.run((olm) => olm.getUserDevices(this.userId(user)));
    const devices = found.devices();
    return lend(() => work(devices), [found, ...devices]);
  }

  /**
   * A person's identity, lent in the same way.
   * @template T
   * @param {string} user
   * @param {(identity: OwnUserIdentity | OtherUserIdentity | undefined) => T | Promise<T>} work
   * @returns {Promise<T>}
   */
  async withIdentity(user, work) {
    const identity = await this.run((olm) => olm.getIdentity(this.userId(user)));
    return lend(() => work(identity), identity ? [identity] : []);
  }

  get untrusting() {
    return new this.library.DecryptionSettings(this.library.TrustRequirement.Untrusted);
  }

  // what it wants sent

  /**
   * Send one request, and tell the machine the answer.
   * @param {Outgoing} request
   */
  async send(request) {
    const [method, path] = this.#where(request);
    const body = JSON.parse(request.body);
    const isSigned = request.type === this.library.RequestType.SignatureUpload && !body.signatures;
    const { ask } = this.account;
    const answer = await ask(method, path, {
      body: isSigned ? { signatures: body } : body,
      // A claim whose answer was lost is given the same keys again.
      ...(request.type === this.library.RequestType.KeysClaim ? { idempotencyKey: request.id } : {}),
    }).catch((error) => {
      throw request.type === this.library.RequestType.KeysUpload ? this.#lostBy(error) : error;
    });
    const { id } = request;
    if (id) await this.run((olm) => olm.markRequestAsSent(id, request.type, JSON.stringify(answer ?? {})));
  }

  /** @param {{ code?: string }} error that an upload of keys was refused with */
  #lostBy(error) {
    if (!OTHER_KEYS.has(error.code ?? "")) return error;
    this.isLost = true;
    this.onLost();
    return lost();
  }

  /**
   * @param {Outgoing} request
   * @returns {[string, string]}
   */
  #where({ type, event_type, txn_id, version }) {
    const { RequestType } = this.library;
    switch (type) {
      case RequestType.KeysUpload:
        return ["POST", "/v1/e2ee/keys/upload"];
      case RequestType.KeysQuery:
        return ["POST", "/v1/e2ee/keys/query"];
      case RequestType.KeysClaim:
        return ["POST", "/v1/e2ee/keys/claim"];
      case RequestType.ToDevice:
        return ["PUT", `/v1/e2ee/to-device/${encodeURIComponent(event_type ?? "")}/${txn_id}`];
      case RequestType.SignatureUpload:
        return ["POST", "/v1/e2ee/signatures"];
      case RequestType.KeysBackup:
        return ["PUT", `/v1/e2ee/backup/keys?version=${encodeURIComponent(version ?? "")}`];
      default:
        throw new Problem("CRYPTO_FAILED", `No call is known for a request of type ${type}.`);
    }
  }

  /** Send all that the machine wants sent. Rejects with the first refusal. */
  pump() {
    return this.isLost ? Promise.reject(lost()) : this.pumping.run();
  }

  async #pumpAll() {
    for (let round = 0; round < ROUNDS; round += 1) {
      const requests = /** @type {Outgoing[]} */ (await this.run((olm) => olm.outgoingRequests()));
      if (requests.length === 0) return;
      let refused;
      for (const request of requests) {
        try {
          await this.send(request);
        } catch (error) {
          refused ??= error; // what was refused must not keep the others back
        }
      }
      if (refused) throw refused;
    }
  }

  /** As `pump`, where nobody waits for it: it is tried again later. */
  pumpLater() {
    this.pump().catch(() => this.#later());
  }

  // what the server has for it

  /**
   * Take all there is.
   * @returns {Promise<void>} rejects when the server cannot be asked; it is then tried again by itself
   */
  sync() {
    return this.syncing.run();
  }

  async #syncAll() {
    try {
      for (let page = 0; page < PAGES && (await this.#syncPage()); page += 1);
      this.hasSynced = true;
      await this.pump();
      clearTimeout(this.retry);
      this.retryMs = RETRY_MS;
    } catch (error) {
      this.#later();
      throw error;
    }
  }

  /** @returns {Promise<boolean>} whether there is more */
  async #syncPage() {
    const since = await this.vault.get("since");
    const query = since ? `?since=${encodeURIComponent(since)}` : "";
    const told = await this.account.ask("GET", `/v1/e2ee/sync${query}`);
    await this.#meetAskers(told.to_device);
    const { changed, left, limited } = told.device_lists;
    const events = await this.run(async (olm, { DeviceLists, UserId }) => {
      const users = (/** @type {string[]} */ names) => names.map((name) => new UserId(name));
      const taken = await olm.receiveSyncChanges(
        JSON.stringify(told.to_device),
        new DeviceLists(users(changed), users(left)),
        new Map(Object.entries(told.one_time_key_counts)),
        new Set(told.unused_fallback_keys),
        this.untrusting,
      );
      if (limited) await olm.markAllTrackedUsersAsDirty();
      return taken;
    });
    await this.vault.set("since", told.next_since); // not before the machine has what came until then
    this.onToDevice(events.map((each) => JSON.parse(each.rawEvent)));
    return told.more;
  }

  /**
   * The library hears nobody ask for a comparison whose device it does not know.
   * @param {ToDevice[]} events
   */
  async #meetAskers(events) {
    const askers = events.filter(({ type }) => type === "m.key.verification.request");
    const users = [...new Set(askers.map(({ sender }) => this.idOf(sender)))];
    if (users.length === 0) return;
    await this.run((olm) => olm.updateTrackedUsers(users.map((user) => this.userId(user))));
    await this.#refresh(users);
  }

  #later() {
    if (this.isClosed || this.isLost || this.guard.isBroken) return;
    clearTimeout(this.retry);
    this.retry = setTimeout(() => this.sync().catch(() => {}), this.retryMs * (0.5 + Math.random() / 2));
    this.retryMs = Math.min(2 * this.retryMs, LONGEST_RETRY_MS);
  }

  // other people's devices

  /**
   * The devices of these people are known as the server knows them, and there is an Olm session with each that has
   * keys. Rejects when the server cannot be asked for what is missing; what is known is not asked again.
   * @param {string[]} users
   */
  async meet(users) {
    const syncing = this.syncing.running ?? (this.hasSynced ? null : this.sync());
    await syncing?.catch((error) => this.#bear(error));
    await this.run((olm) => olm.updateTrackedUsers(users.map((user) => this.userId(user))));
    await this.pump();
    await this.#refresh(users.filter((user) => this.stale.has(user)));
    for (let start = 0; start < users.length; start += CLAIMED) {
      const some = users.slice(start, start + CLAIMED);
      const claim = await this.run((olm) => olm.getMissingSessions(some.map((user) => this.userId(user))));
      if (claim) await this.send(claim);
    }
  }

  /**
   * Ask for the devices of these people now.
   * @param {string[]} users
   */
  async #refresh(users) {
    if (users.length === 0) return;
    for (const user of users) this.stale.delete(user); // before it is asked: what comes meanwhile counts
    try {
      await this.send(await this.run((olm) => olm.queryKeysForUsers(users.map((user) => this.userId(user)))));
    } catch (error) {
      for (const user of users) this.stale.add(user);
      throw error;
    }
  }

  /**
   * While its database is away the server takes messages, but tells nothing: sessions that exist go on.
   * @param {unknown} error
   */
  #bear(error) {
    if (!this.hasSynced || Problem.of(error).status !== 503) throw error;
  }
}

/** What is to be said waits: it can be said once this is another device. */
export function lost() {
  return new Problem("KEYS_LOST", "The keys of this device are not in this browser any more.", {
    passes: true,
  });
}

/**
 * @template T
 * @param {() => T | Promise<T>} work
 * @param {{free(): void}[]} lent
 * @returns {Promise<T>}
 */
async function lend(work, lent) {
  try {
    return await work();
  } finally {
    for (const each of lent) each.free();
  }
}
