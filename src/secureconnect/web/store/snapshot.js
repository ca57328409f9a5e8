// The conversations as they were last seen, so that the page is there at once and asks only for what it has missed.

const PAUSE_MS = 1_500; // between writes
const MESSAGES_KEPT = 40; // of each conversation
const CONVERSATIONS_WITH_MESSAGES = 200;

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
 */
export async function load(disk, state, positions) {
  const [rows, people, history] = await Promise.all([
    /** @type {Promise<Row[]>} */ (disk.all("conversations")),
    disk.all("people"),
    disk.get("facts", "history_id"),
  ]);
  if (!history) return;
  positions.historyId = history;
  state.people.setAll(people.map((each) => [each.user_id, each]));
  state.conversations.setAll(rows.map(({ conversation }) => [conversation.conversation_id, conversation]));
  for (const { conversation, change, messages } of rows) {
    positions.reset(conversation.conversation_id, change);
    if (messages?.length) {
      const hasOlder = (messages[0].seq ?? 0) > conversation.first_seq;
      state.timeline(conversation.conversation_id).reset(messages, { hasOlder, hasNewer: false });
    }
  }
  state.isSynced.value = true;
}

/** Writes down what has changed, a moment later. */
export class Writer {
  /** @type {Set<string>} */
  #dirty = new Set();
  /** @type {number | null} */
  #timer = null;

  /**
   * @param {Disk} disk
   * @param {State} state
   * @param {Positions} positions
   */
  constructor(disk, state, positions) {
    this.disk = disk;
    this.state = state;
    this.positions = positions;
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
    const withMessages = new Set(this.state.order.peek().slice(0, CONVERSATIONS_WITH_MESSAGES));
    try {
      await this.disk.write(["conversations", "people", "facts"], ([conversations, people, facts]) => {
        for (const id of dirty) {
          const row = this.#row(id, withMessages.has(id));
          if (row === null) {
            conversations.delete(id);
            continue;
          }
          conversations.put(row, id);
          for (const { user_id } of row.conversation.participants ?? []) {
            const person = this.state.people.peek(user_id);
            if (person) people.put(person, user_id);
          }
        }
        facts.put(this.positions.historyId, "history_id");
      });
    } catch {
      // a cache: without room, or signed out meanwhile, the next load reads from the server
    }
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
    return {
      conversation: kept,
      change,
      messages: isWhole ? timeline.messages.peek().slice(-MESSAGES_KEPT) : null,
    };
  }
}
