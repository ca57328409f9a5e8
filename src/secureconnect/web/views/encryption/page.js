// The settings of encryption: one's identity, the recovery key, and the devices that read along.

import { app } from "../../app.js";
import { number, refused, t } from "../../i18n/index.js";
import { confirm, openDialog } from "../../parts/dialog.js";
import { h, Part, part, when } from "../../parts/dom.js";
import { field, submit } from "../../parts/form.js";
import { icon } from "../../parts/icons.js";
import { onEnd, signal } from "../../store/signal.js";
import { PersonKeys } from "./person.js";
import { verify } from "./verify.js";

/**
 * @typedef {import("../../crypto/index.js").Crypto} Crypto
 * @typedef {{ exists: boolean, canSign: boolean, isVerified: boolean }} Own
 * @typedef {{ version: string | null, isEnabled: boolean, keys: number, backedUp: number }} Backup
 */

export class EncryptionPage extends Part {
  /** @type {Crypto | null} */
  crypto = null;
  own = signal(/** @type {Own | null} */ (null));
  backup = signal(/** @type {Backup | null} */ (null));
  isStrict = signal(true);
  isBusy = signal(false);
  error = signal("");
  said = signal("");

  build() {
    const crypto = /** @type {Crypto} */ (this.crypto);
    const me = app.session.userId ?? "";
    void this.read();
    onEnd(crypto.on("backup", () => void this.read()));
    onEnd(crypto.on("trust", ({ userId }) => userId === me && void this.read()));
    return [
      h("p", null, t("encryption.explained")),
      h("p", { class: "problem", role: "alert", hidden: () => !this.error.value }, () => this.error.value),
      h("p", { class: "notice", role: "status", hidden: () => !this.said.value }, () => this.said.value),
      h("h3", null, t("encryption.identity")),
      () => this.identity(this.own.value, me),
      h("h3", null, t("encryption.recovery")),
      () => this.recovery(this.backup.value),
      h("h3", null, t("encryption.devices")),
      part(PersonKeys, { crypto, userId: me }),
      h(
        "label",
        { class: "check" },
        h("input", {
          type: "checkbox",
          checked: () => this.isStrict.value,
          onchange: (/** @type {any} */ event) => this.run(() => crypto.setStrict(event.target.checked)),
        }),
        h("span", null, t("encryption.strict")),
      ),
    ];
  }

  async read() {
    const crypto = /** @type {Crypto} */ (this.crypto);
    try {
      [this.own.value, this.backup.value, this.isStrict.value] = await Promise.all([
        crypto.own(),
        crypto.backup.state(),
        crypto.isStrict(),
      ]);
    } catch (error) {
      this.error.value = refused(error);
    }
  }

  /**
   * @param {Own | null} own
   * @param {string} me
   */
  identity(own, me) {
    if (own === null) return h("p", null, t("common.loading"));
    const crypto = /** @type {Crypto} */ (this.crypto);
    if (!own.exists) {
      return [
        h("p", null, t("encryption.noIdentity")),
        h("button", { class: "primary", onclick: () => this.begin(false) }, t("encryption.makeIdentity")),
      ];
    }
    if (own.isVerified)
      return h("p", { class: "trust trust-verified" }, icon("shield"), t("encryption.isVerified"));
    return [
      h("p", { class: "trust trust-changed" }, icon("warning"), t("encryption.notVerified")),
      h(
        "div",
        { class: "row-actions" },
        h(
          "button",
          { class: "primary", onclick: () => this.run(() => verify(crypto, me)) },
          t("encryption.verifyOther"),
        ),
        h("button", { onclick: () => this.restore() }, t("encryption.useRecovery")),
        h("button", { class: "danger", onclick: () => this.begin(true) }, t("encryption.reset")),
      ),
    ];
  }

  /** @param {Backup | null} backup */
  recovery(backup) {
    if (backup === null) return null;
    const crypto = /** @type {Crypto} */ (this.crypto);
    const remove = async () => {
      const asked = { title: t("encryption.removeBackup"), text: t("encryption.removeBackupExplained") };
      if (await confirm({ ...asked, action: t("encryption.removeBackup"), isDanger: true }))
        await crypto.backup.remove();
    };
    return [
      h(
        "p",
        null,
        backup.isEnabled
          ? t("encryption.backedUp", { backedUp: backup.backedUp, keys: backup.keys })
          : t(backup.version ? "encryption.backupElsewhere" : "encryption.noBackup", {
              keys: number(backup.keys),
            }),
      ),
      h(
        "div",
        { class: "row-actions" },
        backup.isEnabled
          ? null
          : h(
              "button",
              { class: "primary", onclick: () => this.run(() => this.create()) },
              t("encryption.makeBackup"),
            ),
        backup.version && !backup.isEnabled
          ? h("button", { onclick: () => this.restore() }, t("encryption.useRecovery"))
          : null,
        backup.isEnabled
          ? h("button", { onclick: () => this.run(remove) }, t("encryption.removeBackup"))
          : null,
      ),
    ];
  }

  /** @param {boolean} reset in the place of an identity that is lost */
  async begin(reset) {
    const crypto = /** @type {Crypto} */ (this.crypto);
    const needsCode = signal(false);
    const problem = signal("");
    await openDialog(t(reset ? "encryption.reset" : "encryption.makeIdentity"), (close) =>
      h(
        "form",
        {
          onsubmit: async (/** @type {SubmitEvent} */ event) => {
            event.preventDefault();
            const given = new FormData(/** @type {HTMLFormElement} */ (event.target));
            const [password, totpCode] = ["password", "totp_code"].map((name) =>
              String(given.get(name) ?? ""),
            );
            this.isBusy.value = true;
            problem.value = "";
            try {
              await crypto.bootstrap({ password, totpCode: totpCode || undefined, reset });
              close();
            } catch (error) {
              const { code } = /** @type {{ code?: string }} */ (error);
              if (code === "TOTP_REQUIRED" && !needsCode.peek()) needsCode.value = true;
              else problem.value = refused(error);
            } finally {
              this.isBusy.value = false;
            }
          },
        },
        h("p", null, t(reset ? "encryption.resetExplained" : "encryption.makeExplained")),
        field(t("signin.password"), {
          name: "password",
          type: "password",
          autocomplete: "current-password",
          required: true,
        }),
        when(
          () => needsCode.value,
          () => field(t("signin.code"), { name: "totp_code", autocomplete: "one-time-code", required: true }),
        ),
        h("p", { class: "problem", role: "alert", hidden: () => !problem.value }, () => problem.value),
        submit(t(reset ? "encryption.reset" : "encryption.makeIdentity"), this.isBusy),
      ),
    );
    await this.read();
  }

  async create() {
    const key = await /** @type {Crypto} */ (this.crypto).backup.create();
    await openDialog(t("encryption.recoveryKey"), (close) => [
      h("p", null, t("encryption.recoveryKeyExplained")),
      h("code", { class: "secret" }, key),
      h(
        "footer",
        { class: "dialog-foot" },
        h("button", { onclick: () => navigator.clipboard.writeText(key) }, t("common.copy")),
        h("button", { class: "primary", onclick: () => close() }, t("encryption.kept")),
      ),
    ]);
  }

  async restore() {
    const crypto = /** @type {Crypto} */ (this.crypto);
    const problem = signal("");
    await openDialog(t("encryption.useRecovery"), (close) =>
      h(
        "form",
        {
          onsubmit: async (/** @type {SubmitEvent} */ event) => {
            event.preventDefault();
            const given = new FormData(/** @type {HTMLFormElement} */ (event.target));
            this.isBusy.value = true;
            problem.value = "";
            try {
              const { imported } = await crypto.backup.restore(String(given.get("key")));
              this.said.value = t("encryption.restored", { count: imported });
              close();
            } catch (error) {
              problem.value = refused(error);
            } finally {
              this.isBusy.value = false;
            }
          },
        },
        field(t("encryption.recoveryKey"), {
          name: "key",
          required: true,
          autocomplete: "off",
          spellcheck: "false",
        }),
        h("p", { class: "problem", role: "alert", hidden: () => !problem.value }, () => problem.value),
        submit(t("encryption.restore"), this.isBusy),
      ),
    );
    await this.read();
  }

  /** @param {() => Promise<void>} work */
  async run(work) {
    this.error.value = "";
    try {
      await work();
      await this.read();
    } catch (error) {
      this.error.value = refused(error);
    }
  }
}

customElements.define("sc-encryption-page", EncryptionPage);
