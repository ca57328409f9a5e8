// What can be done by keys alone. Views say here what their keys do, for as long as they are in the page; `?` shows them
// all.

import { signal, onEnd } from "../store/signal.js";

/**
 * @typedef {object} Key
 * @property {string} keys as shown and matched: "Mod+K", "Alt+Shift+ArrowUp", "?", "Escape"; Mod: Ctrl, on a Mac ⌘
 * @property {() => string} says what it does
 * @property {(event: KeyboardEvent) => void | false} run false: not for us after all
 * @property {boolean} [isInText] also while one writes; those with Ctrl, ⌘ or Alt always are
 */

const KEPT = "sc.keys";
const IS_MAC = /Mac|iPhone|iPad/.test(navigator.platform);

/** @type {import("../store/signal.js").Signal<readonly Key[]>} the latest said first */
const all = signal(/** @type {readonly Key[]} */ ([]));

/** Whether single letters and signs do something; who speaks to the machine may not want that. */
export const hasLetters = signal(localStorage.getItem(KEPT) !== "off");

/** @param {boolean} isOn */
export function chooseLetters(isOn) {
  if (isOn) localStorage.removeItem(KEPT);
  else localStorage.setItem(KEPT, "off");
  hasLetters.value = isOn;
}

/**
 * These keys work until the scope that is open now ends.
 * @param {...Key} keys
 */
export function onKeys(...keys) {
  all.value = [...keys, ...all.peek()];
  onEnd(() => (all.value = all.peek().filter((each) => !keys.includes(each))));
}

/** All keys there are now, each once. */
export function keysNow() {
  const seen = new Set();
  return all.value.filter((each) => !seen.has(each.keys) && seen.add(each.keys)).reverse();
}

/**
 * As they are written on the keyboard.
 * @param {string} keys
 */
export function written(keys) {
  const NAMES = { Mod: IS_MAC ? "⌘" : "Ctrl", Alt: IS_MAC ? "⌥" : "Alt", Escape: "Esc" };
  const ARROWS = { ArrowUp: "↑", ArrowDown: "↓", ArrowLeft: "←", ArrowRight: "→" };
  /** @type {Record<string, string>} */
  const known = { ...NAMES, ...ARROWS };
  return keys.split("+").map((each) => known[each] ?? each);
}

/** @param {KeyboardEvent} event */
function pressed(event) {
  const mod = IS_MAC ? event.metaKey : event.ctrlKey;
  const isLetter = event.key.length === 1;
  // Shift is part of a sign such as `?`
  const parts = [mod && "Mod", event.altKey && "Alt", event.shiftKey && !isLetter && "Shift"];
  return [...parts, isLetter ? event.key.toUpperCase() : event.key].filter(Boolean).join("+");
}

/** @param {EventTarget | null} target */
function isText(target) {
  return (
    target instanceof HTMLElement &&
    (target.isContentEditable || target.matches("input:not([type=checkbox], [type=radio]), textarea, select"))
  );
}

addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.isComposing) return;
  if (document.querySelector("dialog:modal, .menu:popover-open")) return; // they have keys of their own
  const name = pressed(event);
  const isPlain = !name.startsWith("Mod+") && !name.startsWith("Alt+");
  if (isPlain && name.length === 1 && !hasLetters.peek()) return;
  for (const key of all.peek()) {
    if (key.keys !== name || (isPlain && !key.isInText && isText(event.target))) continue;
    if (key.run(event) === false) continue;
    event.preventDefault();
    return;
  }
});
