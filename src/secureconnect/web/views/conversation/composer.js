// Where one says something. Enter sends, Shift and Enter begin a line.

import { app } from "../../app.js";
import { refused, t } from "../../i18n/index.js";
import { h, Part } from "../../parts/dom.js";
import { icon } from "../../parts/icons.js";
import { Choice } from "../files/choice.js";
import { attachButton, tray } from "../files/tray.js";
import { signal } from "../../store/signal.js";
import { Talk } from "./talk.js";

const TYPING_EVERY_MS = 3_000;

export class Composer extends Part {
  choice = new Choice("");
  talk = new Talk("");
  error = signal("");
  #typedMs = 0;

  build() {
    const { id } = this.talk;
    const input = h("textarea", {
      rows: 1,
      dir: "auto",
      "aria-label": t("chat.write"),
      placeholder: t("chat.write"),
      oninput: () => this.#typing(),
      onkeydown: (/** @type {KeyboardEvent} */ event) => {
        if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
        event.preventDefault();
        void this.#send(input, id);
      },
    });
    return h(
      "form",
      {
        class: "composer",
        onsubmit: (/** @type {SubmitEvent} */ event) => {
          event.preventDefault();
          void this.#send(input, id);
        },
      },
      h("p", { class: "problem", role: "alert", hidden: () => !this.error.value }, () => this.error.value),
      tray(this.choice),
      attachButton(this.choice),
      input,
      h("button", { class: "icon-button primary", "aria-label": t("chat.send") }, icon("send")),
    );
  }

  /**
   * @param {HTMLTextAreaElement} input
   * @param {string} id
   */
  async #send(input, id) {
    const content = input.value.trim();
    const { draft, blobs, putBack } = this.choice.take();
    if (!content && !draft.files) return;
    this.error.value = "";
    input.value = "";
    try {
      await app.mine.outbox.add({ conversation_id: id, content, ...draft }, blobs);
      this.talk.toEnd();
    } catch (error) {
      input.value = content;
      putBack();
      this.error.value = refused(error);
    }
  }

  #typing() {
    const now = Date.now();
    if (now - this.#typedMs < TYPING_EVERY_MS) return;
    this.#typedMs = now;
    app.mine.socket.say({ type: "typing", conversation_id: this.talk.id, is_typing: true });
  }
}

customElements.define("sc-composer", Composer);
