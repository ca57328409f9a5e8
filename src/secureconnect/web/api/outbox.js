// One's own messages from the moment they are written until the server has stored or refused them. They are on the disk
// before they are sent, go out in order, conversation by conversation, and are sent again with the same
// `client_message_id` until there is an answer: the server stores each once, however often it comes.

import { signal } from "../store/signal.js";
import { exclusively, held, holdForLife } from "../store/locks.js";
import { newId } from "./ids.js";

/**
 * @typedef {import("../store/types.js").Draft} Draft
 * @typedef {import("../store/types.js").Outgoing} Outgoing
 * @typedef {import("../store/types.js").Event} Event
 */

const MOST_WAITING = 500;
const PAUSE_MS = 2_000; // before something the server was too busy for is tried again
const OTHER_TABS = "sc.outbox";

export class OutboxFull extends Error {
  constructor() {
    super("as many messages as may wait are waiting");
    this.code = "OUTBOX_FULL";
  }
}

export class Outbox {
  #tab = newId();
  /** @type {Set<string>} conversations of which a message is on its way */
  #busy = new Set();
  /** @type {Set<string>} accepted before the link was lost: sent again, for it may have been lost with its node */
  #again = new Set();
  #channel = new BroadcastChannel(OTHER_TABS);

  /**
   * @param {import("../store/disk.js").Disk} disk
   * @param {import("./socket.js").ChatSocket} socket
   * @param {(entry: Outgoing) => Promise<Event>} wrap makes the `chat` frame, encrypted where it has to be
   */
  constructor(disk, socket, wrap) {
    this.disk = disk;
    this.socket = socket;
    this.wrap = wrap;
    /** all that waits, in this tab and others, the oldest first */
    this.entries = signal(/** @type {readonly Outgoing[]} */ ([]));
    holdForLife(`sc.tab.${this.#tab}`);
    socket.on("resumed", () => this.#sendAgain());
    socket.on("resuming", () => this.#sendAgain());
    socket.on("stored", (event) => void this.#settle(event.client_message_id));
    socket.on("chat", (event) => event.seq && void this.#settle(event.client_message_id, event.sender_id));
    socket.on("rejected", (event) => void this.#fail(event.client_message_id, event.code));
    this.#channel.onmessage = () => void this.#reload();
  }

  /** What an earlier load of the page, or a tab that is gone, has left. */
  async open() {
    await this.#reload();
    await this.#adopt();
    this.#pump();
  }

  close() {
    this.#channel.close();
  }

  /** @param {string} conversationId */
  of(conversationId) {
    return this.entries.value.filter((each) => each.conversation_id === conversationId);
  }

  /**
   * Returns once it is kept; it is on its way then.
   * @param {Draft} draft
   * @returns {Promise<Outgoing>}
   */
  async add(draft) {
    if (this.entries.peek().length >= MOST_WAITING) throw new OutboxFull();
    const entry = /** @type {Outgoing} */ ({
      ...draft,
      client_message_id: newId(),
      queued_at: Date.now(),
      tab: this.#tab,
      state: "waiting",
    });
    this.entries.value = [...this.entries.peek(), entry]; // seen at once
    try {
      await this.#keep(entry);
    } catch (error) {
      this.entries.value = this.entries.peek().filter((each) => each !== entry);
      throw error;
    }
    this.#pump();
    return entry;
  }

  /** @param {string} id its client_message_id */
  async retry(id) {
    const entry = this.#find(id);
    if (entry?.state !== "failed") return;
    await this.#keep({ ...entry, state: "waiting", code: undefined, tab: this.#tab });
    this.#pump();
  }

  /** @param {string} id of one that failed */
  async discard(id) {
    await this.#settle(id);
  }

  /** @param {string} id */
  #find(id) {
    return this.entries.peek().find((each) => each.client_message_id === id);
  }

  /** @param {Outgoing} entry */
  async #keep(entry) {
    await this.disk.put("outbox", entry.client_message_id, entry);
    await this.#reload();
    this.#channel.postMessage("changed");
  }

  /**
   * The server has it, or nobody wants it any more.
   * @param {string} id
   * @param {string} [sender] of the message that was stored
   */
  async #settle(id, sender) {
    if (!this.#find(id) || (sender !== undefined && sender !== this.socket.session.userId)) return;
    this.entries.value = this.entries.peek().filter((each) => each.client_message_id !== id);
    await this.disk.delete("outbox", id);
    this.#channel.postMessage("changed");
    this.#pump();
  }

  /**
   * @param {string} id
   * @param {string} code
   */
  async #fail(id, code) {
    const entry = this.#find(id);
    if (entry) await this.#keep({ ...entry, state: "failed", code });
  }

  async #reload() {
    /** @type {Outgoing[]} */
    const kept = await this.disk.all("outbox");
    const fresh = this.entries
      .peek()
      .filter((each) => !kept.some((one) => one.client_message_id === each.client_message_id));
    const unsaved = fresh.filter((each) => each.tab === this.#tab && Date.now() - each.queued_at < PAUSE_MS);
    this.entries.value = [...kept, ...unsaved].sort((one, other) => one.queued_at - other.queued_at);
  }

  /** Take over what tabs have left that are gone. Without locks nobody knows; sending it twice stores it once. */
  async #adopt() {
    await exclusively("sc.adopt", async () => {
      const alive = await held();
      const left = this.entries
        .peek()
        .filter((each) => each.tab !== this.#tab && !alive?.has(`sc.tab.${each.tab}`));
      for (const entry of left)
        await this.disk.put("outbox", entry.client_message_id, { ...entry, tab: this.#tab });
    });
    await this.#reload();
  }

  /** The link is new. */
  #sendAgain() {
    this.#again = new Set(
      this.entries
        .peek()
        .filter((each) => each.state === "accepted")
        .map((each) => each.client_message_id),
    );
    void this.#adopt().then(() => this.#pump());
  }

  /** Send what may be sent now: of each conversation the oldest that waits. */
  #pump() {
    if (this.socket.link.peek() !== "online") return;
    const seen = new Set(this.#busy);
    for (const entry of this.entries.peek()) {
      if (seen.has(entry.conversation_id) || entry.tab !== this.#tab || !this.#isDue(entry)) continue;
      seen.add(entry.conversation_id);
      this.#busy.add(entry.conversation_id);
      void this.#send(entry);
    }
  }

  /** @param {Outgoing} entry */
  #isDue({ state, client_message_id }) {
    return state === "waiting" || (state === "accepted" && this.#again.has(client_message_id));
  }

  /** @param {Outgoing} entry */
  async #send(entry) {
    const id = entry.client_message_id;
    this.#again.delete(id);
    let isTooEarly = false;
    try {
      const ack = await this.socket.ask(await this.wrap(entry));
      if (ack.status === "stored") await this.#settle(id);
      else if (this.#find(id)) await this.#keep({ ...entry, state: "accepted" });
    } catch (error) {
      const { passes, code } = /** @type {{ passes?: boolean, code?: string }} */ (error);
      isTooEarly = passes === true;
      if (!isTooEarly) await this.#fail(id, code ?? "UNKNOWN");
      if (code === undefined) reportError(error);
    } finally {
      this.#busy.delete(entry.conversation_id);
    }
    if (isTooEarly) setTimeout(() => this.#pump(), PAUSE_MS);
    else this.#pump();
  }
}
