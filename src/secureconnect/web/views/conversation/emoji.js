// Emojis to choose from: those chosen lately first. Screen readers know their names.

import { app } from "../../app.js";
import { h } from "../../parts/dom.js";
import { place } from "../../parts/menu.js";

const MOST_RECENT = 16;
const COLUMNS = 8;

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
  const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: COLUMNS, ArrowUp: -COLUMNS }[event.key];
  if (by === undefined) return;
  event.preventDefault();
  const panel = /** @type {HTMLElement} */ (event.currentTarget);
  const all = [...panel.querySelectorAll("button")];
  const at = all.indexOf(/** @type {HTMLButtonElement} */ (document.activeElement));
  const next = all[Math.max(0, Math.min(all.length - 1, at + by))];
  all[at]?.setAttribute("tabindex", "-1");
  next.setAttribute("tabindex", "0");
  next.focus();
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
