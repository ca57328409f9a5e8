// Looking for what was said, for people and for conversations. What is looked for stands in the address, so that one
// comes back to it.

import { app } from "../../app.js";
import { t } from "../../i18n/index.js";
import { avatar } from "../../parts/avatar.js";
import { each, focus, h, Part, when } from "../../parts/dom.js";
import { icon } from "../../parts/icons.js";
import { footOf } from "../../parts/paged.js";
import { fold, matches } from "../../store/fold.js";
import { computed, effect, onEnd, signal, untracked } from "../../store/signal.js";
import { known } from "../people.js";
import { showPerson } from "../person.js";
import { pictureOf, titleOf } from "../titles.js";
import { messagesFor, row, sealedFor, SHORTEST } from "./messages.js";

/**
 * @typedef {import("../../store/types.js").User} User
 * @typedef {import("./messages.js").Asked} Asked
 */

const PAUSE_MS = 300;
const MOST_BESIDE = 5; // people, and conversations
const MOST_CHOICES = 200; // in the lists one narrows it down with
const FIELDS = /** @type {const} */ (["q", "in", "from", "after", "before"]);

export class Search extends Part {
  /** @type {import("../../store/signal.js").Signal<Asked>} */
  asked = signal(askedIn(app.router.place.peek()));
  people = signal(/** @type {readonly User[]} */ ([]));
  #timer = 0;

  build() {
    const found = messagesFor(() => this.asked.peek());
    effect(() => {
      const { place } = app.router;
      if (place.value.name === "search") this.asked.value = askedIn(place.value);
    });
    const sealed = sealedFor(this.asked);
    const isAsked = computed(() => this.asked.value.q.length >= SHORTEST);
    effect(() => {
      const { q } = this.asked.value;
      untracked(() => {
        found.items.value = [];
        found.error.value = "";
        if (q.length < SHORTEST) return;
        void found.load();
        void this.findPeople(q);
      });
    });
    onEnd(() => clearTimeout(this.#timer));
    return h(
      "section",
      { class: "page search" },
      h(
        "header",
        { class: "page-head" },
        h("a", { class: "icon-button back", href: "/", "aria-label": t("chat.back") }, icon("back")),
        h("h2", { tabindex: -1 }, t("home.search")),
      ),
      h(
        "form",
        {
          role: "search",
          onsubmit: (/** @type {Event} */ event) => event.preventDefault(),
        },
        h("input", {
          type: "search",
          ref: focus,
          value: this.asked.peek().q,
          "aria-label": t("home.searchFor"),
          placeholder: t("home.searchFor"),
          maxlength: 200,
          oninput: (/** @type {any} */ { target }) => this.later({ q: target.value.trim() }),
        }),
        this.filters(),
      ),
      when(
        () => isAsked.value,
        () => [this.conversations(), this.persons(), this.messages(found, sealed)],
        () => h("p", { class: "blank" }, t("home.searchHint")),
      ),
    );
  }

  filters() {
    const field = (/** @type {string} */ key, /** @type {HTMLElement} */ input) =>
      h("label", { class: "field" }, h("span", null, t(`home.search.${key}`)), input);
    const date = (/** @type {"after" | "before"} */ name) =>
      h("input", {
        type: "date",
        value: this.asked.peek()[name],
        onchange: (/** @type {any} */ { target }) => this.ask({ [name]: target.value }),
      });
    return h(
      "details",
      { class: "filters", open: FIELDS.slice(1).some((name) => this.asked.peek()[name]) },
      h("summary", null, t("home.search.narrow")),
      h(
        "div",
        null,
        field(
          "in",
          this.select("in", () => {
            const ids = app.state.order.value.slice(0, MOST_CHOICES);
            return ids.map((id) => [id, titleOf(app.state.conversations.get(id))]);
          }),
        ),
        field(
          "from",
          this.select("from", () => this.authors()),
        ),
        field("after", date("after")),
        field("before", date("before")),
      ),
    );
  }

  /** Those of the conversation that is looked in, or whom one has a direct one with. @returns {[string, string][]} */
  authors() {
    const { conversations, order } = app.state;
    const within = conversations.get(this.asked.value.in);
    const some = within ? [within] : order.value.map((id) => conversations.get(id));
    const ids = new Set(some.flatMap((each) => each?.participants?.map(({ user_id }) => user_id) ?? []));
    return [...ids]
      .slice(0, MOST_CHOICES)
      .map((id) => /** @type {[string, string]} */ ([id, known(id)]))
      .sort(([, one], [, other]) => one.localeCompare(other));
  }

  /**
   * @param {"in" | "from"} name
   * @param {() => [string, string][]} options
   */
  select(name, options) {
    const select = h("select", { onchange: () => this.ask({ [name]: select.value }) }, () => {
      const now = this.asked.value[name];
      const all = options();
      const isThere = now === "" || all.some(([id]) => id === now);
      const whole = isThere ? all : [/** @type {[string, string]} */ ([now, named(name, now)]), ...all];
      return [["", t(`home.search.any.${name}`)], ...whole].map(([id, text]) =>
        h("option", { value: id, selected: id === now }, text),
      );
    });
    return select;
  }

  conversations() {
    const found = computed(() => {
      const words = fold(this.asked.value.q);
      return app.state.order.value
        .filter((id) => matches(fold(titleOf(app.state.conversations.get(id))), words))
        .slice(0, MOST_BESIDE);
    });
    return beside(
      t("chat.conversations"),
      () => found.value,
      (id) => id,
      (id) =>
        h(
          "a",
          { class: "found", href: `/c/${id()}` },
          avatar(() => pictureOf(app.state.conversations.get(id()))),
          h("span", { dir: "auto" }, () => titleOf(app.state.conversations.get(id()))),
        ),
    );
  }

  persons() {
    return beside(
      t("home.people"),
      () => this.people.value,
      ({ user_id }) => user_id,
      (user) =>
        h(
          "button",
          { class: "found", onclick: () => void showPerson(user().user_id) },
          avatar(() => ({ name: user().display_name, id: user().user_id, url: user().avatar_url })),
          h(
            "span",
            null,
            h("span", { dir: "auto" }, () => user().display_name),
            h("small", null, () => ` @${user().username}`),
          ),
        ),
    );
  }

  /**
   * @param {ReturnType<typeof messagesFor>} found
   * @param {ReturnType<typeof sealedFor>} sealed
   */
  messages(found, { hits, isLooking }) {
    return h(
      "section",
      null,
      h("h3", null, t("chat.messages")),
      h(
        "ol",
        { "aria-label": t("chat.messages") },
        each(
          () => [...hits.value, ...found.items.value],
          ({ message_id }) => message_id,
          (hit) => row(hit),
        ),
      ),
      footOf(found, t("home.nothingFound"), () => isLooking.value || hits.value.length > 0),
    );
  }

  /** @param {string} q */
  async findPeople(q) {
    try {
      const query = { q, limit: MOST_BESIDE };
      const { users } = await app.client.ask("GET", "/v1/users/search", { query });
      if (this.asked.peek().q !== q) return;
      app.state.meet(users);
      this.people.value = users.filter((/** @type {User} */ each) => each.user_id !== app.session.userId);
    } catch {
      this.people.value = []; // the messages say what is wrong
    }
  }

  /** @param {Partial<Asked>} change */
  later(change) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.ask(change), PAUSE_MS);
  }

  /** @param {Partial<Asked>} change */
  ask(change) {
    const query = new URLSearchParams();
    const asked = { ...this.asked.peek(), ...change };
    for (const name of FIELDS) if (asked[name]) query.set(name, asked[name]);
    const text = query.toString();
    app.router.go(text ? `/search?${text}` : "/search", { replace: true });
  }
}

/**
 * @param {import("../../router.js").Place} place
 * @returns {Asked}
 */
function askedIn({ query }) {
  return /** @type {Asked} */ (Object.fromEntries(FIELDS.map((name) => [name, query.get(name) ?? ""])));
}

/**
 * @param {"in" | "from"} name
 * @param {string} id
 */
function named(name, id) {
  return name === "in" ? titleOf(app.state.conversations.get(id)) : known(id);
}

/**
 * A few that were found beside the messages.
 * @template T
 * @param {string} title
 * @param {() => readonly T[]} list
 * @param {(item: T) => string} keyOf
 * @param {(item: () => T) => HTMLElement} make
 */
function beside(title, list, keyOf, make) {
  return when(
    () => list().length > 0,
    () =>
      h(
        "section",
        null,
        h("h3", null, title),
        h(
          "ul",
          { "aria-label": title },
          each(list, keyOf, (item) => h("li", null, make(item))),
        ),
      ),
  );
}

customElements.define("sc-search", Search);
