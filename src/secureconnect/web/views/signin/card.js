// What all the ways in share: the page around a card, and the button for another mail.

import { app } from "../../app.js";
import { refused, t } from "../../i18n/index.js";
import { h } from "../../parts/dom.js";
import { icon } from "../../parts/icons.js";
import { toast } from "../../parts/toast.js";
import { signal } from "../../store/signal.js";

/**
 * The page around a card: what this is, for who has never heard of it.
 * @param {() => import("../../parts/dom.js").Child} content of the card
 */
export function frame(content) {
  const { server } = app.state;
  return h(
    "main",
    { class: "signin" },
    h(
      "header",
      { class: "signin-welcome" },
      h("h1", null, icon("logo"), "SecureConnect"),
      h("p", { class: "signin-what" }, t("signin.what")),
      h("p", null, t("signin.how")),
      () =>
        server.value
          ? h("p", null, h("small", null, t("signin.server", { name: server.value.server_name })))
          : null,
    ),
    h("section", { class: "signin-card" }, content),
  );
}

/**
 * A button that has the mail sent again which confirms an address.
 * @param {string} email
 * @param {string} [text] on it
 */
export function askAgain(email, text = t("signin.again")) {
  const isBusy = signal(false);
  const ask = async () => {
    isBusy.value = true;
    try {
      await app.client.ask("POST", "/v1/auth/email/verify/request", { body: { email }, anonymous: true });
      toast(t("signin.sentAgain"));
    } catch (error) {
      toast(refused(error));
    } finally {
      isBusy.value = false;
    }
  };
  return h("button", { type: "button", disabled: () => isBusy.value, onclick: ask }, text);
}
