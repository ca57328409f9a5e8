// The one composition: what there is of each thing, for whoever is signed in. Views import `app`; nothing else does.

import { Blocks } from "./api/blocks.js";
import { Client } from "./api/client.js";
import { Downloads } from "./api/downloads.js";
import { Device } from "./api/device.js";
import { Edition } from "./api/edition.js";
import { Notices } from "./api/notices.js";
import { Outbox } from "./api/outbox.js";
import { Presences } from "./api/presences.js";
import { Session } from "./api/session.js";
import { ChatSocket } from "./api/socket.js";
import { Sync } from "./api/sync.js";
import { Uploads } from "./api/uploads.js";
import { Calls } from "./call/calls.js";
import { Secrecy } from "./crypto/secrecy.js";
import { Router } from "./router.js";
import { describe } from "./store/attachments.js";
import { Disk } from "./store/disk.js";
import { Drafts } from "./store/drafts.js";
import { Positions } from "./store/positions.js";
import { load, Writer } from "./store/snapshot.js";
import { effect, signal } from "./store/signal.js";
import { State } from "./store/state.js";

/**
 * @typedef {import("./store/types.js").Outgoing} Outgoing
 * @typedef {import("./store/types.js").Event} Event
 */

/**
 * What there is while somebody is signed in.
 * @typedef {object} Account
 * @property {Client} client
 * @property {State} state
 * @property {ChatSocket} socket
 * @property {Sync} sync
 * @property {Outbox} outbox
 * @property {Downloads} downloads
 * @property {Disk} disk
 * @property {Writer} writer
 * @property {Calls} calls
 * @property {Secrecy} secrecy
 * @property {Presences} presences
 * @property {Notices} notices
 * @property {Edition} edition
 * @property {Drafts} drafts
 * @property {Blocks} blocks
 */

const PART_LIMIT_MS = 60_000; // for a part of a recording

class App {
  session = new Session();
  client = new Client(this.session);
  state = new State();
  router = new Router();
  /** whether this page can encrypt: its module was installed with the server, and has been opened */
  canEncrypt = signal(false);
  device = new Device(this.client, (path) => this.router.go(path));
  /** @type {import("./store/signal.js").Signal<Account | null>} null while nobody is signed in, or it is being opened */
  account = signal(/** @type {Account | null} */ (null));
  /** this browser does not let the page keep anything, without which it does not work */
  isBarred = signal(false);
  /**
   * Each tells what somebody would lose who signs out now, or null.
   * @type {Set<() => Promise<string | null> | string | null>}
   */
  losses = new Set();
  #turn = Promise.resolve();

  async start() {
    void this.#learnServer();
    let userId = /** @type {string | null} */ (null);
    let deviceId = /** @type {string | null} */ (null);
    effect(() => {
      const next = this.session.userId;
      const device = this.session.tokens.value?.device_id ?? null;
      const isOther = next !== null && next === userId && device !== deviceId;
      deviceId = device;
      if (isOther) void this.#beginAnew();
      if (next === userId) return;
      const before = userId;
      userId = next;
      this.#turn = this.#turn.then(() => this.#change(before, next)).catch(reportError); // one after the other
    });
    effect(() => this.device.badge(this.state.unread.value));
  }

  async #learnServer() {
    try {
      this.state.server.value = await this.client.ask("GET", "/v1/server", { anonymous: true });
    } catch {
      setTimeout(() => void this.#learnServer(), 5_000);
    }
  }

  /**
   * @param {string | null} before
   * @param {string | null} next
   */
  async #change(before, next) {
    if (before !== null) await this.#close(before);
    if (next !== null) await this.#open(next);
  }

  /** This browser is another device of the same person now; what waits to be sent stays. */
  async #beginAnew() {
    await Promise.allSettled([this.account.peek()?.secrecy.erase(), this.session.leaving]);
    location.reload();
  }

  /** @param {string} userId */
  async #open(userId) {
    const { state, session } = this;
    state.me.value = session.tokens.peek()?.user ?? null;
    const disk = await Disk.open(userId).catch(() => null);
    this.isBarred.value = disk === null;
    if (disk === null) return;
    const client = new Client(session);
    const positions = new Positions();
    const shorter = await load(disk, state, positions);
    const socket = new ChatSocket(session, positions, () => this.learnMe());
    const writer = new Writer(disk, state, positions, (id) => secrecy.writtenUpTo(id));
    for (const id of shorter) writer.note(id);
    const sync = new Sync(client, socket, state, (id) => writer.note(id));
    const uploads = new Uploads(client, disk, socket.link, sealing);
    const outbox = new Outbox(disk, socket, uploads, (entry) => this.#wrap(entry));
    const downloads = new Downloads(client, socket, sealing);
    const drafts = new Drafts(disk);
    const blocks = new Blocks(client, socket, outbox, state, disk);
    await Promise.all([outbox.open(), drafts.open()]);
    const secrecy = this.#secrecyOf(userId, client, socket, sync);
    const calls = this.#callsOf(userId, client, socket, secrecy);
    const presences = new Presences(client, socket, state, disk);
    const notices = new Notices(client, socket, state, disk);
    this.account.value = {
      ...{ client, state, socket, sync, outbox, downloads, disk, writer, calls, secrecy },
      ...{ presences, notices, edition: new Edition(socket), drafts, blocks },
    };
    socket.open();
  }

  /** @param {string} userId */
  async #close(userId) {
    const account = this.account.peek();
    this.account.value = null;
    account?.calls.close();
    account?.secrecy.close();
    account?.client.close();
    this.state.clear();
    account?.presences.close();
    account?.socket.close();
    account?.outbox.close();
    account?.downloads.close();
    account?.drafts.close();
    account?.blocks.close();
    account?.disk.close();
    await this.device.forgetPush();
    // another tab may have signed in again before this one has heard that it signed out
    if (!this.session.isKept(userId)) {
      this.session.forgetDevice(userId); // another device from now on: this one's keys are gone
      await Promise.all([account?.secrecy.erase(), Disk.destroy(userId)]);
    }
    if (this.session.ended.peek() !== "SESSION_ENDED") this.router.go("/", { replace: true });
  }

  /**
   * @param {string} userId
   * @param {Client} client
   * @param {ChatSocket} socket
   * @param {Sync} sync
   */
  #secrecyOf(userId, client, socket, sync) {
    const { state, session } = this;
    const deviceId = session.tokens.peek()?.device_id ?? "";
    const learn = (/** @type {string} */ id) => sync.conversation(id);
    return new Secrecy({ client, socket, state, learn, userId, deviceId });
  }

  /**
   * @param {string} userId
   * @param {Client} client
   * @param {ChatSocket} socket
   * @param {Secrecy} secrecy
   */
  #callsOf(userId, client, socket, secrecy) {
    const { session, state } = this;
    return new Calls({
      ask: (method, path, asked) => client.ask(method, path, asked),
      put: (path, content) => client.ask("PUT", path, { content, limitMs: PART_LIMIT_MS }),
      token: () => session.token(),
      heldToken: () => session.tokens.peek()?.access_token ?? null,
      on: (type, listener) => socket.on(type, listener),
      userId,
      nameOf: (id) => (id === null ? (state.me.peek()?.display_name ?? "") : state.nameOf(id)),
      isEncrypted: (id) => this.#isEncrypted(id),
      sealing: () => secrecy,
    });
  }

  /**
   * The frame that says it.
   * @param {Outgoing} entry
   * @returns {Promise<Event>}
   */
  async #wrap(entry) {
    if (await this.#isEncrypted(entry.conversation_id)) return this.mine.secrecy.wrap(entry);
    const { conversation_id, client_message_id, content, message_type, reply_to, file_ids, metadata, files } =
      entry;
    return {
      type: "chat",
      conversation_id,
      client_message_id,
      content,
      message_type,
      reply_to,
      file_ids,
      metadata: files?.length ? { ...metadata, files: describe(files) } : metadata,
    };
  }

  /**
   * Say otherwise what one has said. Rejects with a Refusal, or Unreachable.
   * @param {import("./store/types.js").Message} message
   * @param {string} content
   * @param {string[]} mentions people it names now
   */
  async edit(message, content, mentions) {
    const { conversation_id, message_id, metadata } = message;
    const { socket, secrecy } = this.mine;
    if (await this.#isEncrypted(conversation_id)) {
      await socket.ask(await secrecy.rewrap(message, content, mentions));
      return;
    }
    const { mentions: _, ...others } = metadata ?? {};
    const next = mentions.length ? { ...others, mentions } : others;
    const frame = { type: "edit", message_id, content };
    await socket.ask(metadata || mentions.length ? { ...frame, metadata: next } : frame);
  }

  /** @param {string} id of a conversation; asked for if it is not known */
  async #isEncrypted(id) {
    const { conversations } = this.state;
    if (conversations.peek(id) === undefined) await this.mine.sync.conversation(id);
    return conversations.peek(id)?.settings.is_e2ee_enabled ?? true;
  }

  /** Ask the server who one is by now. */
  async learnMe() {
    const user = /** @type {import("./store/types.js").User} */ (
      await this.client.ask("GET", "/v1/users/me")
    );
    this.keepMe(user);
    return user;
  }

  /** @param {import("./store/types.js").User} user oneself, as the server has just told */
  keepMe(user) {
    if (!this.session.isKept(user.user_id)) return; // signed out meanwhile
    this.session.keepUser(user);
    this.state.me.value = user;
    this.state.meet([user]);
  }

  /** Have `canEncrypt` say how it is; the module is fetched for that, if it was not. */
  async learnEncryption() {
    try {
      await this.mine.secrecy.crypto();
      this.canEncrypt.value = true;
    } catch {
      this.canEncrypt.value = false; // who then wants to encrypt is told why
    }
  }

  /** What there is while somebody is signed in. Throws when nobody is. */
  get mine() {
    const account = this.account.peek();
    if (account === null) throw new Error("nobody is signed in");
    return account;
  }
}

/** What seals and opens files of encrypted conversations. */
function sealing() {
  return import("./crypto/files.js");
}

export const app = new App();
