// Naming people in what one writes: a list of those whose names begin so, and who is named in the end.

import { app } from "../../app.js";
import { avatar } from "../../parts/avatar.js";
import { each, h } from "../../parts/dom.js";
import { t } from "../../i18n/index.js";
import { fold, matches } from "../../store/fold.js";
import { effect, signal } from "../../store/signal.js";

/**
 * @typedef {import("../../store/types.js").Person} Person
 * @typedef {import("./talk.js").Talk} Talk
 */

const MOST = 8; // offered at a time
const MOST_NAMED = 50; // in one message, as the server takes it
const BEGUN = /(^|[\s(])@([\w.-]{0,50})$/;
const NAMED = /(?<![\w.@/-])@([A-Za-z0-9_][A-Za-z0-9_.-]{2,49})/g;

/**
 * Ids of members that a text names.
 * @param {string} text
 * @param {Talk} talk
 */
export function namedIn(text, talk) {
  const ids = new Map(members(talk).map((each) => [each.username.toLowerCase(), each.user_id]));
  const found = new Set();
  for (const [, name] of text.matchAll(NAMED)) {
    const id = ids.get(name.toLowerCase()) ?? ids.get(name.toLowerCase().replace(/[.-]+$/, ""));
    if (id !== undefined) found.add(id);
  }
  return [...found].slice(0, MOST_NAMED);
}

/**
 * @param {Talk} talk
 * @returns {Person[]}
 */
function members(talk) {
  const { participants = [] } = talk.conversation ?? {};
  return participants.map((each) => app.state.people.get(each.user_id) ?? each);
}

export class Mentioning {
  /** @type {import("../../store/signal.js").Signal<readonly Person[]>} */
  offered = signal(/** @type {readonly Person[]} */ ([]));
  chosen = signal(0);

  /**
   * @param {HTMLTextAreaElement} input
   * @param {Talk} talk
   */
  constructor(input, talk) {
    this.input = input;
    this.talk = talk;
    this.listId = `mentions-${talk.id}`;
    input.setAttribute("aria-autocomplete", "list");
    input.setAttribute("aria-controls", this.listId);
    effect(() => {
      if (this.active) input.setAttribute("aria-activedescendant", this.active);
      else input.removeAttribute("aria-activedescendant");
    });
  }

  /** The text, or the place in it, is another. */
  look() {
    const { input, talk } = this;
    const begun = BEGUN.exec(input.value.slice(0, input.selectionStart));
    const isAlone = input.selectionStart === input.selectionEnd;
    if (!begun || !isAlone || !talk.isGroup) {
      this.close();
      return;
    }
    const asked = fold(begun[2]);
    const others = members(talk).filter(({ user_id }) => user_id !== app.session.userId);
    const fit = others.filter((each) => matches(fold(`${each.username} ${each.display_name}`), asked));
    this.chosen.value = 0;
    this.offered.value = fit.slice(0, MOST);
  }

  close() {
    this.offered.value = [];
  }

  /**
   * Returns whether the key was for the list.
   * @param {KeyboardEvent} event
   */
  key(event) {
    const { length } = this.offered.peek();
    if (length === 0) return false;
    if (event.key === "ArrowDown") this.chosen.value = (this.chosen.peek() + 1) % length;
    else if (event.key === "ArrowUp") this.chosen.value = (this.chosen.peek() + length - 1) % length;
    else if (event.key === "Enter" || event.key === "Tab")
      this.#pick(this.offered.peek()[this.chosen.peek()]);
    else if (event.key === "Escape") this.close();
    else return false;
    event.preventDefault();
    event.stopPropagation();
    return true;
  }

  /** @param {Person} person */
  #pick({ username }) {
    const { input } = this;
    const before = input.value.slice(0, input.selectionStart);
    const begun = BEGUN.exec(before);
    if (begun) {
      input.setRangeText(`@${username} `, before.length - begun[2].length - 1, before.length, "end");
      input.dispatchEvent(new InputEvent("input", { bubbles: true }));
    }
    this.close();
    input.focus();
  }

  list() {
    const { offered, chosen, listId } = this;
    return h(
      "ul",
      {
        class: "mentions",
        id: listId,
        role: "listbox",
        "aria-label": t("chat.people"),
        hidden: () => offered.value.length === 0,
      },
      each(
        () => offered.value,
        ({ user_id }) => user_id,
        (person) => this.#option(person, () => offered.value[chosen.value]?.user_id === person().user_id),
      ),
    );
  }

  /** The option that Enter would take. */
  get active() {
    const person = this.offered.value[this.chosen.value];
    return person ? this.#idOf(person) : null;
  }

  /** @param {Person} person */
  #idOf({ user_id }) {
    return `${this.listId}-${user_id}`;
  }

  /**
   * @param {() => Person} person
   * @param {() => boolean} isChosen
   */
  #option(person, isChosen) {
    const { user_id, display_name, avatar_url, username } = person();
    return h(
      "li",
      {
        id: this.#idOf(person()),
        role: "option",
        class: "mentions-option",
        "aria-selected": () => String(isChosen()),
        onpointerdown: (/** @type {PointerEvent} */ event) => {
          event.preventDefault(); // the focus stays where one writes
          this.#pick(person());
        },
      },
      avatar(() => ({ name: display_name, id: user_id, url: avatar_url })),
      h("span", { dir: "auto" }, display_name),
      h("small", null, `@${username}`),
    );
  }
}
