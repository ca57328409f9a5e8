// Signing in, or making an account.

import { app } from "../../app.js";
import { refused, t } from "../../i18n/index.js";
import { field, submit } from "../../parts/form.js";
import { focus, h, Part, when } from "../../parts/dom.js";
import { icon } from "../../parts/icons.js";
import { signal } from "../../store/signal.js";

export class SignIn extends Part {
  error = signal("");
  isBusy = signal(false);
  needsCode = signal(false);

  build() {
    const isNew = () => ["sign-up", "invite"].includes(app.router.place.value.name);
    return h(
      "main",
      { class: "signin" },
      h(
        "div",
        { class: "signin-card" },
        h("h1", null, icon("logo"), "SecureConnect"),
        when(
          isNew,
          () => this.signUp(),
          () => this.signIn(),
        ),
      ),
    );
  }

  signIn() {
    return h(
      "form",
      {
        onsubmit: (/** @type {SubmitEvent} */ event) => this.run(event, (given) => app.session.signIn(given)),
      },
      h("h2", null, t("signin.signIn")),
      () =>
        app.session.ended.value
          ? h("p", { class: "notice" }, refused({ code: app.session.ended.value }))
          : null,
      field(t("signin.name"), { name: "name", autocomplete: "username", required: true }),
      field(t("signin.password"), {
        name: "password",
        type: "password",
        autocomplete: "current-password",
        required: true,
      }),
      when(
        () => this.needsCode.value,
        () =>
          field(t("signin.code"), {
            name: "totp_code",
            autocomplete: "one-time-code",
            required: true,
            ref: focus,
          }),
      ),
      this.problem(),
      submit(t("signin.signIn"), this.isBusy),
      h("p", null, t("signin.noAccount"), " ", h("a", { href: "/sign-up" }, t("signin.signUp"))),
    );
  }

  signUp() {
    const invite = app.router.place.peek().hash || app.router.place.peek().params.code || "";
    const needsInvite = () => app.state.server.value?.registration === "invite" || invite !== "";
    return h(
      "form",
      {
        onsubmit: (/** @type {SubmitEvent} */ event) =>
          this.run(event, (given) => app.session.register(given)),
      },
      h("h2", null, t("signin.signUp")),
      field(t("signin.username"), {
        name: "username",
        autocomplete: "username",
        required: true,
        minlength: 3,
        maxlength: 50,
      }),
      field(t("signin.email"), { name: "email", type: "email", autocomplete: "email", required: true }),
      field(t("signin.password"), {
        name: "password",
        type: "password",
        autocomplete: "new-password",
        required: true,
        minlength: 8,
      }),
      when(needsInvite, () =>
        field(t("signin.invite"), { name: "invite_code", required: true, value: invite }),
      ),
      this.problem(),
      submit(t("signin.signUp"), this.isBusy),
      h("p", null, t("signin.haveAccount"), " ", h("a", { href: "/sign-in" }, t("signin.signIn"))),
    );
  }

  problem() {
    return h(
      "p",
      { class: "problem", role: "alert", hidden: () => !this.error.value },
      () => this.error.value,
    );
  }

  /**
   * @param {SubmitEvent} event
   * @param {(given: any) => Promise<any>} work
   */
  async run(event, work) {
    event.preventDefault();
    const form = /** @type {HTMLFormElement} */ (event.target);
    this.error.value = "";
    this.isBusy.value = true;
    try {
      await work(Object.fromEntries(new FormData(form)));
      if (["sign-in", "sign-up", "invite"].includes(app.router.place.peek().name))
        app.router.go("/", { replace: true });
    } catch (error) {
      const { code } = /** @type {{ code?: string }} */ (error);
      if (code === "TOTP_REQUIRED" && !this.needsCode.peek()) this.needsCode.value = true;
      else this.error.value = refused(error);
    } finally {
      this.isBusy.value = false;
    }
  }
}

customElements.define("sc-signin", SignIn);
