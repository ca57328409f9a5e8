// Encryption for a page: what it needs at first, small; all the rest is loaded when there is time, or when it is used.

import { Signal, signal } from "../store/signal.js";
import { describe } from "../store/attachments.js";

/**
 * @typedef {import("./index.js").Crypto} Crypto
 * @typedef {import("./index.js").Opened} Opened
 * @typedef {import("./index.js").Unopened} Unopened
 * @typedef {import("./index.js").Payload} Payload
 * @typedef {import("../store/types.js").Message} Message
 * @typedef {import("../store/types.js").Outgoing} Outgoing
 * @typedef {import("../store/types.js").Event} Event
 *
 * @typedef {object} Given
 * @property {import("../api/client.js").Client} client
 * @property {import("../api/socket.js").ChatSocket} socket
 * @property {import("../store/state.js").State} state
 * @property {(conversationId: string) => Promise<void>} learn reads a conversation with its participants
 * @property {string} userId
 * @property {string} deviceId
 */

const MOST_READ = 5_000; // messages held opened; the oldest go
const BEGIN_AFTER_MS = 2_000; // of being online: others cannot write to this device before it has published keys

/** @type {{ content: string, answer: Opened | Unopened | null }} */
const NOT_READ = { content: "", answer: null };

export class Secrecy {
  /** why there is no encryption at this page, if so @type {Signal<{ code: string } | null>} */
  failure = signal(/** @type {{ code: string } | null} */ (null));
  /** comparisons of pictures that are under way @type {Signal<readonly import("./index.js").Flow[]>} */
  flows = signal(/** @type {readonly import("./index.js").Flow[]} */ ([]));
  /** grows when devices or identities of people have changed, or the backup */
  changes = signal(0);

  /** @type {Map<string, Signal<{ content: string, answer: Opened | Unopened | null }>>} by message */
  #read = new Map();
  /** @type {Set<Signal<{ content: string, answer: Opened | Unopened | null }>>} tried in vain: without a network, say */
  #unread = new Set();
  /** @type {Promise<Crypto> | null} */
  #crypto = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer = undefined;
  #isClosed = false;
  /** @type {(() => void)[]} */
  #deaf = [];

  /** @param {Given} given */
  constructor(given) {
    this.given = given;
    const begin = () => this.#begin();
    this.#deaf = [
      given.socket.on("resumed", begin),
      given.socket.on("resuming", begin),
      given.socket.on("message_deleted", ({ message_id }) => this.#forget(message_id)),
    ];
  }

  /** @param {{ userId: string, deviceId: string }} account */
  static storeName({ userId, deviceId }) {
    return `sc-keys:${userId}:${deviceId}`;
  }

  #begin() {
    this.#readAgain();
    clearTimeout(this.#timer);
    if (this.#crypto) return;
    this.#timer = setTimeout(() => void this.crypto().catch(() => {}), BEGIN_AFTER_MS);
  }

  /**
   * The engine; loaded the first time. Rejects with INSECURE_CONTEXT, CRYPTO_MISSING.
   * @returns {Promise<Crypto>}
   */
  crypto() {
    this.#crypto ??= this.#open().catch((error) => {
      this.#crypto = null; // the network may be back the next time
      throw error;
    });
    return this.#crypto;
  }

  async #open() {
    const { client, socket, state, userId, deviceId } = this.given;
    const { open } = await import("./index.js");
    const server = state.server.peek() ?? (await client.ask("GET", "/v1/server", { anonymous: true }));
    const crypto = await open({
      ask: (method, path, asked) => client.ask(method, path, asked),
      on: (type, hear) => this.#on(socket, type, hear),
      user: userId,
      deviceId,
      serverName: server.server_name,
      storeName: Secrecy.storeName(this.given),
    });
    if (this.#isClosed) crypto.close();
    crypto.on("decrypted", ({ message, opened }) => this.#keep(message, opened));
    crypto.on("verification", (flow) => this.#follow(flow));
    crypto.on("failed", (problem) => (this.failure.value = problem));
    const changed = () => (this.changes.value += 1);
    for (const event of /** @type {const} */ (["trust", "backup", "restarted"])) crypto.on(event, changed);
    crypto.on("leader", () => this.#readAgain());
    return crypto;
  }

  /**
   * @param {import("../api/socket.js").ChatSocket} socket
   * @param {string} type
   * @param {(event: any) => void} hear
   */
  #on(socket, type, hear) {
    if (type !== "online") return socket.on(type, hear);
    const stops = [socket.on("resumed", hear), socket.on("resuming", hear)];
    return () => stops.forEach((stop) => stop());
  }

  // messages

  /**
   * What an encrypted message says, or why that is not known; null while it is being opened. To be followed.
   * @param {Message} message
   * @returns {Opened | Unopened | null}
   */
  read(message) {
    const row = this.#row(message.message_id);
    const { content, answer } = row.value;
    if (content === message.content) return answer;
    // it is another since an edit, or has not been seen before
    queueMicrotask(() => void this.#decrypt(message, row));
    return null;
  }

  /**
   * @param {Message} message
   * @param {Signal<{ content: string, answer: Opened | Unopened | null }>} row
   */
  async #decrypt(message, row) {
    const { content } = message;
    if (row.peek().content === content) return;
    row.value = { content, answer: null };
    try {
      const crypto = await this.crypto();
      const answer = await crypto.decrypt(message);
      if (row.peek().content !== content) return;
      row.value = { content, answer };
      if ("payload" in answer) this.#index(message, answer.payload);
    } catch {
      this.#unread.add(row);
    }
  }

  /** Whoever follows them asks for them anew. */
  #readAgain() {
    for (const row of this.#unread) row.value = NOT_READ;
    this.#unread.clear();
  }

  /**
   * @param {import("./index.js").Sealed} message
   * @param {Opened} opened
   */
  #keep(message, opened) {
    this.#row(message.message_id).value = { content: message.content, answer: opened };
    this.#index(message, opened.payload);
  }

  /**
   * @param {import("./index.js").Sealed & { expires_at?: string | null }} message
   * @param {Payload} payload
   */
  #index({ conversation_id, message_id, expires_at }, { body }) {
    if (!body || expires_at) return; // what disappears must not live on here
    void this.crypto()
      .then((crypto) => crypto.index.add(conversation_id, message_id, body))
      .catch(() => {}); // without room it is only not found
  }

  /** @param {string} messageId */
  #forget(messageId) {
    this.#read.delete(messageId);
    void this.#crypto?.then((crypto) => crypto.index.remove(messageId)).catch(() => {});
  }

  /** @param {string} messageId */
  #row(messageId) {
    let row = this.#read.get(messageId);
    if (!row) {
      row = signal(NOT_READ);
      this.#read.set(messageId, row);
      if (this.#read.size > MOST_READ) this.#read.delete([...this.#read.keys()][0]);
    }
    return row;
  }

  /**
   * The `chat` frame that says it, sealed. Of what it says the server is told whom it names, for it notifies them, which
   * message it answers and which files it carries.
   * @param {Outgoing} entry
   * @returns {Promise<Event>}
   */
  async wrap({
    conversation_id,
    client_message_id,
    content,
    message_type,
    reply_to,
    file_ids,
    metadata,
    files,
  }) {
    const mentions = metadata?.mentions;
    const sealed = await this.encrypt(conversation_id, {
      id: client_message_id,
      body: content,
      ...(reply_to ? { reply_to } : {}),
      ...(mentions?.length ? { mentions } : {}),
      ...(files?.length ? { files: describe(files) } : {}),
    });
    return {
      type: "chat",
      conversation_id,
      client_message_id,
      content: sealed,
      is_encrypted: true,
      message_type,
      reply_to,
      file_ids,
      metadata: mentions?.length ? { mentions } : null,
    };
  }

  /**
   * The `edit` frame of a message that has been opened here. Its files, and what it answers, stay.
   * @param {Message} message
   * @param {string} content
   * @param {string[]} mentions
   * @returns {Promise<Event>}
   */
  async rewrap(message, content, mentions) {
    const { answer } = this.#row(message.message_id).peek();
    const { reply_to, files } = answer && "payload" in answer ? answer.payload : {};
    const sealed = await this.encrypt(message.conversation_id, {
      id: message.client_message_id,
      body: content,
      ...(reply_to ? { reply_to } : {}),
      ...(mentions.length ? { mentions } : {}),
      ...(files ? { files } : {}),
    });
    const metadata = mentions.length ? { mentions } : null;
    return { type: "edit", message_id: message.message_id, content: sealed, is_encrypted: true, metadata };
  }

  /**
   * The `content` of a message or an edit; with its `is_encrypted: true`.
   * @param {string} conversationId
   * @param {Omit<Payload, "v">} payload
   * @returns {Promise<string>}
   */
  async encrypt(conversationId, payload) {
    const { state, learn } = this.given;
    if (!state.conversations.peek(conversationId)?.participants) await learn(conversationId);
    const members = state.conversations.peek(conversationId)?.participants;
    // sealed for nobody else it would be lost
    if (!members) throw Object.assign(new Error("no such conversation"), { code: "NOT_FOUND" });
    const crypto = await this.crypto();
    const ids = members.map(({ user_id }) => user_id);
    return crypto.encrypt(conversationId, ids, payload);
  }

  // calls: what call/types.js wants of `Sealing`

  /** Others can seal for this device. */
  async ready() {
    await this.crypto();
  }

  /**
   * @param {string} userId
   * @param {string} deviceId
   * @param {string} type
   * @param {object} content
   */
  async seal(userId, deviceId, type, content) {
    return (await this.crypto()).seal(userId, deviceId, type, content);
  }

  /**
   * @param {string} userId
   * @param {unknown} sealed
   */
  async unseal(userId, sealed) {
    return (await this.crypto()).unseal(userId, /** @type {object} */ (sealed));
  }

  /**
   * Tell everybody in the conversation the key of a recording; what seals it with that. Rejects when they were not told.
   * @param {string} conversationId
   * @param {{ recording_id: string, call_id: string, media_type: string }} recording
   */
  async recordingKey(conversationId, recording) {
    const { RecordingSealer, newRecordingKey } = await import("./recordings.js");
    const key = newRecordingKey();
    const id = recording.recording_id; // so whoever has the recording finds the message
    const content = await this.encrypt(conversationId, { id, recording: { ...recording, ...key } });
    const said = { type: "chat", conversation_id: conversationId, client_message_id: id };
    const { status } = await this.given.socket.ask({ ...said, content, is_encrypted: true });
    if (status !== "stored") throw Object.assign(new Error("may be lost"), { code: "UNAVAILABLE" });
    return RecordingSealer.of(key);
  }

  /**
   * What its message says of a recording, or why that is not known.
   * @param {Message} message
   * @returns {Promise<Opened | Unopened>}
   */
  async open(message) {
    return (await this.crypto()).decrypt(message);
  }

  // comparisons of pictures

  /** @param {import("./index.js").Flow} flow */
  #follow(flow) {
    const others = this.flows.peek().filter((each) => each.flowId !== flow.flowId);
    this.flows.value = [...others, flow];
  }

  /**
   * Nobody looks at it any more.
   * @param {string} flowId
   */
  dismiss(flowId) {
    this.flows.value = this.flows.peek().filter((each) => each.flowId !== flowId);
  }

  // the end

  /** The keys stay in this browser. */
  close() {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    for (const stop of this.#deaf) stop();
    void this.#crypto?.then((crypto) => crypto.close()).catch(() => {});
  }

  /** Nothing of the keys and of what was opened stays in this browser. */
  async erase() {
    this.close();
    const { erase } = await import("./index.js");
    await erase(Secrecy.storeName(this.given));
  }
}
