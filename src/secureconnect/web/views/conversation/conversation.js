// One conversation: who it is with, what was said, and where one says something.

import { app } from "../../app.js";
import { refused, t } from "../../i18n/index.js";
import { avatar } from "../../parts/avatar.js";
import { h, Part, part } from "../../parts/dom.js";
import { icon } from "../../parts/icons.js";
import { onEnd, signal } from "../../store/signal.js";
import { callButtons } from "../call/buttons.js";
import { pictureOf, titleOf } from "../titles.js";
import { Choice } from "../files/choice.js";
import { dropping } from "../files/tray.js";
import { Composer } from "./composer.js";
import { Talk } from "./talk.js";
import { TimelineView } from "./timeline.js";

export class ConversationView extends Part {
  conversationId = "";
  error = signal("");

  build() {
    const id = this.conversationId;
    const { state } = app;
    const { sync } = app.mine;
    const conversation = () => state.conversations.get(id);
    const talk = new Talk(id);
    state.current.value = id;
    onEnd(() => {
      if (state.current.peek() === id) state.current.value = null;
      state.timeline(id).trim();
    });
    void this.#read(() => sync.conversation(id));
    const choice = new Choice(id);
    onEnd(() => choice.clear());
    const section = h(
      "section",
      { class: "conversation" },
      h(
        "header",
        { class: "conversation-head" },
        h("a", { class: "icon-button back", href: "/", "aria-label": t("chat.back") }, icon("back")),
        avatar(() => pictureOf(conversation())),
        h("h2", null, () => titleOf(conversation())),
        callButtons(id),
      ),
      h("p", { class: "problem", role: "alert", hidden: () => !this.error.value }, () => this.error.value),
      part(TimelineView, { talk, begin: app.router.place.peek().params.message ?? null }),
      part(Composer, { talk, choice }),
    );
    section.append(dropping(section, choice));
    return section;
  }

  /** @param {() => Promise<void>} read */
  async #read(read) {
    try {
      await read();
    } catch (error) {
      if (!app.state.conversations.peek(this.conversationId)) this.error.value = refused(error);
    }
  }
}

customElements.define("sc-conversation", ConversationView);
