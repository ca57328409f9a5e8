// Going from conversation to conversation by keys.

import { app } from "../../app.js";
import { t } from "../../i18n/index.js";

/** @typedef {import("../keys.js").Key} Key */

/**
 * @param {number} step 1: the next one down the list; -1: up
 * @param {boolean} isUnread only to those with something unread
 */
export function go(step, isUnread = false) {
  const order = app.state.order.peek();
  const here = order.indexOf(app.router.place.peek().params.conversation ?? "");
  const start = here < 0 && step < 0 ? order.length : here;
  for (let at = start + step; at >= 0 && at < order.length; at += step) {
    if (isUnread && !app.state.conversations.peek(order[at])?.unread_count) continue;
    app.router.go(`/c/${order[at]}`);
    return;
  }
}

async function openSwitcher() {
  const { switcher } = await import("./switcher.js");
  void switcher();
}

async function showKeys() {
  const { showAllKeys } = await import("./all-keys.js");
  void showAllKeys();
}

/** @returns {Key[]} */
export function homeKeys() {
  return [
    { keys: "Mod+K", says: () => t("home.keys.switch"), run: () => void openSwitcher() },
    { keys: "Alt+ArrowUp", says: () => t("home.keys.previous"), run: () => go(-1) },
    { keys: "Alt+ArrowDown", says: () => t("home.keys.next"), run: () => go(1) },
    { keys: "Alt+Shift+ArrowUp", says: () => t("home.keys.previousUnread"), run: () => go(-1, true) },
    { keys: "Alt+Shift+ArrowDown", says: () => t("home.keys.nextUnread"), run: () => go(1, true) },
    { keys: "/", says: () => t("home.keys.search"), run: () => app.router.go("/search") },
    { keys: "N", says: () => t("home.keys.new"), run: () => app.router.go("/new") },
    { keys: "Escape", says: () => t("home.keys.back"), run: back },
    { keys: "?", says: () => t("home.keys.all"), run: () => void showKeys() },
  ];
}

/** Out of the panel, then out of the conversation. */
function back() {
  const { name, params } = app.router.place.peek();
  if (name === "home") return false;
  app.router.go(name === "conversation" && params.panel ? `/c/${params.conversation}` : "/");
}
