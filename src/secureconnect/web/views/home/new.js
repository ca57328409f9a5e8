// Beginning a conversation: with one person, or with several as a group; and who asks to be friends.

import { app } from "../../app.js";
import { refused, t } from "../../i18n/index.js";
import { avatar } from "../../parts/avatar.js";
import { each, h, Part, when } from "../../parts/dom.js";
import { icon } from "../../parts/icons.js";
import { effect, signal } from "../../store/signal.js";
import { PeopleSearch } from "../choose-people.js";
import { switchField } from "../../parts/form.js";

/** @typedef {import("../../store/types.js").User} User */

export class NewConversation extends Part {
  groupTitle = signal("");
  isGroup = signal(false);
  isEncrypted = signal(false);
  isBusy = signal(false);
  error = signal("");
  asking = signal(/** @type {readonly User[]} */ ([]));

  build() {
    const search = new PeopleSearch();
    const isGroup = () => this.isGroup.value || search.chosen.value.length > 1;
    effect(() => {
      const isDefault = app.state.server.value?.e2ee_default_direct === true;
      this.isEncrypted.value = app.canEncrypt.value && isDefault && !isGroup();
    });
    void app.learnEncryption();
    void this.attempt(async () => {
      const query = { state: "incoming", limit: 100 };
      this.asking.value = (await app.client.ask("GET", "/v1/users/me/friends", { query })).friends;
    });
    return h(
      "section",
      { class: "page" },
      h(
        "header",
        { class: "page-head" },
        h("a", { class: "icon-button back", href: "/", "aria-label": t("chat.back") }, icon("back")),
        h("h2", { tabindex: -1 }, t("chat.new")),
      ),
      this.requests(),
      search.field(),
      search.list(),
      h(
        "footer",
        { class: "new-end" },
        switchField(t("home.asGroup"), {
          checked: isGroup,
          disabled: () => search.chosen.value.length > 1,
          onchange: (/** @type {any} */ { target }) => (this.isGroup.value = target.checked),
        }),
        when(isGroup, () =>
          h(
            "label",
            { class: "field" },
            h("span", null, t("chat.groupTitle")),
            h("input", {
              maxlength: 200,
              oninput: (/** @type {any} */ event) => (this.groupTitle.value = event.target.value),
            }),
          ),
        ),
        when(
          () => app.canEncrypt.value,
          () =>
            switchField(
              t("home.encryptIt"),
              {
                checked: () => this.isEncrypted.value,
                onchange: (/** @type {any} */ { target }) => (this.isEncrypted.value = target.checked),
              },
              t("home.encryptSays"),
            ),
        ),
        h("p", { class: "problem", role: "alert", hidden: () => !this.error.value }, () => this.error.value),
        h(
          "button",
          {
            class: "primary",
            disabled: () => this.isBusy.value || (search.chosen.value.length === 0 && !isGroup()),
            onclick: () => void this.attempt(() => this.begin(search.chosen.peek(), isGroup())),
          },
          t("chat.begin"),
        ),
      ),
    );
  }

  requests() {
    return when(
      () => this.asking.value.length > 0,
      () =>
        h(
          "section",
          { class: "requests" },
          h("h3", null, t("home.requests")),
          h(
            "ul",
            { "aria-label": t("home.requests") },
            each(
              () => this.asking.value,
              ({ user_id }) => user_id,
              (user) => this.request(user),
            ),
          ),
        ),
    );
  }

  /** @param {() => User} user who asks to be friends */
  request(user) {
    const path = `/v1/users/me/friends/${user().user_id}`;
    const answer = (/** @type {string} */ method, /** @type {string} */ word) =>
      this.attempt(async () => {
        await app.client.ask(method, `${path}/${word}`);
        this.asking.value = this.asking.peek().filter((each) => each.user_id !== user().user_id);
      });
    return h(
      "li",
      { class: "person" },
      avatar(() => ({ name: user().display_name, id: user().user_id, url: user().avatar_url })),
      h("span", { class: "person-name", dir: "auto" }, () => user().display_name),
      h("button", { class: "primary", onclick: () => void answer("POST", "accept") }, t("home.accept")),
      h("button", { onclick: () => void answer("DELETE", "reject") }, t("home.reject")),
    );
  }

  /**
   * @param {readonly User[]} people
   * @param {boolean} isGroup
   */
  async begin(people, isGroup) {
    const kind = isGroup
      ? { type: "group", title: this.groupTitle.peek().trim() || null }
      : { type: "direct" };
    const body = {
      ...kind,
      participant_ids: people.map((each) => each.user_id),
      ...(this.isEncrypted.peek() ? { is_e2ee_enabled: true } : {}),
    };
    const { conversation_id: id } = await app.client.ask("POST", "/v1/conversations", { body });
    await app.mine.sync.conversation(id);
    app.router.go(`/c/${id}`, { replace: true });
  }

  /** @param {() => Promise<void>} work */
  async attempt(work) {
    this.error.value = "";
    this.isBusy.value = true;
    try {
      await work();
    } catch (error) {
      this.error.value = refused(error);
    } finally {
      this.isBusy.value = false;
    }
  }
}

customElements.define("sc-new", NewConversation);
