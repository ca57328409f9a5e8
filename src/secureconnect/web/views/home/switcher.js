// Going to a conversation by a few letters of its name.

import { app } from "../../app.js";
import { t } from "../../i18n/index.js";
import { avatar } from "../../parts/avatar.js";
import { openDialog } from "../../parts/dialog.js";
import { each, focus, h, when } from "../../parts/dom.js";
import { fold, matches } from "../../store/fold.js";
import { computed, signal } from "../../store/signal.js";
import { pictureOf, titleOf } from "../titles.js";

/** @typedef {import("../../store/types.js").Conversation} Conversation */

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
  const words = signal("");
  const at = signal(0);
  const found = computed(() => {
    const wanted = fold(words.value.trim());
    const ids = state.order.value.filter((id) => matches(namesOf(id), wanted));
    return ids.slice(0, MOST);
  });
  const active = () => Math.min(at.value, found.value.length - 1);
  const choose = (/** @type {string | undefined} */ id) => {
    if (id !== undefined) close(`/c/${id}`);
    else if (words.peek().trim()) close(`/search?q=${encodeURIComponent(words.peek().trim())}`);
  };
  return [
    h("input", {
      type: "search",
      role: "combobox",
      ref: focus,
      "aria-label": t("home.keys.switch"),
      placeholder: t("home.switchTo"),
      "aria-expanded": "true",
      "aria-controls": "switcher-list",
      "aria-activedescendant": () => (found.value.length ? `switch-${found.value[active()]}` : null),
      oninput: (/** @type {any} */ event) => {
        words.value = event.target.value;
        at.value = 0;
      },
      onkeydown: (/** @type {KeyboardEvent} */ event) => {
        const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
        const count = found.peek().length;
        if (step && count) at.value = (active() + step + count) % count;
        else if (event.key === "Enter" && !event.isComposing) choose(found.peek()[active()]);
        else return;
        event.preventDefault();
      },
    }),
    h(
      "ul",
      { id: "switcher-list", role: "listbox", class: "switcher-list", "aria-label": t("chat.conversations") },
      each(
        () => found.value,
        (id) => id,
        (id) =>
          h(
            "li",
            {
              id: `switch-${id()}`,
              role: "option",
              "aria-selected": () => String(found.value[active()] === id()),
              onclick: () => choose(id()),
            },
            avatar(() => pictureOf(state.conversations.get(id()))),
            h("span", { class: "list-name", dir: "auto" }, () => titleOf(state.conversations.get(id()))),
          ),
      ),
    ),
    when(
      () => found.value.length === 0 && words.value.trim(),
      () => h("p", { role: "status" }, () => t("home.switchSearch", { words: words.value.trim() })),
    ),
  ];
}

/** @param {string} id */
function namesOf(id) {
  const conversation = /** @type {Conversation} */ (app.state.conversations.get(id));
  const other = conversation?.type === "direct" ? app.state.otherOf(conversation) : null;
  return fold(`${titleOf(conversation)} ${other?.username ?? ""}`);
}
