// Who and what a call is with, as the page names them.

import { app } from "../../app.js";
import { t } from "../../i18n/index.js";
import { titleOf } from "../titles.js";

/** @param {string | null} userId null: oneself */
export function nameOf(userId) {
  if (userId === null) return app.state.me.value?.display_name ?? "";
  return app.state.nameOf(userId) || t("call.somebody");
}

/** For an avatar. @param {string} userId */
export function pictureOf(userId) {
  const user = app.state.people.get(userId);
  return { name: user?.display_name ?? "", id: userId, url: user?.avatar_url };
}

/** @param {string} conversationId */
export function placeOf(conversationId) {
  return titleOf(app.state.conversations.get(conversationId)) || t("call.somebody");
}

/** @param {string} conversationId */
export function isGroup(conversationId) {
  return app.state.conversations.get(conversationId)?.type === "group";
}

/** Whether one may end what others do in a group. @param {string} conversationId */
export function isModerator(conversationId) {
  const conversation = app.state.conversations.get(conversationId);
  return conversation?.type === "group" && conversation.my_role !== "member";
}
