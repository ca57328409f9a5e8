// Who is here: oneself, as one wants to be seen, and the others.

import { signal } from "../store/signal.js";

/** @typedef {"online" | "away" | "busy" | "offline"} Status */

const IDLE_MS = 600_000; // without a key, a touch or a move of the mouse: away
const LOOK_MS = 15_000;
const PAGE = 100;
const MOST_PAGES = 50;
const SIGNS = ["keydown", "pointerdown", "pointermove", "wheel", "touchstart"];
const KEPT = "presence";

export class Presences {
  /** as one wants to be seen; `online` gives way to `away` while nobody touches the machine */
  chosen = signal(/** @type {Status} */ ("online"));
  #lastSignMs = Date.now();
  #isIdle = signal(false);
  #timer = 0;
  /** @type {Set<string>} */
  #asked = new Set();

  /**
   * @param {import("./client.js").Client} client
   * @param {import("./socket.js").ChatSocket} socket
   * @param {import("../store/state.js").State} state
   * @param {import("../store/disk.js").Disk} disk
   */
  constructor(client, socket, state, disk) {
    this.client = client;
    this.socket = socket;
    this.state = state;
    this.disk = disk;
    void disk.get("facts", KEPT).then((kept) => kept && this.choose(kept));
    socket.on("resumed", (event) => event.more || this.#linked());
    socket.on("resuming", () => this.#say());
    for (const sign of SIGNS) addEventListener(sign, this.#live, { passive: true, capture: true });
    document.addEventListener("visibilitychange", this.#live);
    this.#timer = setInterval(() => this.#look(), LOOK_MS);
  }

  close() {
    clearInterval(this.#timer);
    for (const sign of SIGNS) removeEventListener(sign, this.#live, { capture: true });
    document.removeEventListener("visibilitychange", this.#live);
  }

  /** How others see one. */
  get shown() {
    return this.chosen.value === "online" && this.#isIdle.value ? "away" : this.chosen.value;
  }

  /** @param {Status} status */
  choose(status) {
    this.chosen.value = status;
    void this.disk.put("facts", KEPT, status).catch(() => {});
    this.#say();
  }

  /**
   * Have the presence of somebody who may be away, with when they were last seen. Asked for once until the link is new.
   * @param {string} userId
   */
  async want(userId) {
    if (this.#asked.has(userId)) return;
    this.#asked.add(userId);
    try {
      const query = { user_ids: userId };
      const { presence } = await this.client.ask("GET", "/v1/presence", { query });
      for (const { user_id, status, last_seen } of presence)
        this.state.presence.set(user_id, { status, last_seen });
    } catch {
      this.#asked.delete(userId);
    }
  }

  #live = () => {
    if (document.visibilityState !== "visible") return;
    this.#lastSignMs = Date.now();
    if (this.#isIdle.peek()) this.#look();
  };

  #look() {
    const isIdle = Date.now() - this.#lastSignMs > IDLE_MS;
    if (isIdle === this.#isIdle.peek()) return;
    this.#isIdle.value = isIdle;
    this.#say();
  }

  /** Of this socket: the server takes a new one for online. */
  #say() {
    this.socket.say({ type: "presence", status: this.shown });
  }

  #linked() {
    this.#asked.clear();
    if (this.shown !== "online") this.#say();
    void this.#read();
  }

  /** All who are here; whoever is not named is not. */
  async #read() {
    const here = new Set();
    let cursor = null;
    try {
      for (let page = 0; page < MOST_PAGES && (page === 0 || cursor !== null); page += 1) {
        const query = { limit: PAGE, cursor };
        const answer = await this.client.ask("GET", "/v1/presence", { query });
        for (const { user_id, status, last_seen } of answer.presence) {
          here.add(user_id);
          this.state.presence.set(user_id, { status, last_seen });
        }
        cursor = answer.next_cursor;
      }
    } catch {
      return; // a hint: what the socket tells goes on
    }
    if (cursor !== null) return;
    for (const id of this.state.presence.ids.peek()) {
      if (!here.has(id)) this.state.presence.change(id, (held) => ({ ...held, status: "offline" }));
    }
  }
}
