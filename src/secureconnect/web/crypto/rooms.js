// What is said in conversations: sealed for the devices of their members by Megolm, and opened again.

import { Problem } from "./problem.js";

/**
 * @typedef {import("./machine.js").Machine} Machine
 * @typedef {import("./trust.js").Trust} Trust
 *
 * @typedef {object} Payload what a message says; docs/e2ee.md has all fields
 * @property {1} v
 * @property {string} id client_message_id: a message that is shown again under another one is refused
 * @property {string} [body]
 * @property {string} [reply_to]
 * @property {string[]} [mentions]
 * @property {object[]} [files]
 * @property {string} [kind]
 * @property {object} [recording] of a call, with its key
 *
 * @typedef {object} Sealed a message as the server gives it
 * @property {string} message_id
 * @property {string} conversation_id
 * @property {string} sender_id
 * @property {string} content
 * @property {string} sent_at
 * @property {string | null} [client_message_id]
 * @property {string | null} [edited_at]
 * @property {string | null} [expires_at] when it disappears
 *
 * @typedef {"verified" | "unverified" | "unknown" | "changed"} Trusted
 * @typedef {Trusted | "unsigned"} Believed unsigned: from a device that a person one has verified has not signed
 * @typedef {"waiting_for_key" | "withheld" | "before_you" | "broken" | "too_new"} Reason
 * @typedef {{payload: Payload, device: string?, trust: Believed, session: string}} Opened
 * @typedef {{reason: Reason, session: string?}} Unopened session: whose key would help
 */

const EVENT = "m.room.message";
const VERSION = 1;
const HOUR_US = 3_600_000_000n;
const ROTATION_MESSAGES = 100n;
const ROTATION_US = 24n * HOUR_US;
const MOST_BYTES = 65_536; // of an encrypted message, as the server takes it; the server has the last word
const MOST_ROOMS = 1_000; // remembered with their members; of others the library itself sees who has gone

export class Rooms {
  /** @type {Map<string, Promise<unknown>>} what is being sealed, by conversation */
  #turns = new Map();
  /** @type {Map<string, Set<string>>} for whom it was last sealed, by conversation */
  #members = new Map();
  /** @type {Set<string>} people who were asked for, because something came from a device that was not known */
  #strangers = new Set();

  /**
   * @param {Machine} machine
   * @param {Trust} trust
   */
  constructor(machine, trust) {
    this.machine = machine;
    this.trust = trust;
  }

  /**
   * @param {string} conversationId
   * @param {string[]} memberIds all of them, oneself too
   * @param {Payload} payload
   * @returns {Promise<string>} the `content` of the message.  Rejects with the refusal or what the network said where
   *   keys could not be fetched or sent: nothing is sealed then, and it may be asked again
   */
  encrypt(conversationId, memberIds, payload) {
    return this.#inTurn(conversationId, async () => {
      const users = [...new Set([...memberIds, this.machine.account.user])];
      await this.#share(conversationId, users);
      const text = JSON.stringify({ ...payload, v: VERSION });
      const sealed = await this.machine.run((olm) =>
        olm.encryptRoomEvent(this.machine.roomId(conversationId), EVENT, text),
      );
      if (sealed.length > MOST_BYTES) throw new Problem("MESSAGE_TOO_LONG", "This message is too long.");
      return sealed;
    });
  }

  /**
   * Everybody has the key of the session that is sealed with next. The library must not seal before that: it would
   * break.
   * @param {string} conversationId
   * @param {string[]} users
   */
  async #share(conversationId, users) {
    const { machine } = this;
    await machine.meet(users);
    await this.#requireReader(users);
    await this.trust.require(users);
    this.#remember(conversationId, users);
    const requests = await machine.run((olm, { EncryptionSettings }) => {
      const settings = new EncryptionSettings();
      settings.rotationPeriodMessages = ROTATION_MESSAGES;
      settings.rotationPeriod = ROTATION_US;
      return olm.shareRoomKey(
        machine.roomId(conversationId),
        users.map((user) => machine.userId(user)),
        settings,
      );
    });
    for (const request of requests) await machine.send(request);
    if (requests.length > 0) this.onNewSession();
  }

  /**
   * What is sealed while nobody else has a device with keys could never be read by them: it waits. Rejects with
   * NO_DEVICE, which passes.
   * @param {string[]} users
   */
  async #requireReader(users) {
    const { machine } = this;
    const others = users.filter((user) => user !== machine.account.user);
    for (const user of others) {
      if (await machine.withDevices(user, (devices) => devices.length > 0)) return;
    }
    if (others.length === 0) return;
    throw new Problem("NO_DEVICE", "Nobody else here has a device with keys yet.", { passes: true });
  }

  /** A session has begun, or was given to more devices. */
  onNewSession() {}

  /**
   * What is sealed next in this conversation is sealed with a new key.
   * @param {string} conversationId
   */
  renew(conversationId) {
    return this.#inTurn(conversationId, () =>
      this.machine.run((olm) => olm.invalidateGroupSession(this.machine.roomId(conversationId))),
    );
  }

  /**
   * The same wherever this person is.
   * @param {string} userId
   */
  async renewFor(userId) {
    const rooms = [...this.#members].filter(([, users]) => users.has(userId));
    await Promise.all(rooms.map(([conversationId]) => this.renew(conversationId)));
  }

  /**
   * @param {Sealed} message
   * @returns {Promise<Opened | Unopened>}
   */
  async decrypt(message) {
    const { machine } = this;
    const event = eventOf(message, machine.userName(message.sender_id));
    if (!event) return { reason: "broken", session: null };
    const session = event.content.session_id ?? null;
    try {
      const opened = await this.#open(event, message);
      const { type, content } = JSON.parse(opened.event);
      const reason = this.#refuse(message, type, content, opened.shieldState(false).code);
      if (reason) return { reason, session };
      const device = opened.senderDevice?.toString() ?? null;
      return {
        payload: content,
        device,
        trust: await this.trust.ofMessage(opened, message.sender_id),
        session,
      };
    } catch (error) {
      if (!(error instanceof machine.library.MegolmDecryptionError)) throw error;
      machine.pumpLater(); // the library asks one's other devices for the key
      return { reason: this.#why(message, error.code, error.withheldCode), session };
    }
  }

  /**
   * The first time that somebody's device is not known, they are asked for.
   * @param {object} event
   * @param {Sealed} message
   */
  async #open(event, { conversation_id, sender_id }) {
    const { machine } = this;
    const open = () =>
      machine.run((olm) =>
        olm.decryptRoomEvent(JSON.stringify(event), machine.roomId(conversation_id), machine.untrusting),
      );
    const opened = await open();
    const { UnknownDevice } = machine.library.ShieldStateCode;
    if (opened.shieldState(false).code !== UnknownDevice || this.#strangers.has(sender_id)) return opened;
    this.#strangers.add(sender_id);
    if (this.#strangers.size > MOST_ROOMS) this.#strangers.clear();
    machine.stale.add(sender_id);
    return machine.meet([sender_id]).then(open, () => opened); // without the server it is not known yet
  }

  /**
   * Why not to believe what could be opened.
   * @param {Sealed} message
   * @param {string} type
   * @param {Payload} payload
   * @param {number | undefined} code of the shield
   * @returns {Reason | null}
   */
  #refuse({ client_message_id }, type, payload, code) {
    const { ShieldStateCode } = this.machine.library;
    if (code === ShieldStateCode.MismatchedSender) return "broken"; // sealed by a device of somebody else
    if (type !== EVENT || typeof payload?.v !== "number") return "broken";
    if (payload.v > VERSION) return "too_new";
    return payload.id === client_message_id ? null : "broken";
  }

  /**
   * @param {Sealed} message
   * @param {number} code
   * @param {string | undefined} withheld
   * @returns {Reason}
   */
  #why({ sent_at }, code, withheld) {
    const { DecryptionErrorCode } = this.machine.library;
    if (withheld) return "withheld";
    if (code === DecryptionErrorCode.UnknownMessageIndex) return "before_you";
    if (code !== DecryptionErrorCode.MissingRoomKey) return "broken";
    const isOld = Date.parse(sent_at) < this.machine.olm.deviceCreationTimeMs;
    return isOld ? "before_you" : "waiting_for_key";
  }

  /**
   * @param {string} conversationId
   * @param {string[]} users
   */
  #remember(conversationId, users) {
    this.#members.delete(conversationId);
    this.#members.set(conversationId, new Set(users));
    if (this.#members.size > MOST_ROOMS) this.#members.delete([...this.#members.keys()][0]);
  }

  /**
   * One after another in a conversation: the library must not be asked twice at once for one session.
   * @template T
   * @param {string} conversationId
   * @param {() => Promise<T>} work
   * @returns {Promise<T>}
   */
  #inTurn(conversationId, work) {
    const before = this.#turns.get(conversationId) ?? Promise.resolve();
    const mine = before.catch(() => {}).then(work);
    this.#turns.set(conversationId, mine);
    const last = () => {
      if (this.#turns.get(conversationId) === mine) this.#turns.delete(conversationId);
    };
    mine.then(last, last);
    return mine;
  }
}

/**
 * The message as the library knows messages.
 * @param {Sealed} message
 * @param {string} sender
 */
function eventOf({ message_id, content, sent_at }, sender) {
  try {
    const sealed = JSON.parse(content);
    if (sealed === null || typeof sealed !== "object") return null;
    const origin_server_ts = Date.parse(sent_at) || 0;
    return {
      type: "m.room.encrypted",
      event_id: `$${message_id}`,
      sender,
      origin_server_ts,
      content: sealed,
    };
  } catch {
    return null;
  }
}
