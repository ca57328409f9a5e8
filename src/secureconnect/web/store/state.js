// Everything the page shows that the server has told: one state, which parts follow signal by signal.

import { computed, signal, Signal } from "./signal.js";
import { Timeline } from "./timeline.js";

/**
 * @typedef {import("./types.js").User} User
 * @typedef {import("./types.js").Person} Person
 * @typedef {import("./types.js").Conversation} Conversation
 * @typedef {import("./types.js").Presence} Presence
 * @typedef {import("./types.js").Poll} Poll
 */

const MOST_PEOPLE = 20_000;

/**
 * Things by their id, each of which can be followed alone.
 * @template T
 */
export class Table {
  /** @type {Map<string, Signal<T | undefined>>} */
  #rows = new Map();

  /**
   * @param {number} [most] beyond, the oldest are forgotten
   * @param {(value: T) => T} [mended] what is held in the place of what is given
   */
  constructor(most = Infinity, mended = (value) => value) {
    this.most = most;
    this.mended = mended;
    this.ids = signal(/** @type {readonly string[]} */ ([]));
  }

  /** @param {string} id */
  get(id) {
    return this.#row(id).value;
  }

  /** @param {string} id */
  peek(id) {
    return this.#rows.get(id)?.peek();
  }

  /**
   * @param {string} id
   * @param {T} value
   */
  set(id, value) {
    const row = this.#row(id);
    const isNew = row.peek() === undefined;
    row.value = this.mended(value);
    if (!isNew) return;
    const ids = [...this.ids.peek(), id];
    const forgotten = ids.splice(0, Math.max(0, ids.length - this.most));
    this.ids.value = ids;
    for (const each of forgotten) this.#drop(each);
  }

  /**
   * Many, told once.
   * @param {[string, T][]} rows
   */
  setAll(rows) {
    const isNew = new Set();
    for (const [id, value] of rows) {
      const row = this.#row(id);
      if (row.peek() === undefined) isNew.add(id);
      row.value = this.mended(value);
    }
    if (isNew.size) this.ids.value = [...this.ids.peek(), ...isNew];
  }

  /**
   * @param {string} id
   * @param {(value: T) => T} change
   */
  change(id, change) {
    const row = this.#rows.get(id);
    const value = row?.peek();
    if (row && value !== undefined) row.value = this.mended(change(value));
  }

  /** @param {string} id */
  delete(id) {
    if (this.peek(id) === undefined) return;
    this.#drop(id);
    this.ids.value = this.ids.peek().filter((each) => each !== id);
  }

  clear() {
    for (const id of this.ids.peek()) this.#drop(id);
    this.ids.value = [];
  }

  /** @param {string} id */
  #drop(id) {
    const row = this.#rows.get(id);
    if (row === undefined) return;
    row.value = undefined;
    if (row.readers.size === 0) this.#rows.delete(id); // whoever follows it hears of the next one
  }

  /** @param {string} id */
  #row(id) {
    let row = this.#rows.get(id);
    if (row === undefined) {
      row = new Signal(/** @type {T | undefined} */ (undefined));
      this.#rows.set(id, row);
    }
    return row;
  }
}

export class State {
  me = signal(/** @type {User | null} */ (null));
  server = signal(/** @type {import("./types.js").Server | null} */ (null));

  /** what the server does without: `{dependency: [what that affects]}`; empty: it is whole */
  degraded = signal(/** @type {Record<string, string[]>} */ ({}));

  /** @type {Table<User>} */
  people = new Table(MOST_PEOPLE);
  /** @type {Table<Presence>} */
  presence = new Table(MOST_PEOPLE);
  /** conversations that are encrypted: for good, whatever the server says later @type {Set<string>} */
  sealed = new Set();
  /** @type {Table<Conversation>} */
  conversations = new Table(Infinity, (conversation) => this.#stillSealed(conversation));
  /** who types, by conversation: `{user_id: until when, in ms}` @type {Table<Record<string, number>>} */
  typing = new Table();
  /** @type {Table<Poll>} */
  polls = new Table(2_000);

  /** whether all conversations are known, from disk or from the server */
  isSynced = signal(false);
  /** the conversation one looks at */
  current = signal(/** @type {string | null} */ (null));
  /** latest announcements of administrators, the newest first */
  announcements = signal(/** @type {readonly import("./types.js").Announcement[]} */ ([]));
  /** the latest, the newest first, and how many of all are unread */
  notifications = signal(/** @type {readonly import("./types.js").Notification[]} */ ([]));
  unreadNotifications = signal(0);

  /** @type {Map<string, Timeline>} */
  #timelines = new Map();

  /** ids, the latest active first */
  order = computed(() => {
    const all = this.conversations.ids.value.map(
      (id) => /** @type {Conversation} */ (this.conversations.get(id)),
    );
    return all
      .filter((each) => each !== undefined)
      .sort((one, other) => (activityOf(one) < activityOf(other) ? 1 : -1))
      .map((each) => each.conversation_id);
  });

  unread = computed(() => {
    let count = 0;
    for (const id of this.conversations.ids.value) {
      const each = this.conversations.get(id);
      if (each && !each.is_muted && each.unread_count > 0) count += 1;
    }
    return count;
  });

  /** @param {Conversation} conversation */
  #stillSealed(conversation) {
    const { conversation_id: id, settings } = conversation;
    if (settings?.is_e2ee_enabled) this.sealed.add(id);
    else if (this.sealed.has(id))
      return { ...conversation, settings: { ...settings, is_e2ee_enabled: true } };
    return conversation;
  }

  /** @param {string} conversationId */
  timeline(conversationId) {
    let found = this.#timelines.get(conversationId);
    if (found === undefined) {
      found = new Timeline(conversationId);
      this.#timelines.set(conversationId, found);
    }
    return found;
  }

  get timelines() {
    return this.#timelines.values();
  }

  /** @param {string} conversationId */
  forget(conversationId) {
    this.conversations.delete(conversationId);
    this.#timelines.delete(conversationId);
    this.typing.delete(conversationId);
  }

  /**
   * What is now known of people.
   * @param {readonly Person[]} people
   */
  meet(people) {
    this.people.setAll(
      people.map((each) => [each.user_id, { ...this.people.peek(each.user_id), ...personOf(each) }]),
    );
    for (const { user_id, status } of people) {
      const known = this.presence.peek(user_id);
      if (status && known?.status !== status) {
        this.presence.set(user_id, {
          last_seen: known?.last_seen ?? null,
          status: /** @type {any} */ (status),
        });
      }
    }
  }

  /** @param {string | null} userId */
  nameOf(userId) {
    return userId === null ? "" : (this.people.get(userId)?.display_name ?? "");
  }

  /**
   * The other of a direct conversation.
   * @param {Conversation} conversation
   */
  otherOf(conversation) {
    const mine = this.me.value?.user_id;
    return conversation.participants?.find((each) => each.user_id !== mine) ?? null;
  }

  clear() {
    this.me.value = null;
    this.conversations.clear();
    this.sealed.clear();
    this.people.clear();
    this.presence.clear();
    this.typing.clear();
    this.polls.clear();
    this.#timelines.clear();
    this.announcements.value = [];
    this.notifications.value = [];
    this.unreadNotifications.value = 0;
    this.isSynced.value = false;
    this.current.value = null;
  }
}

/** @param {Conversation} conversation */
function activityOf(conversation) {
  return conversation.last_message?.sent_at ?? conversation.created_at;
}

/** @param {Person} person without what is of an account or a membership */
function personOf({ user_id, username, display_name, avatar_url }) {
  return { user_id, username, display_name, avatar_url };
}
