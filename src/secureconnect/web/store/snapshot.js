// The conversations as they were last seen, so that the page is there at once and asks only for what it has missed.

const PAUSE_MS = 1_500; // between writes
const MESSAGES_KEPT = 40; // of each conversation
const CONVERSATIONS_WITH_MESSAGES = 200;
const SEALED = "sealed"; // the ids of conversations that are encrypted, among the facts
const MOST_SEALED = 20_000; // the oldest go

/**
 * @typedef {import("./state.js").State} State
 * @typedef {import("./disk.js").Disk} Disk
 * @typedef {import("./positions.js").Positions} Positions
 * @typedef {{ conversation: import("./types.js").Conversation, change: number, messages: import("./types.js").Message[] | null }} Row
 */

/**
 * @param {Disk} disk
 * @param {State} state
 * @param {Positions} positions
 * @returns {Promise<string[]>} conversations to be written down anew: of them something lies there that has disappeared
 */
export async function load(disk, state, positions) {
  const [rows, people, history, sealed] = await Promise.all([
    /** @type {Promise<Row[]>} */ (disk.all("conversations")),
    disk.all("people"),
    disk.get("facts", "history_id"),
    disk.get("facts", SEALED),
  ]);
  for (const id of sealed ?? []) state.sealed.add(id);
  if (!history) return [];
  positions.historyId = history;
  state.people.setAll(people.map((each) => [each.user_id, each]));
  state.conversations.setAll(rows.map(({ conversation }) => [conversation.conversation_id, conversation]));
  /** @type {string[]} */
  const shorter = [];
  for (const { conversation, change, messages } of rows) {
    positions.reset(conversation.conversation_id, change);
    if (messages?.length) {
      const hasOlder = (messages[0].seq ?? 0) > conversation.first_seq;
      const lasting = messages.filter(isLasting);
      if (lasting.length < messages.length) shorter.push(conversation.conversation_id);
      state.timeline(conversation.conversation_id).reset(lasting, { hasOlder, hasNewer: false });
    }
  }
  state.isSynced.value = true;
  return shorter;
}

/** Writes down what has changed, a moment later. */
export class Writer {
  /** @type {Set<string>} */
  #dirty = new Set();
  /** @type {number | null} */
  #timer = null;
  #sealed = 0; // how many are written down

  /**
   * @param {Disk} disk
   * @param {State} state
   * @param {Positions} positions
   * @param {(conversation: string) => number} writtenUpTo the change up to which what was told of it is written down
   *   elsewhere, too: what a later position is kept of is not told again.  Less than 0: not that it is gone either
   */
  constructor(disk, state, positions, writtenUpTo) {
    this.disk = disk;
    this.state = state;
    this.positions = positions;
    this.writtenUpTo = writtenUpTo;
  }

  /** @param {string} conversation in which something has changed */
  note(conversation) {
    this.#dirty.add(conversation);
    this.#timer ??= setTimeout(() => void this.flush(), PAUSE_MS);
  }

  async flush() {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    const dirty = [...this.#dirty];
    this.#dirty.clear();
    for (const id of dirty) if (this.#isBehind(id)) this.note(id); // its position goes on later
    const sealed = [...this.state.sealed].slice(-MOST_SEALED);
    const withMessages = new Set(this.state.order.peek().slice(0, CONVERSATIONS_WITH_MESSAGES));
    try {
      await this.disk.write(["conversations", "people", "facts"], ([conversations, people, facts]) => {
        for (const id of dirty) {
          const row = this.#row(id, withMessages.has(id));
          if (row === null) {
            if (!this.#isBehind(id)) conversations.delete(id);
            continue;
          }
          conversations.put(row, id);
          for (const { user_id } of row.conversation.participants ?? []) {
            const person = this.state.people.peek(user_id);
            if (person) people.put(person, user_id);
          }
        }
        facts.put(this.positions.historyId, "history_id");
        if (sealed.length !== this.#sealed) facts.put(sealed, SEALED);
      });
      this.#sealed = sealed.length;
    } catch {
      // a cache: without room, or signed out meanwhile, the next load reads from the server
    }
  }

  /** @param {string} id */
  #isBehind(id) {
    return this.writtenUpTo(id) < (this.positions.changes.get(id) ?? 0);
  }

  /**
   * @param {string} id
   * @param {boolean} withMessages
   * @returns {Row | null}
   */
  #row(id, withMessages) {
    const conversation = this.state.conversations.peek(id);
    const change = this.positions.changes.get(id);
    if (!conversation || change === undefined) return null;
    const timeline = this.state.timeline(id);
    const isWhole = withMessages && timeline.isLoaded.peek() && !timeline.hasNewer.peek();
    const { messages: _, ...kept } = conversation;
    if (kept.last_message && !isLasting(kept.last_message)) kept.last_message = null;
    return {
      conversation: kept,
      change: Math.min(change, this.writtenUpTo(id)),
      messages: isWhole ? timeline.messages.peek().slice(-MESSAGES_KEPT).filter(isLasting) : null,
    };
  }
}

/** @param {import("./types.js").Message} message one that has disappeared is neither read nor written any more */
function isLasting({ expires_at }) {
  return !expires_at || Date.parse(expires_at) > Date.now();
}
