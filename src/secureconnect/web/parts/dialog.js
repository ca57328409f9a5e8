// What is asked or shown over the page, and holds the focus until it is closed.

import { h } from "./dom.js";
import { t } from "../i18n/index.js";
import { icon } from "./icons.js";
import { scope } from "../store/signal.js";

/** @typedef {import("./dom.js").Child} Child */

/** @type {Set<() => void>} those that are open */
const open = new Set();

/**
 * A dialog with a title, and the answer it is closed with; undefined: it was left by Esc, by a click beside it, or
 * because the page went elsewhere. The focus goes back to where it was.
 * @template T
 * @param {string} title
 * @param {(close: (answer?: T) => void) => Child} build
 * @param {{ class?: string, isHeadless?: boolean }} [how] isHeadless: the title is there for screen readers alone
 * @returns {Promise<T | undefined>}
 */
export function openDialog(title, build, { class: kind = "", isHeadless = false } = {}) {
  return new Promise((resolve) => {
    /** @type {T | undefined} */
    let answer;
    const [dialog, end] = scope(() => {
      const made = h("dialog", { class: `dialog ${kind}`, "aria-label": title });
      const close = (/** @type {T | undefined} */ given) => {
        answer = given;
        made.close();
      };
      made.append(
        h(
          "div",
          { class: "dialog-body" },
          h(
            "header",
            { class: isHeadless ? "hidden" : "dialog-head" },
            h("h2", null, title),
            isHeadless
              ? null
              : h(
                  "button",
                  { class: "icon-button", "aria-label": t("common.close"), onclick: () => close(undefined) },
                  icon("close"),
                ),
          ),
          build(close),
        ),
      );
      return made;
    });
    const leave = () => dialog.close();
    dialog.addEventListener("click", (event) => event.target === dialog && leave());
    dialog.addEventListener("close", () => {
      open.delete(leave);
      dialog.remove();
      end();
      resolve(answer);
    });
    open.add(leave);
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** The page goes elsewhere. */
export function closeDialogs() {
  for (const leave of [...open]) leave();
}

/**
 * Whether it is to be done.
 * @param {{ title: string, text: Child, action: string, isDanger?: boolean }} what action: the word on the button
 * @returns {Promise<boolean>}
 */
export async function confirm({ title, text, action, isDanger = false }) {
  const answer = await openDialog(title, (/** @type {(answer?: boolean) => void} */ close) => [
    h("p", null, text),
    h(
      "footer",
      { class: "dialog-foot" },
      h("button", { onclick: () => close(false), autofocus: isDanger }, t("common.cancel")),
      h(
        "button",
        { class: isDanger ? "danger" : "primary", onclick: () => close(true), autofocus: !isDanger },
        action,
      ),
    ),
  ]);
  return answer ?? false;
}
