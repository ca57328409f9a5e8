// What a conversation is called, and its picture: its own, or those of the people in it.

import { app } from "../app.js";
import { t } from "../i18n/index.js";

/** @typedef {import("../store/types.js").Conversation} Conversation */

/** @param {Conversation | undefined} conversation */
export function titleOf(conversation) {
  if (conversation === undefined) return "";
  if (conversation.title) return conversation.title;
  const other = app.state.otherOf(conversation);
  if (conversation.type === "direct") return other ? app.state.nameOf(other.user_id) : t("chat.somebodyGone");
  return t("chat.group");
}

/** @param {Conversation | undefined} conversation */
export function pictureOf(conversation) {
  const other = conversation?.type === "direct" ? app.state.otherOf(conversation) : null;
  const url = conversation?.avatar_url ?? (other && app.state.people.get(other.user_id)?.avatar_url) ?? null;
  return { name: titleOf(conversation), id: other?.user_id ?? conversation?.conversation_id ?? "", url };
}
