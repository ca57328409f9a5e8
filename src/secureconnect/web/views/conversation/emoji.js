// Emojis to choose from: those chosen lately first. Screen readers know their names.

import { app } from "../../app.js";
import { h } from "../../parts/dom.js";
import { place } from "../../parts/menu.js";

const MOST_RECENT = 16;

const ALL = [
  "😀😃😄😁😅😂🤣🙂😉😊😇🥰😍😘😋😜🤪🤗🤔🤫🤐😐😏🙄😬😌😴😷🤒🤕🤢🥳😎🤓😕😟😮😳🥺😢😭😱😤😡🤬💀👻🤖",
  "👍👎👌✌️🤞🤝👏🙌👐🙏💪👋👉👈👆👇✋✍️👀🧠👶🧑👵👪🏃💃🕺",
  "❤️🧡💛💚💙💜🖤💔💕💯💥💫💤🔥✨⭐🌈☀️🌙⛅🌧️❄️🌸🌹🌳🍀",
  "🐶🐱🐭🐰🦊🐻🐼🐨🐯🦁🐮🐷🐸🐵🐔🐧🦆🦉🐝🦋🐢🐍🐬🐳",
  "🍎🍌🍓🍒🍑🥭🍍🥥🥑🍅🍞🧀🍕🍔🍟🍜🍣🍚🍰🎂🍫🍪🍺🍷☕🍵",
  "⚽🏀🎾🏐🎯🎮🎲🎸🎵🎬🎨🎁🎉🎈🏆🚗🚌🚲✈️🚀🏠🏖️⛰️⏰📅📌📎✏️📚💻📱📷💡🔑🔒🔔🛒💰✅❌❓❗➕♻️🏳️🚩",
].map((group) =>
  [...new Intl.Segmenter("en", { granularity: "grapheme" }).segment(group)].map(({ segment }) => segment),
);

/**
 * The one that was chosen; null: none was. The focus goes back to where it was.
 * @param {Element} where
 * @param {string} label
 * @returns {Promise<string | null>}
 */
export async function chooseEmoji(where, label) {
  const recent = await recentOnes();
  return new Promise((resolve) => {
    const before = /** @type {HTMLElement | null} */ (document.activeElement);
    let chosen = /** @type {string | null} */ (null);
    const panel = h(
      "div",
      { class: "menu emojis", popover: "auto", role: "dialog", "aria-label": label, onkeydown: move },
      [recent, ...ALL]
        .filter((group) => group.length)
        .map((group) => h("div", { class: "emoji-group" }, group.map(button))),
    );

    /** @param {string} emoji */
    function button(emoji) {
      const pick = () => {
        chosen = emoji;
        panel.hidePopover();
      };
      return h(
        "button",
        { type: "button", class: "emoji", "aria-label": emoji, tabindex: "-1", onclick: pick },
        emoji,
      );
    }

    panel.addEventListener("toggle", (event) => {
      if (/** @type {ToggleEvent} */ (event).newState !== "closed") return;
      panel.remove();
      if (before?.isConnected) before.focus({ preventScroll: true });
      if (chosen !== null) void remember(chosen, recent);
      resolve(chosen);
    });
    (where.closest("dialog[open]") ?? document.body).append(panel);
    panel.showPopover();
    place(panel, where.getBoundingClientRect());
    const first = panel.querySelector("button");
    first?.setAttribute("tabindex", "0");
    first?.focus({ preventScroll: true });
  });
}

/** @param {KeyboardEvent} event */
function move(event) {
  const panel = /** @type {HTMLElement} */ (event.currentTarget);
  const all = [...panel.querySelectorAll("button")];
  const now = /** @type {HTMLButtonElement} */ (document.activeElement);
  const next = target(event.key, all, now);
  if (next === null) return;
  event.preventDefault();
  now.setAttribute("tabindex", "-1");
  next?.setAttribute("tabindex", "0");
  next?.focus();
}

/**
 * Which one is next, undefined: none; null: the key is for something else. How many stand in a row is known only here.
 * @param {string} key
 * @param {HTMLButtonElement[]} all
 * @param {HTMLButtonElement} now
 */
function target(key, all, now) {
  const at = all.indexOf(now);
  switch (key) {
    case "ArrowRight":
      return all[at + 1] ?? now;
    case "ArrowLeft":
      return all[at - 1] ?? now;
    case "Home":
      return all[0];
    case "End":
      return all.at(-1);
    case "ArrowDown":
      return inRow(all.slice(at + 1), now) ?? now;
    case "ArrowUp":
      return inRow(all.slice(0, at).reverse(), now) ?? now;
    default:
      return null;
  }
}

/**
 * In the first row other than that of `now`, the one nearest below or above it.
 * @param {HTMLButtonElement[]} others nearest first
 * @param {HTMLButtonElement} now
 */
function inRow(others, now) {
  const first = others.find((each) => each.offsetTop !== now.offsetTop);
  const row = others.filter((each) => each.offsetTop === first?.offsetTop);
  const far = (/** @type {HTMLButtonElement} */ each) => Math.abs(each.offsetLeft - now.offsetLeft);
  return row.sort((one, other) => far(one) - far(other))[0];
}

/** @returns {Promise<string[]>} */
async function recentOnes() {
  return (await app.mine.disk.get("facts", "emojis").catch(() => null)) ?? [];
}

/**
 * @param {string} emoji
 * @param {string[]} recent
 */
async function remember(emoji, recent) {
  const next = [emoji, ...recent.filter((each) => each !== emoji)].slice(0, MOST_RECENT);
  await app.mine.disk.put("facts", "emojis", next).catch(() => {}); // signed out meanwhile, or no room
}
