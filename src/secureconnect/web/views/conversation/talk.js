// What the parts of one open conversation tell each other.

import { app } from "../../app.js";
import { signal } from "../../store/signal.js";

/**
 * @typedef {import("../../store/types.js").Message} Message
 * @typedef {import("../../store/types.js").Conversation} Conversation
 * @typedef {{ message: Message, pinned_by: string, pinned_at: string }} Pin
 */

export class Talk {
  /** the message one is answering, and the one one is editing */
  answering = signal(/** @type {Message | null} */ (null));
  editing = signal(/** @type {Message | null} */ (null));
  /** keys of rows: the one that keys act on, and the one somebody was brought to */
  active = signal("");
  found = signal("");

  pins = signal(/** @type {readonly Pin[]} */ ([]));
  /** messages that are quoted and not held, by id; null: not here yet */
  quoted = /** @type {Map<string, import("../../store/signal.js").Signal<Message | "gone" | null>>} */ (
    new Map()
  );

  /** @type {(messageId: string) => void} brings a message into the window; set by the timeline */
  jump = () => {};
  /** @type {() => void} set by the timeline */
  toEnd = () => {};
  /** @type {() => void} gives the focus to where one writes; set by the composer */
  write = () => {};

  /** @param {string} conversationId */
  constructor(conversationId) {
    this.id = conversationId;
    this.timeline = app.state.timeline(conversationId);
  }

  /** @returns {Conversation | undefined} */
  get conversation() {
    return app.state.conversations.get(this.id);
  }

  get isGroup() {
    return this.conversation?.type === "group";
  }

  /** @param {Message} message */
  answer(message) {
    this.editing.value = null;
    this.answering.value = message;
    this.write();
  }

  /** @param {Message} message */
  edit(message) {
    this.answering.value = null;
    this.editing.value = message;
    this.write();
  }
}

const ALWAYS = ["pin", "describe", "configure"];
const ADMINS = [...ALWAYS, "delete_others", "end_polls", "add", "remove_member"];

/**
 * Whether one's role allows it: the table of docs/conversations.md.
 * @param {Conversation | undefined} conversation
 * @param {string} action
 */
export function may(conversation, action) {
  if (conversation === undefined) return false;
  if (conversation.type === "direct") return ALWAYS.includes(action);
  if (conversation.my_role === "owner") return true;
  return conversation.my_role === "admin" && ADMINS.includes(action);
}
