// Reading from the server what events do not bring: the first sync, conversations that are new here, what lies behind a
// gap, and earlier or later messages.

import { batch } from "../store/signal.js";
import { Unreachable } from "./client.js";
import { conversationOf } from "../store/positions.js";
import { apply } from "../store/apply.js";

/**
 * @typedef {import("../store/types.js").Conversation} Conversation
 * @typedef {import("../store/types.js").Event} Event
 * @typedef {import("../store/types.js").Message} Message
 * @typedef {{ change: number, place: () => void }} Answer change: all that happened up to it is in the answer
 */

const PAGE = 100; // conversations
const MOST_CONVERSATIONS = 10_000;
const MESSAGES = 50; // read at a time
const MOST_TRIES = 3;
const PAUSE_MS = 5_000; // before what the server was too busy for is asked for again
const NEW_AT_ONCE = 5; // beyond so many new ones the whole list is read

export class Sync {
  /** @type {Map<string, Promise<void>>} */
  #reading = new Map();
  /** @type {Set<string>} conversations that must be read */
  #lacking = new Set();
  #retry = 0;
  /** @type {Map<string, Set<Event[]>>} what is told of conversations while their messages are being read */
  #meanwhile = new Map();

  /**
   * @param {import("./client.js").Client} client
   * @param {import("./socket.js").ChatSocket} socket
   * @param {import("../store/state.js").State} state
   * @param {(conversation: string) => void} changed told of each conversation in which something has changed
   */
  constructor(client, socket, state, changed) {
    this.client = client;
    this.socket = socket;
    this.state = state;
    this.changed = changed;
    socket.on("*", (event) => this.#hear(event));
  }

  /** @param {Event} event */
  #hear(event) {
    apply(this.state, event);
    const id = conversationOf(event);
    for (const heard of this.#meanwhile.get(id ?? "") ?? []) heard.push(event);
    const isUnknown = id !== null && event.change && this.state.conversations.peek(id) === undefined;
    if (event.type === "gap") this.#reread(event.conversation_id, event.change);
    else if (event.type === "resumed") this.#compare(event);
    else if (event.type === "recovered") void this.#catchUp();
    else if (event.type === "user_joined" && event.user.user_id === this.state.me.peek()?.user_id) {
      this.#reread(event.conversation_id, event.change);
    } else if (isUnknown && event.type !== "conversation_deleted" && event.type !== "user_left")
      this.#lack(id);
    if (id !== null) this.changed(id);
    for (const lost of event.lost ?? []) this.changed(lost);
  }

  /**
   * Read what is new here, and what is not as the server says.
   * @param {Event} event `resumed`
   */
  #compare(event) {
    for (const [id, head] of Object.entries(event.conversations)) {
      const held = this.state.conversations.peek(id);
      if (held === undefined || held.last_seq < head.seq) this.#lacking.add(id);
    }
    if (!event.more) void this.#catchUp();
  }

  /** @param {string} id of a conversation that must be read */
  #lack(id) {
    this.#lacking.add(id);
    void this.#catchUp();
  }

  /** Read what is lacking. What cannot be had now is asked for later, or when the server is whole or the link new. */
  async #catchUp() {
    clearTimeout(this.#retry);
    const lacking = [...this.#lacking];
    try {
      if (lacking.length <= NEW_AT_ONCE) await Promise.all(lacking.map((id) => this.#find(id)));
      else {
        await this.all();
        for (const id of lacking) this.#lacking.delete(id);
      }
      this.state.isSynced.value = true;
    } catch (error) {
      const { code, passes } = /** @type {{ code?: string, passes?: boolean }} */ (error);
      if (code === undefined) reportError(error);
      const isOnline = this.socket.link.peek() === "online";
      if (passes && isOnline) this.#retry = setTimeout(() => void this.#catchUp(), PAUSE_MS);
    }
  }

  /** @param {string} id of a conversation that is lacking; it may be gone */
  async #find(id) {
    try {
      await this.conversation(id);
    } catch (error) {
      if (/** @type {{ status?: number }} */ (error).status !== 404) throw error;
    }
    this.#lacking.delete(id);
  }

  /** All conversations, the latest active first, the top ones with their newest messages. */
  async all() {
    let cursor = null;
    let count = 0;
    do {
      const query = { limit: PAGE, cursor, first_sync: cursor === null ? 1 : null };
      const { conversations, next_cursor } = await this.client.ask("GET", "/v1/conversations", { query });
      const behind = batch(() => this.#keep(conversations));
      for (const id of behind) void this.conversation(id).catch(() => this.#lacking.add(id));
      this.state.isSynced.value = true;
      count += conversations.length;
      cursor = next_cursor;
    } while (cursor !== null && count < MOST_CONVERSATIONS);
  }

  /**
   * One conversation with its participants; asked for once, however many want it.
   * @param {string} id
   * @returns {Promise<void>}
   */
  conversation(id) {
    return this.#once(`conversation ${id}`, async () => {
      for (let tries = 0; tries < MOST_TRIES; tries += 1) {
        const conversation = await this.client.ask("GET", `/v1/conversations/${id}`);
        if (this.#keep([conversation]).length === 0) return;
      }
    });
  }

  /**
   * @param {Conversation[]} conversations
   * @returns {string[]} those of which the socket has told something while the answer was under way: it may not be in it
   */
  #keep(conversations) {
    const me = this.state.me.peek()?.user_id;
    /** @type {string[]} */
    const behind = [];
    const rows = conversations.map(({ messages, ...conversation }) => {
      const { conversation_id: id, participants } = conversation;
      if (participants) this.state.meet(participants);
      const held = this.state.conversations.peek(id);
      const mine = participants?.find((each) => each.user_id === me);
      // of what is known already the socket tells what is new, and this is not to keep it from being heard
      const position = this.socket.positions.changes.get(id);
      if (position === undefined) this.socket.positions.reset(id, conversation.change);
      const isOlder = position !== undefined && conversation.change < position;
      const timeline = this.state.timeline(id);
      if (messages && !isOlder && !timeline.isLoaded.peek()) {
        const hasOlder = (messages[0]?.seq ?? 0) > conversation.first_seq;
        timeline.reset(messages, { hasOlder, hasNewer: false });
      }
      const last_read_seq = mine?.last_read_seq ?? held?.last_read_seq;
      if (isOlder) behind.push(id);
      const row =
        isOlder && held
          ? { ...conversation, ...held, participants: participants ?? held.participants }
          : { ...held, ...conversation, last_read_seq };
      return /** @type {[string, Conversation]} */ ([id, row]);
    });
    this.state.conversations.setAll(rows);
    for (const [id] of rows) this.changed(id);
    return behind;
  }

  /**
   * Nothing that is held of it is good any more. Whoever looks at it reads its messages.
   * @param {string} id
   * @param {number} change live goes on from here
   */
  #reread(id, change) {
    this.state.timeline(id).clear();
    this.socket.positions.reset(id, change);
    this.#lack(id);
  }

  /**
   * The newest messages of a conversation, in the place of what is held.
   * @param {string} id
   */
  newest(id) {
    return this.#reads("newest", id, async () => {
      const { messages, change } = await this.#messages(id, {});
      const beyond = { hasOlder: messages.length === MESSAGES, hasNewer: false };
      return { change, place: () => this.state.timeline(id).reset(messages, beyond) };
    });
  }

  /**
   * Those before the first that is held.
   * @param {string} id
   */
  older(id) {
    return this.#reads("older", id, async (timeline) => {
      const first = timeline.messages.peek()[0]?.seq;
      if (!first) return null;
      const { messages, change } = await this.#messages(id, { before_seq: first });
      const place = () => {
        if (timeline.messages.peek()[0]?.seq === first)
          timeline.prepend(messages, messages.length === MESSAGES);
      };
      return { change, place };
    });
  }

  /**
   * Those after the last that is held.
   * @param {string} id
   */
  newer(id) {
    return this.#reads("newer", id, async (timeline) => {
      const last = timeline.messages.peek().at(-1)?.seq;
      if (!last) return null;
      const { messages, change } = await this.#messages(id, { after_seq: last });
      const place = () => {
        if (timeline.messages.peek().at(-1)?.seq === last)
          timeline.append(messages, messages.length === MESSAGES);
      };
      return { change, place };
    });
  }

  /**
   * Those around a place, in the place of what is held.
   * @param {string} id
   * @param {number} seq
   */
  around(id, seq) {
    return this.#reads("around", id, async () => {
      const [before, after] = await Promise.all([
        this.#messages(id, { before_seq: seq }),
        this.#messages(id, { after_seq: seq - 1 }),
      ]);
      const beyond = {
        hasOlder: before.messages.length === MESSAGES,
        hasNewer: after.messages.length === MESSAGES,
      };
      const messages = [...before.messages, ...after.messages];
      const place = () => this.state.timeline(id).reset(messages, beyond);
      return { change: Math.min(before.change, after.change), place };
    });
  }

  /**
   * What is told while an answer is under way may not be in it, and is applied again on top of it. After a gap an answer
   * from before is worth nothing.
   * @param {string} name
   * @param {string} id
   * @param {(timeline: import("../store/timeline.js").Timeline) => Promise<Answer | null>} read null: there is nothing
   * @returns {Promise<void>}
   */
  #reads(name, id, read) {
    return this.#once(`${name} ${id}`, async () => {
      for (let tries = 0; tries < MOST_TRIES; tries += 1) {
        const [heard, end] = this.#listen(id);
        const answer = await read(this.state.timeline(id)).finally(end);
        if (answer === null) return;
        const later = heard.filter((event) => event.change > answer.change);
        if (later.some(({ type }) => type === "gap")) continue;
        batch(() => {
          answer.place();
          for (const event of later) apply(this.state, event);
        });
        this.changed(id);
        return;
      }
      throw new Unreachable();
    });
  }

  /**
   * @param {string} id
   * @returns {[Event[], () => void]} what is told of it until the end
   */
  #listen(id) {
    /** @type {Event[]} */
    const heard = [];
    const all = this.#meanwhile.get(id) ?? new Set();
    this.#meanwhile.set(id, all.add(heard));
    const end = () => {
      all.delete(heard);
      if (all.size === 0) this.#meanwhile.delete(id);
    };
    return [heard, end];
  }

  /**
   * @param {string} id
   * @param {Record<string, number>} where
   * @returns {Promise<{ messages: Message[], change: number }>}
   */
  #messages(id, where) {
    return this.client.ask("GET", "/v1/messages", {
      query: { conversation_id: id, limit: MESSAGES, ...where },
    });
  }

  /**
   * @param {string} name
   * @param {() => Promise<void>} work
   * @returns {Promise<void>}
   */
  #once(name, work) {
    let running = this.#reading.get(name);
    if (running === undefined) {
      running = work().finally(() => this.#reading.delete(name));
      this.#reading.set(name, running);
    }
    return running;
  }
}
