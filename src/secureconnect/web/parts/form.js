// What forms are made of.

import { h } from "./dom.js";

/**
 * A labelled input, with a hint under it if there is one.
 * @param {string} label
 * @param {import("./dom.js").Props} props of the input
 * @param {string} [hint]
 */
export function field(label, props, hint) {
  return h(
    "label",
    { class: "field" },
    h("span", null, label),
    h("input", props),
    hint ? h("small", null, hint) : null,
  );
}

/**
 * The button of a form; while it is busy it cannot be pressed again.
 * @param {string} text
 * @param {{ value: boolean }} isBusy
 */
export function submit(text, isBusy) {
  return h(
    "button",
    { class: "primary", disabled: () => isBusy.value, "aria-busy": () => isBusy.value || null },
    text,
  );
}
