// Finding people by name and choosing several.

import { app } from "../app.js";
import { refused, t } from "../i18n/index.js";
import { avatar } from "../parts/avatar.js";
import { openDialog } from "../parts/dialog.js";
import { each, focus, h } from "../parts/dom.js";
import { fold, matches } from "../store/fold.js";
import { computed, onEnd, signal } from "../store/signal.js";

/** @typedef {import("../store/types.js").User} User */

const PAUSE_MS = 250;
const SHORTEST = 2;

/** People one may choose: friends at first, then whoever is found by what is written. */
export class PeopleSearch {
  words = signal("");
  error = signal("");
  chosen = signal(/** @type {readonly User[]} */ ([]));
  #found = signal(/** @type {readonly User[]} */ ([]));
  #friends = signal(/** @type {readonly User[]} */ ([]));
  #timer = 0;
  #turn = 0;

  /** @param {ReadonlySet<string>} without ids of people who are not to be chosen */
  constructor(without = new Set()) {
    this.without = without;
    /** those chosen first, so that nobody is lost from sight */
    this.people = computed(() => {
      const words = fold(this.words.value);
      const friends = this.#friends.value.filter(({ display_name, username }) =>
        matches(fold(`${display_name} ${username}`), words),
      );
      const all = [...this.chosen.value, ...friends, ...this.#found.value];
      const seen = new Set([...this.without, app.session.userId]);
      return all.filter(({ user_id }) => !seen.has(user_id) && seen.add(user_id));
    });
    onEnd(() => clearTimeout(this.#timer));
    void this.#readFriends();
  }

  async #readFriends() {
    try {
      const { friends } = await app.client.ask("GET", "/v1/users/me/friends", { query: { limit: 100 } });
      app.state.meet(friends);
      this.#friends.value = friends;
    } catch (error) {
      this.error.value = refused(error);
    }
  }

  /** @param {string} words */
  look(words) {
    this.words.value = words.trim();
    this.#turn += 1;
    clearTimeout(this.#timer);
    if (this.words.peek().length < SHORTEST) this.#found.value = [];
    else this.#timer = setTimeout(() => void this.#ask(this.#turn), PAUSE_MS);
  }

  /** @param {number} turn */
  async #ask(turn) {
    try {
      const { users } = await app.client.ask("GET", "/v1/users/search", { query: { q: this.words.peek() } });
      if (turn !== this.#turn) return;
      app.state.meet(users);
      this.#found.value = users;
      this.error.value = "";
    } catch (error) {
      if (turn === this.#turn) this.error.value = refused(error);
    }
  }

  /** @param {User} user */
  isChosen(user) {
    return this.chosen.value.some((each) => each.user_id === user.user_id);
  }

  /** @param {User} user chosen, or not any more */
  toggle(user) {
    const others = this.chosen.peek().filter((each) => each.user_id !== user.user_id);
    this.chosen.value = others.length < this.chosen.peek().length ? others : [...others, user];
  }

  field() {
    return h(
      "label",
      { class: "field" },
      h("span", null, t("chat.findPeople")),
      h("input", {
        type: "search",
        ref: focus,
        autocomplete: "off",
        oninput: (/** @type {any} */ event) => this.look(event.target.value),
      }),
    );
  }

  list() {
    return [
      h("p", { class: "problem", role: "alert", hidden: () => !this.error.value }, () => this.error.value),
      h(
        "ul",
        { class: "people", "aria-label": t("home.people") },
        each(
          () => this.people.value,
          (user) => user.user_id,
          (user) => h("li", null, this.#row(user)),
        ),
      ),
    ];
  }

  /** @param {() => User} user */
  #row(user) {
    return h(
      "label",
      { class: "person" },
      h("input", {
        type: "checkbox",
        checked: () => this.isChosen(user()),
        onchange: () => this.toggle(user()),
      }),
      avatar(() => ({ name: user().display_name, id: user().user_id, url: user().avatar_url })),
      h(
        "span",
        null,
        h("span", { dir: "auto" }, () => user().display_name),
        h("small", null, () => `@${user().username}`),
      ),
    );
  }
}

/**
 * @param {string} title
 * @param {string} action the word on the button
 * @param {ReadonlySet<string>} without
 */
export function choosePeople(title, action, without) {
  return openDialog(title, (/** @type {(chosen?: readonly User[]) => void} */ close) => {
    const search = new PeopleSearch(without);
    return [
      search.field(),
      search.list(),
      h(
        "footer",
        { class: "dialog-foot" },
        h("button", { onclick: () => close(undefined) }, t("common.cancel")),
        h(
          "button",
          {
            class: "primary",
            disabled: () => search.chosen.value.length === 0,
            onclick: () => close(search.chosen.peek()),
          },
          action,
        ),
      ),
    ];
  });
}
