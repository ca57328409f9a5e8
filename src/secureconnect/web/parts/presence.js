// Whether somebody is here: a mark of a shape of its own for each, and its word.

import { t } from "../i18n/index.js";
import { h } from "./dom.js";

/**
 * @param {() => string | null | undefined} status null: nothing is known, and nothing shown
 */
export function presenceMark(status) {
  return h(
    "span",
    { class: () => `presence presence-${status() ?? "unknown"}` },
    h("span", { class: "hidden" }, () => (status() ? t(`home.presence.${status()}`) : "")),
  );
}
