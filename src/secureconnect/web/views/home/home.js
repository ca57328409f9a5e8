// What one has when one is signed in: the conversations, and the one that is open; on a narrow screen one or the other.

import { app } from "../../app.js";
import { h, Part, part } from "../../parts/dom.js";
import { loadTexts, t } from "../../i18n/index.js";
import { lazy } from "../../parts/lazy.js";
import { sheet } from "../../parts/sheet.js";
import { ConversationView } from "../conversation/conversation.js";
import { Banner } from "./banner.js";
import { ConversationList } from "./list.js";
import { NewConversation } from "./new.js";

const enterAdmin = () => Promise.all([import("../admin/admin.js"), sheet("admin"), loadTexts("admin")]);

export class Home extends Part {
  build() {
    const { place } = app.router;
    return h(
      "div",
      { class: () => `home ${place.value.name === "home" ? "at-list" : "at-main"}` },
      new Banner(),
      h("nav", { class: "sidebar", "aria-label": t("chat.conversations") }, new ConversationList()),
      h("main", { class: "main" }, () => {
        const { name, params } = place.value;
        if (name === "conversation") return part(ConversationView, { conversationId: params.conversation });
        if (name === "new") return new NewConversation();
        if (name === "admin") return lazy(enterAdmin, ([{ Admin }]) => new Admin());
        return h("p", { class: "blank" }, t("chat.choose"));
      }),
    );
  }
}

customElements.define("sc-home", Home);
