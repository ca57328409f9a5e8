// All about one conversation beside what is said in it: its people, what one is told of it, its settings, pins and files.

import { app } from "../../../app.js";
import { t } from "../../../i18n/index.js";
import { avatar } from "../../../parts/avatar.js";
import { h, Part, part, when } from "../../../parts/dom.js";
import { icon } from "../../../parts/icons.js";
import { Recordings } from "../../call/recordings.js";
import { showKeys } from "../../encryption/door.js";
import { seen } from "../../seen.js";
import { pictureOf, titleOf } from "../../titles.js";
import { describe } from "./describe.js";
import { endings } from "./endings.js";
import { FileList } from "./files.js";
import { members } from "./members.js";
import { Notify } from "./notify.js";
import { Pins } from "./pins.js";
import { may } from "../talk.js";
import { settings } from "./settings.js";

/** @typedef {import("../../../store/types.js").Conversation} Conversation */

export class Details extends Part {
  conversationId = "";

  build() {
    const id = this.conversationId;
    const now = () => app.state.conversations.get(id);
    return when(now, () => {
      let last = /** @type {Conversation} */ (now());
      return this.content(() => (last = now() ?? last)); // what is left goes away a moment after it is gone
    });
  }

  /** @param {() => Conversation} conversation */
  content(conversation) {
    const id = this.conversationId;
    const isGroup = conversation().type === "group";
    return h(
      "aside",
      { class: "details", "aria-label": t("details.title") },
      h(
        "header",
        { class: "details-head" },
        h("h2", { tabindex: -1 }, t("details.title")),
        h("a", { class: "icon-button", href: `/c/${id}`, "aria-label": t("details.close") }, icon("close")),
      ),
      h(
        "div",
        { class: "details-hero" },
        avatar(() => pictureOf(conversation())),
        h("h3", { dir: "auto" }, () => titleOf(conversation())),
        h("p", null, () => about(conversation())),
        when(
          () => isGroup && may(conversation(), "describe"),
          () => h("button", { onclick: () => describe(conversation()) }, icon("edit"), t("details.describe")),
        ),
      ),
      isGroup ? members(conversation) : keysOf(conversation),
      part(Notify, { conversationId: id }),
      settings(conversation),
      part(Pins, { conversationId: id }),
      part(FileList, { conversationId: id }),
      part(Recordings, { conversationId: id }),
      endings(conversation),
    );
  }
}

/** @param {() => Conversation} conversation a direct one */
function keysOf(conversation) {
  const userId = () => app.state.otherOf(conversation())?.user_id ?? "";
  return when(
    () => conversation().settings.is_e2ee_enabled,
    () => h("button", { onclick: () => void showKeys(userId()) }, icon("shield"), t("details.keys")),
  );
}

/** @param {Conversation} conversation */
function about(conversation) {
  if (conversation.type === "group") {
    return t("details.members", { count: conversation.participants?.length ?? 0 });
  }
  const other = app.state.otherOf(conversation);
  return other ? `@${app.state.people.get(other.user_id)?.username ?? ""} · ${seen(other.user_id)}` : "";
}

customElements.define("sc-details", Details);
