// One conversation in the list.

import { app } from "../../app.js";
import { shortMoment, t } from "../../i18n/index.js";
import { avatar } from "../../parts/avatar.js";
import { h, when } from "../../parts/dom.js";
import { icon } from "../../parts/icons.js";
import { presenceMark } from "../../parts/presence.js";
import { excerptOf } from "../conversation/said.js";
import { known } from "../people.js";
import { pictureOf, titleOf } from "../titles.js";
import { typingIn } from "../typing.js";

/** @typedef {import("../../store/types.js").Conversation} Conversation */

/** @param {string} id */
export function row(id) {
  const { state } = app;
  const conversation = () => state.conversations.get(id);
  const last = () => conversation()?.last_message;
  const presence = () => {
    const held = conversation();
    const other = held?.type === "direct" ? state.otherOf(held) : null;
    const status = other && state.presence.get(other.user_id)?.status;
    return status === "offline" ? null : status;
  };
  return h(
    "li",
    { class: "list-item" },
    h(
      "a",
      {
        href: `/c/${id}`,
        class: () => `list-row ${conversation()?.unread_count ? "has-unread" : ""}`,
        "aria-current": () => (app.router.place.value.params.conversation === id ? "page" : null),
      },
      h(
        "span",
        { class: "list-picture" },
        avatar(() => pictureOf(conversation())),
        presenceMark(presence),
      ),
      h(
        "span",
        { class: "list-title" },
        h("span", { class: "list-name", dir: "auto" }, () => titleOf(conversation())),
        mark("lock", () => conversation()?.settings.is_e2ee_enabled, "home.encrypted"),
        mark("muted", () => conversation()?.is_muted, "home.muted"),
      ),
      h("time", null, () => shortMoment(last()?.sent_at ?? conversation()?.created_at ?? 0)),
      h("span", { class: "list-last", dir: "auto" }, () => lastLine(conversation())),
      h(
        "span",
        { class: "list-badges" },
        when(
          () => conversation()?.unread_mentions,
          () =>
            h("span", { class: "badge mentioned" }, "@", h("span", { class: "hidden" }, t("home.mentioned"))),
        ),
        when(
          () => conversation()?.unread_count,
          () =>
            h("span", { class: () => (conversation()?.is_muted ? "badge muted" : "badge") }, () => badge(id)),
        ),
      ),
    ),
  );
}

/** @param {string} id */
function badge(id) {
  const count = app.state.conversations.get(id)?.unread_count ?? 0;
  return [
    h("span", { "aria-hidden": "true" }, count > 99 ? "99+" : count),
    h("span", { class: "hidden" }, t("chat.unread", { count })),
  ];
}

/**
 * @param {string} name of the icon
 * @param {() => any} isOn
 * @param {string} text
 */
function mark(name, isOn, text) {
  return when(isOn, () => [icon(name), h("span", { class: "hidden" }, t(text))]);
}

const MOST_OF_DRAFT = 200;

/** @param {Conversation | undefined} conversation */
function lastLine(conversation) {
  if (conversation === undefined) return "";
  const typing = typingIn(conversation.conversation_id);
  if (typing.length) {
    const text =
      conversation.type === "direct" ? t("home.typing") : t("home.typingIs", { name: known(typing[0]) });
    return h("em", { class: "typing" }, text);
  }
  const draft = app.mine.drafts.of(conversation.conversation_id);
  const isOpen = app.state.current.value === conversation.conversation_id;
  if (draft?.text.trim() && !isOpen)
    return [h("em", { class: "draft" }, t("home.draft")), " ", draft.text.slice(0, MOST_OF_DRAFT)];
  const message = conversation.last_message;
  if (!message) return "";
  const text = excerptOf(message);
  if (message.message_type === "system" || message.deleted_at) return text;
  if (message.sender_id === app.session.userId) return t("home.you", { text });
  return conversation.type === "group" ? t("home.said", { name: known(message.sender_id), text }) : text;
}
