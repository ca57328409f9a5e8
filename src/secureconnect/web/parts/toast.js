// A word about what was done, near the head of the page for a moment. What went wrong is said where it was tried.

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
    shown.remove();
    if (region.childElementCount === 0) region.hidePopover?.();
  };
  if (action) {
    const run = () => {
      end();
      action.run();
    };
    shown.append(h("button", { type: "button", onclick: run }, action.text));
  }
  while (region.childElementCount >= MOST) region.firstElementChild?.remove();
  show(region); // above dialogs, too
  requestAnimationFrame(() => {
    region.append(shown);
    setTimeout(end, LASTS_MS); // from when it is seen: in a tab behind others nothing is drawn
  });
}

/** What is outside an open dialog is neither heard nor pressed: they stand in it, and outlast it. */
function placeOf() {
  const region = (place ??= h("div", { class: "toasts", role: "status", popover: "manual" }));
  const dialog = [...document.querySelectorAll("dialog:modal")].at(-1);
  const host = dialog ?? document.body;
  if (region.parentElement === host) return region;
  host.append(region);
  dialog?.addEventListener("close", () => {
    if (region.parentElement !== dialog) return;
    document.body.append(region);
    if (region.childElementCount) show(region);
  });
  return region;
}

/** @param {HTMLElement} region */
function show(region) {
  if (region.isConnected && !region.matches(":popover-open")) region.showPopover?.();
}
