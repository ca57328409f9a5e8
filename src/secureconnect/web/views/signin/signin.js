// Where one signs in, or makes an account.

import { app } from "../../app.js";
import { moment, refused, t } from "../../i18n/index.js";
import { focus, h, Part, when } from "../../parts/dom.js";
import { field, form, newPasswordField, passwordField, USERNAME } from "../../parts/form.js";
import { ENTRANCES } from "../../router.js";
import { computed, signal } from "../../store/signal.js";
import { askAgain, frame } from "./card.js";

export class SignIn extends Part {
  /** the address that a mail was sent to, which confirms it */
  waitsFor = signal("");

  build() {
    const { place } = app.router;
    const isNew = computed(() => ["sign-up", "invite"].includes(place.value.name));
    return frame(() => {
      if (this.waitsFor.value) return lookIntoMail(this.waitsFor.value);
      return isNew.value ? this.signUp() : this.signIn();
    });
  }

  signIn() {
    const { session, router, state } = app;
    return [
      h("h2", null, t("signin.signIn")),
      () => notice(session.ended.value),
      form(
        {
          action: t("signin.signIn"),
          run: (given) => enter(session.signIn(signInOf(given))),
          refusals: REFUSALS,
        },
        field(t("signin.name"), {
          name: "name",
          autocomplete: "username",
          autocapitalize: "off",
          spellcheck: "false",
          required: true,
          ref: focus,
        }),
        passwordField(t("signin.password"), { name: "password", autocomplete: "current-password" }),
      ),
      h("footer", { class: "signin-foot" }, h("a", { href: "/reset" }, t("signin.forgot")), () =>
        state.server.value?.registration === "closed" || router.place.value.name === "verify"
          ? null
          : h("p", null, t("signin.noAccount"), " ", h("a", { href: "/sign-up" }, t("signin.signUp"))),
      ),
    ];
  }

  signUp() {
    const { session, router, state } = app;
    const { params, hash } = router.place.peek();
    const invite = new URLSearchParams(hash).get("code") ?? params.code ?? "";
    const registration = () => (invite ? "invite" : (state.server.value?.registration ?? "open"));
    const run = async (/** @type {any} */ given) => {
      if (await session.register(given)) router.go("/", { replace: true });
      else this.waitsFor.value = given.email;
    };
    return [
      h("h2", null, t("signin.signUp")),
      when(
        () => registration() === "closed",
        () => h("p", { class: "notice" }, t("signin.closed")),
        () =>
          form(
            { action: t("signin.signUp"), run },
            when(
              () => registration() === "invite",
              () => inviteField(invite),
            ),
            field(
              t("signin.username"),
              { name: "username", autocomplete: "username", ...USERNAME, ref: focus },
              t("signin.usernameHint"),
            ),
            field(
              t("signin.email"),
              { name: "email", type: "email", autocomplete: "email", required: true },
              t("signin.emailHint"),
            ),
            newPasswordField(t("signin.password"), "password"),
          ),
      ),
      h(
        "footer",
        { class: "signin-foot" },
        h("p", null, t("signin.haveAccount"), " ", h("a", { href: "/sign-in" }, t("signin.signIn"))),
      ),
    ];
  }
}

/** @param {string} code */
function inviteField(code) {
  const props = { name: "invite_code", required: true, value: code, autocomplete: "off" };
  return field(t("signin.invite"), props, t("signin.inviteHint"));
}

/** @param {string | null} ended why the last session is over */
function notice(ended) {
  const isChange = app.router.place.value.name === "verify";
  const text = isChange ? t("signin.signInToGoOn") : ended === null ? "" : refused({ code: ended });
  return text ? h("p", { class: "notice", role: "status" }, text) : null;
}

/** @param {Record<string, string>} given */
function signInOf({ name, password, totp_code }) {
  return { name: name.trim(), password, totp_code };
}

/** @param {Promise<unknown>} signingIn */
async function enter(signingIn) {
  await signingIn;
  if (ENTRANCES.has(app.router.place.peek().name)) app.router.go("/", { replace: true });
}

/** @param {string} email */
function lookIntoMail(email) {
  return [
    h("h2", { tabindex: -1, ref: focus }, t("signin.lookIntoMail")),
    h("p", null, t("signin.mailSent", { email })),
    h("p", null, h("small", null, t("signin.nothingCame"))),
    h(
      "footer",
      { class: "form-foot" },
      askAgain(email),
      h("a", { href: "/sign-in", class: "button" }, t("signin.signIn")),
    ),
  ];
}

const REFUSALS = {
  /** @param {{ details?: Record<string, any> }} error */
  ACCOUNT_BANNED({ details }) {
    const { reason = null, until: end = null } = details ?? {};
    const until = end && moment(end);
    if (reason && until) return t("signin.bannedWhyUntil", { reason, until });
    if (reason) return t("signin.bannedWhy", { reason });
    return until ? t("signin.bannedUntil", { until }) : t("signin.banned");
  },
};

customElements.define("sc-signin", SignIn);
