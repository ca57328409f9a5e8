// A menu that opens at a button or a point: arrow keys, Home, End and first letters move in it, Escape and a press beside
// it close it, and the focus goes back to where it was.

import { icon } from "./icons.js";
import { h } from "./dom.js";

/**
 * @typedef {object} Choice
 * @property {string} label
 * @property {string} [icon]
 * @property {boolean} [isDanger]
 * @property {boolean} [isDisabled]
 * @property {() => void} run
 */

/** @typedef {{ x: number, y: number }} Point */

const MARGIN_PX = 8; // to the edge of the window

/** @type {(() => void) | null} */
let closeOpen = null;

/**
 * @param {Element | Point} where
 * @param {string} label what it is a menu of
 * @param {readonly (Choice | null | false)[]} choices what is null or false is left out
 * @param {Element | null} [top] shown above the choices
 */
export function openMenu(where, label, choices, top = null) {
  closeOpen?.();
  const before = /** @type {HTMLElement | null} */ (document.activeElement);
  const buttons = choices
    .filter((each) => each !== null && each !== false)
    .map((choice) => button(choice, close));
  const menu = h(
    "div",
    {
      class: "menu",
      popover: "auto",
      onkeydown: (/** @type {KeyboardEvent} */ event) => move(event, buttons),
    },
    top,
    h("div", { role: "menu", "aria-label": label }, ...buttons),
  );
  menu.addEventListener("toggle", (event) => {
    if (/** @type {ToggleEvent} */ (event).newState === "closed") end();
  });

  function close() {
    if (menu.isConnected) menu.hidePopover();
    end();
  }

  function end() {
    if (!menu.isConnected) return;
    const hasFocus = menu.contains(document.activeElement) || document.activeElement === document.body;
    menu.remove();
    if (closeOpen === close) closeOpen = null;
    if (where instanceof Element) where.removeAttribute("aria-expanded");
    if (hasFocus && before?.isConnected) before.focus({ preventScroll: true });
  }

  closeOpen = close;
  const host = before?.closest("dialog[open]") ?? document.body; // what is outside an open dialog is inert
  host.append(menu);
  menu.showPopover();
  place(menu, where instanceof Element ? where.getBoundingClientRect() : new DOMRect(where.x, where.y, 0, 0));
  if (where instanceof Element) where.setAttribute("aria-expanded", "true");
  buttons[0]?.focus({ preventScroll: true });
  return close;
}

/**
 * @param {Choice} choice
 * @param {() => void} close
 */
function button(choice, close) {
  return h(
    "button",
    {
      type: "button",
      role: "menuitem",
      tabindex: "-1",
      class: choice.isDanger ? "menu-item danger-text" : "menu-item",
      "aria-disabled": choice.isDisabled ? "true" : null,
      onclick: () => {
        if (choice.isDisabled) return;
        close();
        choice.run();
      },
    },
    choice.icon ? icon(choice.icon) : null,
    h("span", null, choice.label),
  );
}

/**
 * Below where it was opened, or above where there is more room.
 * @param {HTMLElement} menu
 * @param {DOMRect} at
 */
export function place(menu, at) {
  const { width, height } = menu.getBoundingClientRect();
  const below = innerHeight - at.bottom;
  const top = below >= height + MARGIN_PX || below >= at.top ? at.bottom : at.top - height;
  const isRight = getComputedStyle(menu).direction === "ltr" && at.left + width > innerWidth - MARGIN_PX;
  const left = isRight ? at.right - width : at.left;
  menu.style.setProperty("top", `${clamp(top, innerHeight - height - MARGIN_PX)}px`);
  menu.style.setProperty("left", `${clamp(left, innerWidth - width - MARGIN_PX)}px`);
}

/**
 * @param {number} value
 * @param {number} most
 */
function clamp(value, most) {
  return Math.max(MARGIN_PX, Math.min(value, most));
}

/**
 * @param {KeyboardEvent} event
 * @param {HTMLElement[]} buttons
 */
function move(event, buttons) {
  const at = buttons.indexOf(/** @type {HTMLElement} */ (document.activeElement));
  const to = target(event.key, at, buttons);
  if (to === null) return;
  event.preventDefault();
  event.stopPropagation();
  buttons.at(to)?.focus();
}

/**
 * @param {string} key
 * @param {number} at
 * @param {HTMLElement[]} buttons
 */
function target(key, at, buttons) {
  const { length } = buttons;
  if (key === "ArrowDown") return (at + 1) % length;
  if (key === "ArrowUp") return at < 0 ? -1 : (at - 1 + length) % length;
  if (key === "Home") return 0;
  if (key === "End") return -1;
  if (key.length !== 1 || key === " ") return null;
  const found = buttons.findIndex((each, place) => place > at && startsWith(each, key));
  const any = found < 0 ? buttons.findIndex((each) => startsWith(each, key)) : found;
  return any < 0 ? null : any;
}

/**
 * @param {HTMLElement} button
 * @param {string} letter
 */
function startsWith(button, letter) {
  return button.textContent?.trim().toLowerCase().startsWith(letter.toLowerCase()) ?? false;
}
