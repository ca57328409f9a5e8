// What the leading tab does for all: one machine, and what is asked of it by name.

import { Backup } from "./backup.js";
import { Machine, lost } from "./machine.js";
import { Problem } from "./problem.js";
import { Rooms } from "./rooms.js";
import { Sealing } from "./sealing.js";
import { SearchIndex } from "./searchindex.js";
import { Trust } from "./trust.js";
import { Verifications } from "./verification.js";
import { isHopeful } from "./waiting.js";

/**
 * @typedef {import("./machine.js").Account} Account
 * @typedef {(event: string, data: any) => void} Tell
 * @typedef {(type: string, hear: (event: any) => void) => () => void} On events of the chat socket
 */

const RESTARTS = 3; // of the library; what breaks it more often does so each time
const STRIKES = 2; // times that a message may have been at work when the library broke

/** The engine, loaded again when the library breaks. */
export class Host {
  #restarts = 0;
  #isClosed = false;
  /** @type {Map<string, number>} how often each message was being opened when the library broke */
  #strikes = new Map();
  /** @type {Set<string>} messages that are being opened */
  #opening = new Set();

  /**
   * @param {Account} account
   * @param {On} on
   * @param {Tell} tell
   */
  constructor(account, on, tell) {
    this.account = account;
    this.on = on;
    this.tell = tell;
    /** @type {Promise<Engine>} */
    this.engine = this.#open();
  }

  /**
   * @param {Account} account
   * @param {On} on
   * @param {Tell} tell
   */
  static async open(account, on, tell) {
    const host = new Host(account, on, tell);
    await host.engine;
    return host;
  }

  /** @returns {Promise<Engine>} */
  #open() {
    return Engine.open(this.account, this.on, this.tell, () => this.#restart());
  }

  #restart() {
    const broken = this.engine;
    for (const id of this.#opening) this.#strikes.set(id, (this.#strikes.get(id) ?? 0) + 1);
    this.engine = broken.then(async (engine) => {
      engine.close();
      if (this.#isClosed) throw new Problem("CRYPTO_CLOSED", "The keys are closed.");
      if (++this.#restarts > RESTARTS) {
        const problem = new Problem("CRYPTO_BROKEN", "The encryption module breaks again and again.");
        this.tell("failed", problem.told());
        throw problem;
      }
      const next = await this.#open();
      this.tell("restarted", { times: this.#restarts });
      return next;
    });
    this.engine.catch(() => {}); // whoever calls is told
  }

  /**
   * What the library broke under is tried once more with a fresh one.
   * @param {string} method
   * @param {unknown[]} args
   */
  async call(method, args) {
    const message = method === "decrypt" ? /** @type {{message_id: string}} */ (args[0]).message_id : null;
    if (message && (this.#strikes.get(message) ?? 0) >= STRIKES) return { reason: "broken", session: null };
    if (message) this.#opening.add(message);
    try {
      return await (await this.engine).call(method, args);
    } catch (error) {
      if (Problem.of(error).code !== "CRYPTO_BROKEN") throw error;
      return await (await this.engine).call(method, args);
    } finally {
      if (message) this.#opening.delete(message);
    }
  }

  close() {
    this.#isClosed = true;
    this.engine.then((engine) => engine.close()).catch(() => {});
  }
}

export class Engine {
  /** @type {(() => void)[]} */
  #deaf = [];

  /**
   * @param {Machine} machine
   * @param {SearchIndex} index
   * @param {Tell} tell
   */
  constructor(machine, index, tell) {
    this.machine = machine;
    this.index = index;
    this.tell = tell;
    this.trust = new Trust(machine);
    this.rooms = new Rooms(machine, this.trust);
    this.sealing = new Sealing(machine, this.trust);
    this.backup = new Backup(
      machine,
      () => tell("backup", null),
      (sessions) => tell("keys", { sessions }),
    );
    this.verifications = new Verifications(machine, (flow) => tell("verification", flow));
    /** @type {Record<string, (...args: any[]) => unknown>} */
    this.methods = this.#methods();
  }

  /**
   * @param {Account} account
   * @param {On} on
   * @param {Tell} tell
   * @param {() => void} onBroken
   */
  static async open(account, on, tell, onBroken) {
    const machine = await Machine.open(account, onBroken);
    const engine = new Engine(machine, await SearchIndex.open(account.storeName, machine.vault), tell);
    engine.trust.isStrict = (await machine.vault.get("isStrict")) ?? true;
    engine.#listen(on);
    return engine;
  }

  /** @param {On} on */
  #listen(on) {
    const { machine, rooms, verifications, backup, tell } = this;
    machine.onToDevice = (events) => {
      verifications.hear(events);
      if (events.length > 0) backup.uploadLater();
    };
    machine.onLost = () => tell("failed", lost().told());
    rooms.onNewSession = () => backup.uploadLater();
    verifications.onDone = (userId, isSelf) => void this.#verified(userId, isSelf).catch(() => {});
    const { olm } = machine;
    olm.registerRoomKeyUpdatedCallback(async (infos) => this.#keys(infos));
    olm.registerRoomKeysWithheldCallback(async (infos) => this.#keys(infos));
    olm.registerUserIdentityUpdatedCallback(async (id) => this.tell("trust", { userId: machine.idOf(id) }));
    olm.registerDevicesUpdatedCallback(async (names) => {
      for (const name of names) this.tell("trust", { userId: machine.idOf(name) });
    });
    const sync = () => void machine.sync().catch(() => {}); // it comes back to that by itself
    const renew = (/** @type {string} */ userId) => {
      machine.stale.add(userId);
      rooms.renewFor(userId).catch(() => {});
    };
    this.#deaf = [
      on("e2ee", sync),
      on("online", sync),
      on("recovered", sync),
      on("key_changed", ({ user_id }) => {
        renew(user_id);
        sync();
      }),
      on("user_left", ({ conversation_id }) => void rooms.renew(conversation_id).catch(() => {})),
      on("user_joined", ({ user }) => void machine.stale.add(user.user_id)),
    ];
    sync();
  }

  /** @param {{sessionId: string}[]} infos */
  #keys(infos) {
    this.tell("keys", { sessions: infos.map((info) => info.sessionId) });
  }

  /**
   * @param {string} userId
   * @param {boolean} isSelf
   */
  async #verified(userId, isSelf) {
    const { machine } = this;
    if (isSelf) await machine.run((olm) => olm.requestMissingSecretsIfNeeded());
    await machine.pump(); // the signature goes out, and counts here once it comes back with the keys
    machine.stale.add(userId);
    await machine.meet([userId]);
    this.tell("trust", { userId });
  }

  /**
   * @param {string} method
   * @param {unknown[]} args
   */
  async call(method, args) {
    return this.methods[method](...args);
  }

  async #ready() {
    const { machine } = this;
    await (machine.syncing.running ?? (machine.hasSynced ? null : machine.sync()));
    if (machine.isLost) throw lost();
  }

  /**
   * What lacks a key is asked of the backup, too.
   * @param {import("./rooms.js").Sealed} message
   */
  async #decrypt(message) {
    const answer = await this.rooms.decrypt(message);
    if ("reason" in answer && isHopeful(answer) && answer.session)
      this.backup.seekLater(message.conversation_id, answer.session);
    return answer;
  }

  #methods() {
    const { rooms, trust, verifications, backup, sealing, index, machine } = this;
    return {
      ready: () => this.#ready(),
      encrypt: rooms.encrypt.bind(rooms),
      decrypt: this.#decrypt.bind(this),
      seal: sealing.seal.bind(sealing),
      unseal: sealing.unseal.bind(sealing),
      trust: trust.of.bind(trust),
      look: trust.look.bind(trust),
      devices: trust.devices.bind(trust),
      approve: trust.approve.bind(trust),
      own: trust.own.bind(trust),
      bootstrap: trust.bootstrap.bind(trust),
      isStrict: () => trust.isStrict,
      setStrict: async (/** @type {boolean} */ isStrict) => {
        await machine.vault.set("isStrict", isStrict);
        trust.isStrict = isStrict;
      },
      "verification.list": () => verifications.list(),
      "verification.begin": verifications.begin.bind(verifications),
      "verification.accept": verifications.accept.bind(verifications),
      "verification.confirm": verifications.confirm.bind(verifications),
      "verification.cancel": verifications.cancel.bind(verifications),
      "backup.state": backup.state.bind(backup),
      "backup.create": backup.create.bind(backup),
      "backup.restore": backup.restore.bind(backup),
      "backup.remove": backup.remove.bind(backup),
      "backup.isComplete": backup.isBackedUp.bind(backup),
      "index.add": index.add.bind(index),
      "index.remove": index.remove.bind(index),
      "index.leave": index.leave.bind(index),
      "index.search": index.search.bind(index),
    };
  }

  close() {
    for (const stop of this.#deaf) stop();
    this.verifications.close();
    this.index.close();
    this.machine.close();
  }
}
