// What an event of the chat socket changes in the state. Nothing here asks the server: `api/sync.js` does that, for the
// events after which something must be read.

import { batch } from "./signal.js";

/**
 * @typedef {import("./types.js").Event} Event
 * @typedef {import("./types.js").Message} Message
 * @typedef {import("./types.js").Conversation} Conversation
 * @typedef {import("./state.js").State} State
 */

const TYPING_MS = 6_000; // as long as one `typing` is good for
const MOST_ANNOUNCEMENTS = 20;
const MOST_NOTIFICATIONS = 200;

/** @type {Record<string, (state: State, event: Event) => void>} */
const CHANGES = {
  chat(state, event) {
    const message = messageOf(event);
    state.timeline(event.conversation_id).put(message);
    state.typing.change(event.conversation_id, ({ [event.sender_id]: _, ...others }) => others);
    if (message.seq === null) return;
    state.conversations.change(event.conversation_id, (held) =>
      withMessage(held, message, state.me.peek()?.user_id),
    );
  },

  message_edited(state, event) {
    const message = messageOf(event);
    state.timeline(event.conversation_id).put(message);
    changeLast(state, event, () => message);
  },

  message_deleted(state, event) {
    const clear = (/** @type {Message} */ held) => ({
      ...held,
      content: "",
      metadata: null,
      file_ids: [],
      reactions: [],
      deleted_at: event.deleted_at ?? new Date().toISOString(),
    });
    state.timeline(event.conversation_id).change(event.message_id, clear);
    changeLast(state, event, clear);
  },

  message_withdrawn(state, event) {
    state.timeline(event.conversation_id).withdraw((each) => each.message_id === event.message_id);
  },

  reaction(state, { conversation_id, message_id, emoji, user_id, on, count }) {
    const isMine = user_id === state.me.peek()?.user_id;
    state.timeline(conversation_id).change(message_id, (held) => {
      const known = held.reactions.find((each) => each.emoji === emoji);
      const changed = { emoji, count, mine: isMine ? on : (known?.mine ?? false) };
      const others = held.reactions.filter((each) => each.emoji !== emoji);
      if (count === 0) return { ...held, reactions: others };
      return {
        ...held,
        reactions: known
          ? held.reactions.map((each) => (each === known ? changed : each))
          : [...others, changed],
      };
    });
  },

  user_joined(state, { conversation_id, user }) {
    state.meet([user]);
    state.conversations.change(conversation_id, (held) => {
      if (!held.participants) return held;
      const others = held.participants.filter((each) => each.user_id !== user.user_id);
      const joined = { role: "member", joined_at: new Date().toISOString(), last_read_seq: 0, ...user };
      return { ...held, participants: [...others, joined] };
    });
  },

  user_left(state, { conversation_id, user }) {
    if (user.user_id === state.me.peek()?.user_id) state.forget(conversation_id);
    else {
      state.conversations.change(conversation_id, (held) => ({
        ...held,
        participants: held.participants?.filter((each) => each.user_id !== user.user_id),
      }));
    }
  },

  member_updated(state, { conversation_id, user_id, role }) {
    const isMine = user_id === state.me.peek()?.user_id;
    state.conversations.change(conversation_id, (held) => ({
      ...held,
      my_role: isMine ? role : held.my_role,
      participants: held.participants?.map((each) => (each.user_id === user_id ? { ...each, role } : each)),
    }));
  },

  conversation_updated(state, { conversation }) {
    state.conversations.change(conversation.conversation_id, (held) => ({ ...held, ...conversation }));
  },

  conversation_deleted(state, { conversation_id }) {
    state.forget(conversation_id);
  },

  muted(state, { conversation_id, is_muted, muted_until }) {
    state.conversations.change(conversation_id, (held) => ({ ...held, is_muted, muted_until }));
  },

  read(state, { conversation_id, user_id, seq }) {
    const isMine = user_id === state.me.peek()?.user_id;
    state.conversations.change(conversation_id, (held) => {
      const participants = held.participants?.map((each) =>
        each.user_id === user_id ? { ...each, last_read_seq: Math.max(each.last_read_seq, seq) } : each,
      );
      if (!isMine) return { ...held, participants };
      return { ...readUpTo(held, seq, unreadAfter(state, held, seq)), participants };
    });
  },

  typing(state, { conversation_id, user_id, is_typing }) {
    if (user_id === state.me.peek()?.user_id) return;
    const { [user_id]: _, ...others } = state.typing.peek(conversation_id) ?? {};
    state.typing.set(conversation_id, is_typing ? { ...others, [user_id]: Date.now() + TYPING_MS } : others);
  },

  presence(state, { user_id, status, last_seen }) {
    state.presence.set(user_id, { status, last_seen });
  },

  poll_created: keepPoll,
  poll_voted: keepPoll,
  poll_closed: keepPoll,

  poll_deleted(state, { poll_id }) {
    state.polls.delete(poll_id);
  },

  degraded(state, { dependencies }) {
    state.degraded.value = dependencies;
  },

  recovered(state) {
    state.degraded.value = {};
  },

  hello(state) {
    state.degraded.value = {}; // told again, right after, of what is away
    for (const timeline of state.timelines)
      timeline.withdraw((each) => each.sender_id !== state.me.peek()?.user_id);
  },

  announcement(state, { announcement_id, text, created_at, until }) {
    const others = state.announcements.peek().filter((each) => each.announcement_id !== announcement_id);
    state.announcements.value = [{ announcement_id, text, created_at, until }, ...others].slice(
      0,
      MOST_ANNOUNCEMENTS,
    );
  },

  notification(state, { type: _, ...event }) {
    const notification = /** @type {import("./types.js").Notification} */ (/** @type {unknown} */ (event));
    const { notification_id: id, read_at } = notification;
    const held = state.notifications.peek();
    const known = held.find((each) => each.notification_id === id);
    const wasUnread = known !== undefined && known.read_at === null;
    state.unreadNotifications.value = Math.max(
      0,
      state.unreadNotifications.peek() + (read_at === null ? 1 : 0) - (wasUnread ? 1 : 0),
    );
    const next = known ? held.map((each) => (each === known ? notification : each)) : [notification, ...held];
    state.notifications.value = next.slice(0, MOST_NOTIFICATIONS);
  },

  resumed(state, { conversations, lost }) {
    for (const [id, head] of Object.entries(conversations)) {
      state.conversations.change(id, (held) => ({
        ...held,
        last_read_seq: head.last_read_seq,
        unread_count: head.unread_count,
        unread_mentions: head.unread_mentions ?? 0,
        is_muted: head.is_muted ?? false,
        muted_until: head.muted_until ?? null,
      }));
    }
    for (const id of lost) state.forget(id);
  },
};

/**
 * @param {State} state
 * @param {Event} event
 */
export function apply(state, event) {
  const change = CHANGES[event.type];
  if (change) batch(() => change(state, event));
}

/**
 * @param {Event} event
 * @returns {Message}
 */
function messageOf({ type: _, ...message }) {
  return /** @type {Message} */ (/** @type {unknown} */ ({ reactions: [], ...message }));
}

/**
 * @param {State} state
 * @param {Event} event
 * @param {(held: Message) => Message} change
 */
function changeLast(state, event, change) {
  state.conversations.change(event.conversation_id, (held) => {
    const last = held.last_message;
    return last && last.message_id === event.message_id ? { ...held, last_message: change(last) } : held;
  });
}

/**
 * @param {Conversation} held
 * @param {Message} message
 * @param {string | undefined} me
 */
function withMessage(held, message, me) {
  const seq = /** @type {number} */ (message.seq);
  if (seq <= held.last_seq && held.last_message) return held;
  const isOwn = message.sender_id === me;
  const counts =
    !isOwn && message.message_type !== "system" && !message.deleted_at && seq > (held.last_read_seq ?? 0);
  const mentions = counts && me !== undefined && message.metadata?.mentions?.includes(me);
  return {
    ...held,
    last_seq: seq,
    last_message: message,
    updated_at: message.sent_at,
    unread_count: held.unread_count + (counts ? 1 : 0),
    unread_mentions: (held.unread_mentions ?? 0) + (mentions ? 1 : 0),
  };
}

/**
 * Messages behind a place that count as unread; null: not all of them are held.
 * @param {State} state
 * @param {Conversation} conversation
 * @param {number} seq
 * @returns {readonly Message[] | null}
 */
function unreadAfter(state, { conversation_id, last_seq }, seq) {
  if (seq >= last_seq) return [];
  const timeline = state.timeline(conversation_id);
  const held = timeline.messages.peek();
  if (timeline.hasNewer.peek() || (held[0]?.seq ?? Infinity) > seq + 1) return null;
  const me = state.me.peek()?.user_id;
  return held.filter(
    (each) =>
      (each.seq ?? 0) > seq &&
      each.sender_id !== me &&
      each.message_type !== "system" &&
      each.deleted_at === null,
  );
}

/**
 * @param {Conversation} held
 * @param {number} seq
 * @param {readonly Message[] | null} left unread behind it; null: not known, so the count stays
 * @returns {Conversation}
 */
function readUpTo(held, seq, left) {
  if (seq <= (held.last_read_seq ?? 0)) return held;
  const read = { ...held, last_read_seq: seq };
  if (left === null) return read;
  return { ...read, unread_count: left.length, unread_mentions: left.length ? held.unread_mentions : 0 };
}

/**
 * @param {State} state
 * @param {Event} event
 */
function keepPoll(state, { poll }) {
  const mine = state.polls.peek(poll.poll_id)?.my_option_ids;
  state.polls.set(poll.poll_id, { ...(mine ? { my_option_ids: mine } : {}), ...poll });
}
