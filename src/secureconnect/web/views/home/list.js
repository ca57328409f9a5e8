// The conversations, the latest active first.

import { app } from "../../app.js";
import { shortMoment, t } from "../../i18n/index.js";
import { avatar } from "../../parts/avatar.js";
import { each, h, Part, when } from "../../parts/dom.js";
import { icon } from "../../parts/icons.js";
import { excerptOf } from "../conversation/said.js";
import { pictureOf, titleOf } from "../titles.js";

/** @typedef {import("../../store/types.js").Conversation} Conversation */

export class ConversationList extends Part {
  build() {
    const { state } = app;
    return [
      h(
        "header",
        { class: "list-head" },
        h("h1", null, () => state.me.value?.display_name ?? ""),
        h(
          "a",
          { class: "icon-button", href: "/settings", "aria-label": t("chat.settings") },
          icon("settings"),
        ),
        h("a", { class: "icon-button", href: "/new", "aria-label": t("chat.new") }, icon("plus")),
      ),
      h(
        "ul",
        { class: "list" },
        each(
          () => state.order.value,
          (id) => id,
          (id) => row(/** @type {() => Conversation} */ (() => state.conversations.get(id()))),
        ),
      ),
      when(
        () => state.isSynced.value && state.order.value.length === 0,
        () => h("p", { class: "blank" }, t("chat.none")),
      ),
    ];
  }
}

/** @param {() => Conversation} conversation */
function row(conversation) {
  const id = conversation().conversation_id;
  const last = () => conversation()?.last_message;
  return h(
    "li",
    null,
    h(
      "a",
      {
        href: `/c/${id}`,
        class: "list-row",
        "aria-current": () => (app.router.place.value.params.conversation === id ? "page" : null),
      },
      avatar(() => pictureOf(conversation())),
      h("span", { class: "list-title" }, () => titleOf(conversation())),
      h("time", null, () => shortMoment(last()?.sent_at ?? conversation()?.created_at ?? 0)),
      h("span", { class: "list-last" }, () => excerptOf(last())),
      when(
        () => conversation()?.unread_count > 0,
        () =>
          h("span", { class: "badge" }, () => t("chat.unread", { count: conversation()?.unread_count ?? 0 })),
      ),
    ),
  );
}

customElements.define("sc-list", ConversationList);
