// With whom one cannot speak: whom one has blocked oneself, and which direct conversations have taken nothing lately.
// That somebody else has blocked one is told to nobody: what is refused is all there is to go by.

import { effect, signal } from "../store/signal.js";

const PAGE = 100;
const MOST_PAGES = 20;
const MOST_REFUSED = 200;
const REFUSED = "refused"; // where that is kept

export class Blocks {
  /** ids of people */
  ids = signal(/** @type {ReadonlySet<string>} */ (new Set()));
  /** ids of direct conversations */
  #refused = signal(/** @type {readonly string[]} */ ([]));
  #isRead = false;
  #end = () => {};

  /**
   * @param {import("./client.js").Client} client
   * @param {import("./socket.js").ChatSocket} socket
   * @param {import("./outbox.js").Outbox} outbox
   * @param {import("../store/state.js").State} state
   * @param {import("../store/disk.js").Disk} disk
   */
  constructor(client, socket, outbox, state, disk) {
    this.client = client;
    this.outbox = outbox;
    this.disk = disk;
    void disk.get("facts", REFUSED).then((kept) => kept && (this.#refused.value = kept));
    socket.on("hello", () => (this.#isRead = false)); // another device may have blocked somebody
    socket.on("chat", ({ conversation_id, seq }) => seq && this.#took(conversation_id));
    socket.on("stored", ({ conversation_id }) => this.#took(conversation_id));
    this.#end = effect(() => {
      const isDirect = (/** @type {string} */ id) => state.conversations.peek(id)?.type === "direct";
      for (const { state: how, code, conversation_id: id } of outbox.entries.value)
        if (how === "failed" && code === "FORBIDDEN" && isDirect(id)) this.#refuse(id);
    });
  }

  close() {
    this.#end();
  }

  /** Know whom one has blocked; asked once for each link. */
  async want() {
    if (this.#isRead) return;
    this.#isRead = true;
    try {
      await this.read();
    } catch {
      this.#isRead = false; // with the next conversation that is opened
    }
  }

  async read() {
    /** @type {string[]} */
    const ids = [];
    let cursor = null;
    for (let page = 0; page < MOST_PAGES && (page === 0 || cursor !== null); page++) {
      const query = { limit: PAGE, cursor };
      const { users, next_cursor } = await this.client.ask("GET", "/v1/users/me/blocked", { query });
      ids.push(...users.map((/** @type {{ user_id: string }} */ each) => each.user_id));
      cursor = next_cursor;
    }
    this.ids.value = new Set(ids);
  }

  /** @param {string} userId */
  async block(userId) {
    await this.client.ask("POST", `/v1/users/${userId}/block`);
    this.ids.value = new Set([...this.ids.peek(), userId]);
  }

  /** @param {string} userId */
  async unblock(userId) {
    await this.client.ask("DELETE", `/v1/users/${userId}/block`);
    this.ids.value = new Set([...this.ids.peek()].filter((each) => each !== userId));
  }

  /**
   * Whether the server has taken nothing in this direct conversation when one last tried; followed.
   * @param {string} conversationId
   */
  isRefused(conversationId) {
    return this.#refused.value.includes(conversationId);
  }

  /**
   * Try once more: what was refused there, or whatever is written next.
   * @param {string} conversationId
   */
  async tryAgain(conversationId) {
    this.#took(conversationId);
    const failed = this.outbox.entries.peek().filter((each) => each.conversation_id === conversationId);
    for (const { client_message_id } of failed) await this.outbox.retry(client_message_id);
  }

  /** @param {string} id */
  #refuse(id) {
    if (!this.#refused.peek().includes(id)) this.#keep([...this.#refused.peek(), id].slice(-MOST_REFUSED));
  }

  /** @param {string} id of a conversation in which something was said */
  #took(id) {
    if (this.#refused.peek().includes(id)) this.#keep(this.#refused.peek().filter((each) => each !== id));
  }

  /** @param {readonly string[]} refused */
  #keep(refused) {
    this.#refused.value = refused;
    void this.disk.put("facts", REFUSED, refused).catch(() => {}); // signed out meanwhile
  }
}
