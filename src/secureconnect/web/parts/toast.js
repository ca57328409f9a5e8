// A word about what was done, at the foot of the page for a moment. What went wrong is said where it was tried.

import { h } from "./dom.js";

const LASTS_MS = 6_000;
const MOST = 3; // at a time

/** @type {HTMLElement | null} where they stand; it is there before the first, or screen readers would not say it */
let place = null;

/**
 * @param {string} text
 * @param {{ text: string, run: () => void }} [action] a button beside it
 */
export function toast(text, action) {
  const region = placeOf();
  const shown = h("div", { class: "toast" }, h("span", null, text));
  const end = () => {
    clearTimeout(timer);
    shown.remove();
    if (region.childElementCount === 0) region.hidePopover?.();
  };
  const timer = setTimeout(end, LASTS_MS);
  if (action) {
    const run = () => {
      end();
      action.run();
    };
    shown.append(h("button", { type: "button", onclick: run }, action.text));
  }
  while (region.childElementCount >= MOST) region.firstElementChild?.remove();
  if (region.isConnected && !region.matches(":popover-open")) region.showPopover?.(); // above dialogs, too
  requestAnimationFrame(() => region.append(shown));
}

function placeOf() {
  place ??= h("div", { class: "toasts", role: "status", popover: "manual" });
  if (!place.isConnected) document.body.append(place);
  return place;
}
