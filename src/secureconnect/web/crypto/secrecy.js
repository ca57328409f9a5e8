// Encryption for a page: what it needs at first, small; all the rest is loaded when there is time, or when it is used.

import { Signal, signal } from "../store/signal.js";
import { describe } from "../store/attachments.js";
import { Readings } from "./readings.js";

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

const MOST_FLOWS = 20; // comparisons that are remembered
/** what does not pass by itself: there is no encryption at this page until somebody does something about it */
const LASTING = new Set([
  "INSECURE_CONTEXT",
  "LOCKS_MISSING",
  "CRYPTO_MISSING",
  "CRYPTO_BROKEN",
  "CRYPTO_FAILED",
  "KEYS_LOST",
]);
const BEGIN_AFTER_MS = 2_000; // of being online: others cannot write to this device before it has published keys

export class Secrecy {
  /** why there is no encryption at this page, if so @type {Signal<{ code: string } | null>} */
  failure = signal(/** @type {{ code: string } | null} */ (null));
  /** comparisons of pictures that are under way @type {Signal<readonly import("./index.js").Flow[]>} */
  flows = signal(/** @type {readonly import("./index.js").Flow[]} */ ([]));
  /** grows when devices or identities of people have changed, or the backup */
  changes = signal(0);
  /** conversations whose members were asked for since there is this link @type {Set<string>} */
  #learnt = new Set();

  #readings = new Readings(
    () => this.crypto(),
    (error) => this.#fail(error),
  );
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
    const isMe = (/** @type {Event} */ { user }) => user.user_id === given.userId;
    this.#deaf = [
      given.socket.on("resumed", begin),
      given.socket.on("resuming", begin),
      given.socket.on("message_deleted", (/** @type {any} */ event) => this.#readings.deleted(event)),
      given.socket.on("message_edited", (/** @type {any} */ event) => this.#readings.edited(event)),
      given.socket.on("conversation_deleted", ({ conversation_id }) => this.#readings.leave(conversation_id)),
      given.socket.on("user_left", (event) => isMe(event) && this.#readings.leave(event.conversation_id)),
      given.socket.on("resumed", ({ lost }) =>
        lost.forEach((/** @type {string} */ id) => this.#readings.leave(id)),
      ),
    ];
  }

  /** @param {{ userId: string, deviceId: string }} account */
  static storeName({ userId, deviceId }) {
    return `sc-keys:${userId}:${deviceId}`;
  }

  #begin() {
    this.#learnt.clear();
    this.#readings.again();
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
      this.#fail(error);
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
    crypto.on("decrypted", ({ message, opened }) => this.#readings.keep(message, opened));
    crypto.on("verification", (flow) => this.#follow(flow));
    crypto.on("failed", (problem) => this.#fail(problem));
    const changed = () => (this.changes.value += 1);
    for (const event of /** @type {const} */ (["trust", "backup", "restarted"])) crypto.on(event, changed);
    crypto.on("leader", () => {
      this.failure.value = null;
      this.#readings.again();
    });
    this.failure.value = null;
    this.indexed.update((times) => times + 1); // of the first time on
    crypto.ready().catch((problem) => this.#fail(problem)); // also where another tab has the machine
    return crypto;
  }

  /** @param {{ code?: string, passes?: boolean }} problem */
  #fail({ code, passes }) {
    if (!code || !LASTING.has(code)) return;
    if (!passes || code === "KEYS_LOST") this.failure.value = { code }; // then what is to be said waits for it
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
    const answer = this.#readings.read(message);
    if (!answer || !("reason" in answer) || answer.reason !== "waiting_for_key") return answer;
    return this.#isBeforeMe(message) ? { ...answer, reason: "before_you" } : answer;
  }

  /**
   * Nobody gives its key to who was not there. The library learns that only of a session that goes on afterwards.
   * @param {Message} message
   */
  #isBeforeMe({ conversation_id, sent_at }) {
    const members = this.given.state.conversations.get(conversation_id)?.participants;
    const me = members?.find(({ user_id }) => user_id === this.given.userId);
    return me !== undefined && Date.parse(sent_at) < Date.parse(me.joined_at);
  }

  /** @param {string} messageId of one that was deleted while this page was away */
  forget(messageId) {
    void this.#readings.forget(messageId);
  }

  /** Grows when something else may be found in the index. To be followed. */
  get indexed() {
    return this.#readings.indexed;
  }

  /**
   * Up to which change what was told of it has reached the index.
   * @param {string} conversationId
   */
  writtenUpTo(conversationId) {
    return this.#readings.writtenUpTo(conversationId);
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
    const { reply_to, files, recording } = await this.#kept(message);
    const sealed = await this.encrypt(message.conversation_id, {
      id: message.client_message_id,
      body: content,
      ...(reply_to ? { reply_to } : {}),
      ...(mentions.length ? { mentions } : {}),
      ...(files ? { files } : {}),
      ...(recording ? { recording } : {}),
    });
    const metadata = mentions.length ? { mentions } : null;
    return { type: "edit", message_id: message.message_id, content: sealed, is_encrypted: true, metadata };
  }

  /**
   * What an edit does not change. Rejects where that is not known: it would be lost.
   * @param {Message} message
   * @returns {Promise<{ reply_to?: string | null, files?: object[], recording?: object }>}
   */
  async #kept(message) {
    const { is_encrypted, reply_to, metadata } = message;
    if (!is_encrypted) return { reply_to, files: metadata?.files };
    const answer = await (await this.crypto()).decrypt(message);
    if ("payload" in answer) return answer.payload;
    throw Object.assign(new Error("it cannot be opened"), { code: "CANNOT_OPEN" });
  }

  /**
   * The `content` of a message or an edit; with its `is_encrypted: true`.
   * @param {string} conversationId
   * @param {Omit<Payload, "v">} payload
   * @returns {Promise<string>}
   */
  async encrypt(conversationId, payload) {
    await this.#learn(conversationId);
    const members = this.given.state.conversations.peek(conversationId)?.participants;
    // sealed for nobody else it would be lost
    if (!members) throw Object.assign(new Error("no such conversation"), { code: "NOT_FOUND" });
    const crypto = await this.crypto();
    const ids = members.map(({ user_id }) => user_id);
    return crypto.encrypt(conversationId, ids, payload);
  }

  /**
   * Who is in it now: whoever has come while there was no link must be able to read what is said next.
   * @param {string} conversationId
   */
  async #learn(conversationId) {
    const { state, learn } = this.given;
    const isKnown = Boolean(state.conversations.peek(conversationId)?.participants);
    if (isKnown && this.#learnt.has(conversationId)) return;
    try {
      await learn(conversationId);
      this.#learnt.add(conversationId);
    } catch (error) {
      // while its database is away the server takes messages, but tells nothing
      if (!isKnown || /** @type {{ status?: number }} */ (error).status !== 503) throw error;
    }
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
    this.flows.value = [...others, flow].slice(-MOST_FLOWS);
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
