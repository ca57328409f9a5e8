// How one signs in: address, password, second factor.

import { app } from "../../app.js";
import { t } from "../../i18n/index.js";
import { h, Part, when } from "../../parts/dom.js";
import { field, form, newPasswordField } from "../../parts/form.js";
import { toast } from "../../parts/toast.js";
import { signal } from "../../store/signal.js";
import { askAgain } from "../signin/card.js";
import { proofField, proofOf, section, told } from "./page.js";
import { SecondFactor } from "./second-factor.js";

export class Page extends Part {
  /** a new address that is to be confirmed */
  waitsFor = signal("");

  build() {
    return [
      section(
        t("settings.email"),
        told(
          () => app.learnMe(),
          (user) => this.address(user),
        ),
      ),
      section(t("settings.password"), password()),
      section(t("settings.secondFactor"), new SecondFactor()),
    ];
  }

  /** @param {import("../../store/types.js").User} user */
  address({ email = "", email_verified }) {
    const run = async (/** @type {any} */ given, /** @type {HTMLFormElement} */ element) => {
      const body = { email: given.email, ...proofOf(given) };
      await app.client.ask("POST", "/v1/users/me/email", { body });
      this.waitsFor.value = given.email;
      element.reset();
    };
    return [
      h(
        "p",
        null,
        h("strong", null, email),
        " ",
        h("small", null, email_verified ? t("settings.confirmed") : t("settings.notConfirmed")),
      ),
      when(
        () => !email_verified && app.state.server.value?.sends_mail,
        () => h("p", null, askAgain(email, t("settings.confirmIt"))),
      ),
      () =>
        this.waitsFor.value
          ? h(
              "p",
              { class: "notice", role: "status" },
              t("settings.emailSent", { email: this.waitsFor.value }),
            )
          : null,
      h(
        "details",
        null,
        h("summary", null, t("settings.changeEmail")),
        form(
          { action: t("settings.changeEmail"), run },
          field(t("settings.newEmail"), {
            name: "email",
            type: "email",
            autocomplete: "email",
            required: true,
          }),
          proofField(),
        ),
      ),
    ];
  }
}

function password() {
  const run = async (/** @type {any} */ given, /** @type {HTMLFormElement} */ element) => {
    const body = { new_password: given.new_password, ...proofOf(given) };
    await app.client.ask("POST", "/v1/users/me/password", { body });
    element.reset();
    toast(t("settings.passwordChanged"));
  };
  return h(
    "details",
    null,
    h("summary", null, t("settings.changePassword")),
    h("p", null, h("small", null, t("settings.passwordHint"))),
    form(
      { action: t("settings.changePassword"), run },
      proofField(),
      newPasswordField(t("settings.newPassword"), "new_password"),
    ),
  );
}

customElements.define("sc-settings-account", Page);
