// Beginning a conversation: find people, and write to one of them, or gather several in a group.

import { app } from "../../app.js";
import { refused, t } from "../../i18n/index.js";
import { avatar } from "../../parts/avatar.js";
import { each, focus, h, Part, when } from "../../parts/dom.js";
import { signal } from "../../store/signal.js";

/** @typedef {import("../../store/types.js").User} User */

const PAUSE_MS = 250;
const SHORTEST = 2;

export class NewConversation extends Part {
  found = signal(/** @type {readonly User[]} */ ([]));
  chosen = signal(/** @type {readonly User[]} */ ([]));
  groupTitle = signal("");
  error = signal("");
  #timer = 0;

  build() {
    const isChosen = (/** @type {User} */ user) =>
      this.chosen.value.some((each) => each.user_id === user.user_id);
    const pick = (/** @type {User} */ user) => {
      this.chosen.value = isChosen(user)
        ? this.chosen.peek().filter((each) => each.user_id !== user.user_id)
        : [...this.chosen.peek(), user];
    };
    return h(
      "section",
      { class: "page" },
      h("h2", null, t("chat.new")),
      h(
        "label",
        { class: "field" },
        h("span", null, t("chat.findPeople")),
        h("input", {
          type: "search",
          ref: focus,
          oninput: (/** @type {InputEvent} */ event) => this.look(event),
        }),
      ),
      h(
        "ul",
        { class: "people" },
        each(
          () => [...this.chosen.value, ...this.found.value.filter((user) => !isChosen(user))],
          (user) => user.user_id,
          (user) =>
            h(
              "li",
              null,
              h(
                "label",
                { class: "person" },
                h("input", {
                  type: "checkbox",
                  checked: () => isChosen(user()),
                  onchange: () => pick(user()),
                }),
                avatar(() => ({ name: user().display_name, id: user().user_id, url: user().avatar_url })),
                h(
                  "span",
                  null,
                  () => user().display_name,
                  h("small", null, () => `@${user().username}`),
                ),
              ),
            ),
        ),
      ),
      when(
        () => this.chosen.value.length > 1,
        () =>
          h(
            "label",
            { class: "field" },
            h("span", null, t("chat.groupTitle")),
            h("input", {
              maxlength: 100,
              oninput: (/** @type {any} */ event) => (this.groupTitle.value = event.target.value),
            }),
          ),
      ),
      h("p", { class: "problem", role: "alert", hidden: () => !this.error.value }, () => this.error.value),
      h(
        "button",
        { class: "primary", disabled: () => this.chosen.value.length === 0, onclick: () => this.begin() },
        t("chat.begin"),
      ),
    );
  }

  /** @param {InputEvent} event */
  look(event) {
    const q = /** @type {HTMLInputElement} */ (event.target).value.trim();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(async () => {
      if (q.length < SHORTEST) {
        this.found.value = [];
        return;
      }
      try {
        this.found.value = (await app.client.ask("GET", "/v1/users/search", { query: { q } })).users;
      } catch (error) {
        this.error.value = refused(error);
      }
    }, PAUSE_MS);
  }

  async begin() {
    const people = this.chosen.peek();
    const kind =
      people.length > 1 ? { type: "group", title: this.groupTitle.peek() || null } : { type: "direct" };
    try {
      const body = { ...kind, participant_ids: people.map((each) => each.user_id) };
      const made = await app.client.ask("POST", "/v1/conversations", { body });
      await app.mine.sync.conversation(made.conversation_id);
      app.router.go(`/c/${made.conversation_id}`, { replace: true });
    } catch (error) {
      this.error.value = refused(error);
    }
  }
}

customElements.define("sc-new", NewConversation);
