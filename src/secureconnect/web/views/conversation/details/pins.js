// What is pinned in a conversation.

import { app } from "../../../app.js";
import { shortMoment, t } from "../../../i18n/index.js";
import { each, h, Part, when } from "../../../parts/dom.js";
import { icon } from "../../../parts/icons.js";
import { onEnd, signal } from "../../../store/signal.js";
import { known } from "../../people.js";
import { excerptOf } from "../said.js";
import { attempt } from "./members.js";
import { may } from "../talk.js";

/** @typedef {{ message: import("../../../store/types.js").Message, pinned_by: string, pinned_at: string }} Pin */

export class Pins extends Part {
  conversationId = "";
  error = signal("");
  pins = signal(/** @type {readonly Pin[]} */ ([]));

  build() {
    const { socket } = app.mine;
    const heard = (/** @type {import("../../../store/types.js").Event} */ event) => {
      if (event.conversation_id === this.conversationId) this.read();
    };
    onEnd(socket.on("message_pinned", heard));
    onEnd(socket.on("message_unpinned", heard));
    this.read();
    return when(
      () => this.pins.value.length > 0 || this.error.value,
      () =>
        h(
          "section",
          { class: "details-part" },
          h("h3", null, t("details.pins")),
          h(
            "p",
            { class: "problem", role: "alert", hidden: () => !this.error.value },
            () => this.error.value,
          ),
          h(
            "ul",
            { "aria-label": t("details.pins") },
            each(
              () => this.pins.value,
              ({ message }) => message.message_id,
              (pin) => this.row(pin),
            ),
          ),
        ),
    );
  }

  read() {
    void attempt(this.error, async () => {
      const path = `/v1/conversations/${this.conversationId}/pins`;
      this.pins.value = (await app.client.ask("GET", path)).pins;
    });
  }

  /** @param {() => Pin} pin */
  row(pin) {
    const id = this.conversationId;
    const { message_id } = pin().message;
    const unpin = () =>
      attempt(this.error, () => app.client.ask("DELETE", `/v1/conversations/${id}/pins/${message_id}`));
    return h(
      "li",
      { class: "pin" },
      h(
        "a",
        { href: `/c/${id}/m/${message_id}` },
        h(
          "small",
          null,
          () => known(pin().message.sender_id),
          " · ",
          () => shortMoment(pin().message.sent_at),
        ),
        h("span", { dir: "auto" }, () => excerptOf(pin().message)),
      ),
      when(
        () => {
          const conversation = app.state.conversations.get(id);
          return conversation && may(conversation, "pin");
        },
        () =>
          h(
            "button",
            { class: "icon-button", "aria-label": t("details.unpin"), onclick: () => void unpin() },
            icon("close"),
          ),
      ),
    );
  }
}

customElements.define("sc-pins", Pins);
