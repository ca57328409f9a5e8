// Above a conversation: whom it is with, whether they are here, and what one can do with it as a whole.

import { app } from "../../app.js";
import { t } from "../../i18n/index.js";
import { avatar } from "../../parts/avatar.js";
import { effect } from "../../store/signal.js";
import { h, when } from "../../parts/dom.js";
import { icon } from "../../parts/icons.js";
import { presenceMark } from "../../parts/presence.js";
import { callButtons } from "../call/buttons.js";
import { seen } from "../seen.js";
import { pictureOf, titleOf } from "../titles.js";
import { typingIn } from "../typing.js";
import { typingText } from "./typing.js";

/** @typedef {import("../../store/types.js").Conversation} Conversation */

/** @param {string} id */
export function head(id) {
  const conversation = () => app.state.conversations.get(id);
  const other = () => {
    const held = conversation();
    return held?.type === "direct" ? app.state.otherOf(held) : null;
  };
  const isOpen = () => app.router.place.value.params.panel === "details";
  const details = () => (isOpen() ? `/c/${id}` : `/c/${id}/details`);
  effect(() => {
    const user = other()?.user_id;
    if (user && app.mine.socket.link.value === "online") void app.mine.presences.want(user);
  });
  return h(
    "header",
    { class: "conversation-head" },
    h("a", { class: "icon-button back", href: "/", "aria-label": t("chat.back") }, icon("back")),
    h(
      "a",
      { class: "head-link", href: details, tabindex: -1 },
      h(
        "span",
        { class: "list-picture" },
        avatar(() => pictureOf(conversation())),
        presenceMark(() => {
          const user = other()?.user_id;
          const status = user && app.state.presence.get(user)?.status;
          return status && status !== "offline" ? status : null;
        }),
      ),
      h(
        "div",
        { class: "head-text" },
        h("h2", { tabindex: -1, dir: "auto" }, () => titleOf(conversation())),
        h("small", null, () => about(conversation())),
      ),
      when(
        () => conversation()?.settings.is_e2ee_enabled,
        () => [icon("lock"), h("span", { class: "hidden" }, t("home.encrypted"))],
      ),
    ),
    callButtons(id),
    h(
      "a",
      { class: "icon-button head-search", href: `/search?in=${id}`, "aria-label": t("home.searchHere") },
      icon("search"),
    ),
    h(
      "a",
      {
        class: "icon-button",
        href: details,
        "aria-label": t("home.details"),
        "aria-current": () => isOpen() && "true",
      },
      icon("info"),
    ),
  );
}

/** @param {Conversation | undefined} conversation */
function about(conversation) {
  if (conversation === undefined) return "";
  const typing = typingIn(conversation.conversation_id);
  if (typing.length) return conversation.type === "direct" ? t("home.typing") : typingText(typing);
  if (conversation.type === "direct") {
    const other = app.state.otherOf(conversation);
    return other ? seen(other.user_id) : "";
  }
  const count = conversation.participants?.length;
  return count ? t("home.members", { count }) : "";
}
