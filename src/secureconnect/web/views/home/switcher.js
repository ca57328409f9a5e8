// Going to a conversation by a few letters of its name, or beginning one with somebody who is found by theirs.

import { app } from "../../app.js";
import { refused, t } from "../../i18n/index.js";
import { avatar } from "../../parts/avatar.js";
import { openDialog } from "../../parts/dialog.js";
import { each, focus, h, when } from "../../parts/dom.js";
import { fold, matches } from "../../store/fold.js";
import { computed, effect, signal } from "../../store/signal.js";
import { PeopleSearch } from "../choose-people.js";
import { directWith } from "../person.js";
import { pictureOf, titleOf } from "../titles.js";

/**
 * @typedef {import("../../store/types.js").Conversation} Conversation
 * @typedef {{ key: string, user?: import("../../store/types.js").User }} Choice key: of the conversation, or the person
 */

const MOST = 12;

export async function switcher() {
  const path = await openDialog(
    t("home.keys.switch"),
    (/** @type {(path?: string) => void} */ close) => content(close),
    { class: "switcher", isHeadless: true },
  );
  if (path) app.router.go(path);
}

/** @param {(path?: string) => void} close */
function content(close) {
  const { state } = app;
  const people = new PeopleSearch();
  const words = signal("");
  const at = signal(0);
  const found = computed(() => {
    const wanted = fold(words.value.trim());
    const ids = state.order.value.filter((id) => matches(namesOf(id), wanted)).slice(0, MOST);
    /** @type {Choice[]} */
    const conversations = ids.map((id) => ({ key: id }));
    const met = new Set(ids.map(otherIn));
    const others = wanted ? people.people.value.filter(({ user_id }) => !met.has(user_id)) : [];
    return [...conversations, ...others.map((user) => ({ key: user.user_id, user }))].slice(0, MOST);
  });
  const active = () => Math.min(at.value, found.value.length - 1);
  const choose = async (/** @type {Choice | undefined} */ choice) => {
    const text = words.peek().trim();
    if (choice === undefined) {
      if (text) close(`/search?q=${encodeURIComponent(text)}`);
    } else if (choice.user === undefined) close(`/c/${choice.key}`);
    else {
      try {
        close(await directWith(choice.user.user_id));
      } catch (error) {
        people.error.value = refused(error);
      }
    }
  };
  return [
    h("input", {
      type: "search",
      role: "combobox",
      ref: focus,
      "aria-label": t("home.keys.switch"),
      placeholder: t("home.switchTo"),
      "aria-autocomplete": "list",
      "aria-expanded": () => String(found.value.length > 0),
      "aria-controls": "switcher-list",
      "aria-activedescendant": () => (found.value.length ? `switch-${found.value[active()].key}` : null),
      oninput: (/** @type {any} */ event) => {
        words.value = event.target.value;
        people.look(words.peek());
        at.value = 0;
      },
      onkeydown: (/** @type {KeyboardEvent} */ event) => {
        const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
        const count = found.peek().length;
        if (step && count) at.value = (active() + step + count) % count;
        else if (event.key === "Enter" && !event.isComposing) void choose(found.peek()[active()]);
        else return;
        event.preventDefault();
      },
    }),
    h(
      "ul",
      { id: "switcher-list", role: "listbox", class: "switcher-list", "aria-label": t("home.switchTo") },
      each(
        () => found.value,
        ({ key }) => key,
        (choice) => option(choice, () => found.value[active()]?.key === choice().key, choose),
      ),
    ),
    h("p", { class: "problem", role: "alert", hidden: () => !people.error.value }, () => people.error.value),
    when(
      () => found.value.length === 0 && words.value.trim(),
      () => h("p", { role: "status" }, () => t("home.switchSearch", { words: words.value.trim() })),
    ),
  ];
}

/**
 * @param {() => Choice} choice
 * @param {() => boolean} isActive
 * @param {(choice: Choice) => Promise<void>} choose
 */
function option(choice, isActive, choose) {
  const { key, user } = choice();
  const conversation = () => app.state.conversations.get(key);
  const face = () =>
    user ? { name: user.display_name, id: key, url: user.avatar_url } : pictureOf(conversation());
  return h(
    "li",
    {
      id: `switch-${key}`,
      role: "option",
      "aria-selected": () => String(isActive()),
      onclick: () => void choose(choice()),
      ref: (/** @type {HTMLElement} */ row) =>
        effect(() => isActive() && row.isConnected && row.scrollIntoView({ block: "nearest" })),
    },
    avatar(face),
    h("span", { class: "list-name", dir: "auto" }, () => user?.display_name ?? titleOf(conversation())),
    user ? h("small", null, `@${user.username}`) : null,
  );
}

/** @param {string} id of a conversation */
function otherIn(id) {
  const conversation = app.state.conversations.peek(id);
  return conversation?.type === "direct" ? app.state.otherOf(conversation)?.user_id : undefined;
}

/** @param {string} id */
function namesOf(id) {
  const conversation = /** @type {Conversation} */ (app.state.conversations.get(id));
  const other = conversation?.type === "direct" ? app.state.otherOf(conversation) : null;
  return fold(`${titleOf(conversation)} ${other?.username ?? ""}`);
}
