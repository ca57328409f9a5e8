// What the links in mails lead to: an address that is confirmed, and a new password. One may be signed in or not.

import { app } from "../../app.js";
import { refused, t } from "../../i18n/index.js";
import { focus, h, Part } from "../../parts/dom.js";
import { field, form, newPasswordField, whose } from "../../parts/form.js";
import { toast } from "../../parts/toast.js";
import { signal } from "../../store/signal.js";
import { frame } from "./card.js";

export class Verify extends Part {
  state = signal(/** @type {"asking" | "done" | "wrong"} */ ("asking"));
  error = signal("");
  isChange = false;

  build() {
    const given = new URLSearchParams(app.router.place.peek().hash);
    this.isChange = given.has("change");
    const token = given.get("change") ?? given.get("token");
    if (token === null) this.state.value = "wrong";
    else void this.#confirm(token);
    return frame(() => [
      h("h2", { tabindex: -1, ref: focus }, t("signin.confirm")),
      () => {
        if (this.state.value === "asking") return h("p", { role: "status" }, t("signin.confirming"));
        return this.state.value === "done" ? this.done() : this.wrong();
      },
    ]);
  }

  /** @param {string} token */
  async #confirm(token) {
    const path = this.isChange ? "/v1/users/me/email/verify" : "/v1/auth/email/verify";
    try {
      await app.client.ask("POST", path, { body: { token }, anonymous: !this.isChange });
      app.router.go("/verify", { replace: true }); // it is used up
      this.state.value = "done";
      if (app.session.userId !== null) await app.learnMe();
    } catch (error) {
      this.error.value = refused(error);
      this.state.value = "wrong";
    }
  }

  done() {
    return [h("p", { role: "status" }, this.isChange ? t("signin.changed") : t("signin.confirmed")), goOn()];
  }

  wrong() {
    const askNew = async (/** @type {any} */ { email }) => {
      await app.client.ask("POST", "/v1/auth/email/verify/request", { body: { email }, anonymous: true });
      toast(t("signin.sentAgain"));
    };
    return [
      this.error.value ? h("p", { class: "problem", role: "alert" }, this.error.value) : null,
      this.isChange
        ? h("a", { class: "button", href: "/settings/account" }, t("signin.goOn"))
        : form({ action: t("signin.askAgain"), run: askNew }, addressField()),
      goOn(),
    ];
  }
}

export class Reset extends Part {
  /** where the link went */
  sentTo = signal("");
  isDone = signal(false);

  build() {
    const token = new URLSearchParams(app.router.place.peek().hash).get("token");
    return frame(() => {
      if (this.isDone.value) return this.done();
      if (this.sentTo.value) return this.sent(this.sentTo.value);
      return [
        h("h2", null, t("signin.reset")),
        token === null ? this.ask() : this.choose(token),
        h("footer", { class: "signin-foot" }, back()),
      ];
    });
  }

  ask() {
    const run = async (/** @type {any} */ { email }) => {
      await app.client.ask("POST", "/v1/auth/password-reset/request", { body: { email }, anonymous: true });
      this.sentTo.value = email;
    };
    return form({ action: t("signin.resetSend"), run }, addressField(t("signin.resetHint")));
  }

  /** @param {string} email */
  sent(email) {
    return [
      h("h2", { tabindex: -1, ref: focus }, t("signin.lookIntoMail")),
      h("p", null, t("signin.resetSent", { email })),
      h("p", null, h("small", null, t("signin.nothingCame"))),
      h("footer", { class: "signin-foot" }, back()),
    ];
  }

  /** @param {string} token */
  choose(token) {
    const run = async (/** @type {any} */ { new_password }) => {
      const body = { token, new_password };
      await app.client.ask("POST", "/v1/auth/password-reset/confirm", { body, anonymous: true });
      app.session.leave(); // its session has ended, too
      this.isDone.value = true;
    };
    return form(
      { action: t("signin.reset"), run },
      whose(),
      newPasswordField(t("signin.newPassword"), "new_password"),
    );
  }

  done() {
    return [
      h("h2", { tabindex: -1, ref: focus }, t("signin.reset")),
      h("p", { role: "status" }, t("signin.resetDone")),
      h("a", { class: "button", href: "/sign-in" }, t("signin.signIn")),
    ];
  }
}

/** @param {string} [hint] */
function addressField(hint) {
  const props = { name: "email", type: "email", autocomplete: "email", required: true, ref: focus };
  return field(t("signin.email"), props, hint);
}

function back() {
  return h("a", { href: "/sign-in" }, t("signin.back"));
}

function goOn() {
  return h("a", { class: "button", href: "/" }, t("signin.goOn"));
}

customElements.define("sc-verify", Verify);
customElements.define("sc-reset", Reset);
