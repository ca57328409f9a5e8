// The second factor: turned on with an authenticator app, its recovery codes, and turned off.

import { app } from "../../app.js";
import { t } from "../../i18n/index.js";
import { focus, h, Part, svg } from "../../parts/dom.js";
import { field, form } from "../../parts/form.js";
import { MOST_BYTES, qrOf } from "../../parts/qr.js";
import { toast } from "../../parts/toast.js";
import { signal } from "../../store/signal.js";
import { proofField, proofOf, told } from "./page.js";

/** @typedef {{ is_on: boolean, recovery_codes_left: number | null }} Factor */
/** @typedef {{ secret: string, otpauth_uri: string }} Begun */

const BORDER = 4; // light modules around a QR code, as its standard asks for

export class SecondFactor extends Part {
  /** counts up when it is to be looked at anew */
  turn = signal(0);
  begun = signal(/** @type {Begun | null} */ (null));
  /** told once */
  codes = signal(/** @type {readonly string[]} */ ([]));

  build() {
    return () => {
      if (this.codes.value.length) return this.shown(this.codes.value);
      if (this.begun.value) return this.confirm(this.begun.value);
      void this.turn.value;
      const ask = () => app.client.ask("GET", "/v1/auth/totp");
      return told(ask, (/** @type {Factor} */ factor) => (factor.is_on ? this.on(factor) : this.off()));
    };
  }

  off() {
    const run = async (/** @type {any} */ given) => {
      this.begun.value = await app.client.ask("POST", "/v1/auth/totp/enroll", { body: proofOf(given) });
    };
    return [
      h("p", null, t("settings.factorOff")),
      h(
        "details",
        null,
        h("summary", null, t("settings.turnOn")),
        form({ action: t("settings.goOn"), run }, proofField()),
      ),
    ];
  }

  /** @param {Begun} begun */
  confirm({ secret, otpauth_uri }) {
    const run = async (/** @type {any} */ { totp_code }) => {
      const body = { code: totp_code };
      this.codes.value = (await app.client.ask("POST", "/v1/auth/totp/confirm", { body })).recovery_codes;
      this.begun.value = null;
    };
    const digits = {
      name: "totp_code",
      inputmode: "numeric",
      autocomplete: "one-time-code",
      required: true,
      maxlength: 12,
    };
    const refusals = { TOTP_INVALID: () => t("settings.codeWrong"), NOT_FOUND: () => t("settings.tooLate") };
    const stop = () => (this.begun.value = null);
    return [
      h("p", { tabindex: -1, ref: focus }, t("settings.addToApp")),
      pictureOf(otpauth_uri),
      h("p", null, h("a", { class: "button", href: otpauth_uri }, t("settings.openApp"))),
      h(
        "p",
        null,
        h("small", null, t("settings.orType")),
        h("br"),
        h("code", { class: "secret" }, inGroups(secret)),
      ),
      form(
        {
          action: t("settings.turnOn"),
          run,
          refusals,
          beside: h("button", { type: "button", onclick: stop }, t("common.cancel")),
        },
        field(t("settings.firstCode"), digits, t("settings.othersEnd")),
      ),
    ];
  }

  /** @param {readonly string[]} codes */
  shown(codes) {
    const text = codes.join("\n");
    const copy = async () => {
      await navigator.clipboard.writeText(text);
      toast(t("settings.copied"));
    };
    const done = () => {
      this.codes.value = [];
      this.turn.value += 1;
    };
    return h(
      "div",
      { class: "codes-shown" },
      h("p", { tabindex: -1, ref: focus }, h("strong", null, t("settings.codesTitle"))),
      h("p", null, t("settings.codesHint")),
      h(
        "ul",
        { class: "codes", "aria-label": t("settings.codes") },
        codes.map((code) => h("li", null, h("code", null, code))),
      ),
      h(
        "footer",
        { class: "form-foot" },
        // without TLS browsers have no clipboard
        navigator.clipboard ? h("button", { type: "button", onclick: copy }, t("settings.copy")) : null,
        h(
          "a",
          { class: "button", download: "secureconnect-recovery-codes.txt", href: fileOf(text) },
          t("settings.download"),
        ),
        h("button", { type: "button", class: "primary", onclick: done }, t("settings.codesKept")),
      ),
    );
  }

  /** @param {Factor} factor */
  on({ recovery_codes_left }) {
    const renew = async (/** @type {any} */ given) => {
      const body = proofOf(given);
      this.codes.value = (
        await app.client.ask("POST", "/v1/auth/totp/recovery-codes", { body })
      ).recovery_codes;
    };
    const turnOff = async (/** @type {any} */ given) => {
      await app.client.ask("DELETE", "/v1/auth/totp", { body: proofOf(given) });
      this.turn.value += 1;
      toast(t("settings.turnedOff"));
    };
    return [
      h("p", null, t("settings.factorOn"), " ", t("settings.codesLeft", { count: recovery_codes_left ?? 0 })),
      h(
        "details",
        null,
        h("summary", null, t("settings.newCodes")),
        form({ action: t("settings.newCodes"), run: renew, asksCode: true }, proofField()),
      ),
      h(
        "details",
        null,
        h("summary", null, t("settings.turnOff")),
        form({ action: t("settings.turnOff"), run: turnOff, asksCode: true, isDanger: true }, proofField()),
      ),
    ];
  }
}

/**
 * What the app scans; null where the name of the server is too long for it.
 * @param {string} uri
 */
function pictureOf(uri) {
  if (new TextEncoder().encode(uri).length > MOST_BYTES) return null;
  const rows = qrOf(uri);
  const all = rows.length + 2 * BORDER;
  const dark = rows.flatMap((row, y) =>
    row.map((isDark, x) => (isDark ? `M${x + BORDER} ${y + BORDER}h1v1h-1z` : "")),
  );
  const attributes = {
    class: "qr",
    viewBox: `0 0 ${all} ${all}`,
    role: "img",
    "aria-label": t("settings.scan"),
  };
  return svg("svg", attributes, svg("path", { d: dark.join("") }));
}

/** @param {string} secret */
function inGroups(secret) {
  return (secret.match(/.{1,4}/g) ?? []).join(" ");
}

/** @param {string} text */
function fileOf(text) {
  return `data:text/plain;charset=utf-8,${encodeURIComponent(text)}`;
}

customElements.define("sc-second-factor", SecondFactor);
