// What the pages of the settings are made of.

import { app } from "../../app.js";
import { refused, t } from "../../i18n/index.js";
import { h } from "../../parts/dom.js";
import { passwordField, whose } from "../../parts/form.js";
import { signal, untracked } from "../../store/signal.js";

/** @typedef {import("../../parts/dom.js").Child} Child */

/**
 * @param {string} title
 * @param {...Child} children
 */
export function section(title, ...children) {
  return h("section", { class: "settings-section" }, h("h3", null, title), ...children);
}

/**
 * What is made of an answer of the server's, once there is one; or why there is none, and a button to ask again.
 * @template T
 * @param {() => Promise<T>} ask
 * @param {(answer: T) => Child} make
 * @returns {() => Child}
 */
export function told(ask, make) {
  const answer = signal(/** @type {{ is: T } | null} */ (null));
  const error = signal("");
  const run = async () => {
    error.value = "";
    try {
      answer.value = { is: await ask() };
    } catch (refusal) {
      error.value = refused(refusal);
    }
  };
  void run();
  return () => {
    if (error.value) {
      return [
        h("p", { class: "problem", role: "alert" }, error.value),
        h("button", { type: "button", onclick: run }, t("common.again")),
      ];
    }
    const found = answer.value;
    return found === null
      ? h("p", { "aria-busy": "true" }, t("common.loading"))
      : untracked(() => make(found.is));
  };
}

/** The field for the password one has, which a stolen session does not know. */
export function proofField() {
  const props = { name: "password", autocomplete: "current-password" };
  return [whose(app.state.me.peek()?.username), passwordField(t("settings.yourPassword"), props)];
}

/**
 * What the server wants to see of it.
 * @param {Record<string, string>} given
 */
export function proofOf({ password, totp_code }) {
  return totp_code ? { password, totp_code } : { password };
}
