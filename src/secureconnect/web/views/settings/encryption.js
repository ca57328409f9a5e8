// Encryption: one's identity, the recovery key, and the devices that read along.

import { app } from "../../app.js";
import { refused, t } from "../../i18n/index.js";
import { confirm, openDialog } from "../../parts/dialog.js";
import { h, Part, part } from "../../parts/dom.js";
import { field, form, switchField } from "../../parts/form.js";
import { icon } from "../../parts/icons.js";
import { toast } from "../../parts/toast.js";
import { effect, signal, untracked } from "../../store/signal.js";
import { loadEncryption } from "../encryption/door.js";
import { PersonKeys } from "../encryption/person.js";
import { verify } from "../encryption/verify.js";
import { proofField, section, told } from "./page.js";

/**
 * @typedef {import("../../crypto/index.js").Crypto} Crypto
 * @typedef {{ exists: boolean, canSign: boolean, isVerified: boolean }} Own
 * @typedef {{ version: string | null, isEnabled: boolean, keys: number, backedUp: number }} Backup
 */

export class Page extends Part {
  build() {
    const open = async () => {
      const [crypto] = await Promise.all([app.mine.secrecy.crypto(), loadEncryption()]);
      await crypto.ready();
      return crypto;
    };
    return told(open, (crypto) => part(Encryption, { crypto }));
  }
}

class Encryption extends Part {
  crypto = /** @type {Crypto} */ (/** @type {unknown} */ (null));
  own = signal(/** @type {Own | null} */ (null));
  backup = signal(/** @type {Backup | null} */ (null));
  isStrict = signal(true);
  error = signal("");

  build() {
    const { crypto } = this;
    const me = app.session.userId ?? "";
    effect(() => {
      void app.mine.secrecy.changes.value;
      untracked(() => void this.read());
    });
    return [
      h("p", null, t("encryption.explained")),
      h("p", { class: "problem", role: "alert", hidden: () => !this.error.value }, () => this.error.value),
      section(t("encryption.identity"), () => this.identity(this.own.value, me)),
      section(t("encryption.recovery"), () => this.recovery(this.backup.value)),
      section(
        t("encryption.devices"),
        part(PersonKeys, { crypto, userId: me }),
        switchField(t("encryption.strict"), {
          checked: () => this.isStrict.value,
          onchange: (/** @type {any} */ { target }) => this.run(() => crypto.setStrict(target.checked)),
        }),
      ),
    ];
  }

  async read() {
    const { crypto } = this;
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
    if (own === null) return h("p", { "aria-busy": "true" }, t("common.loading"));
    if (!own.exists) {
      return [
        h("p", null, t("encryption.noIdentity")),
        button(t("encryption.makeIdentity"), () => this.begin(false), "primary"),
      ];
    }
    if (own.isVerified) {
      return h("p", { class: "trust trust-verified" }, icon("shield"), t("encryption.isVerified"));
    }
    return [
      h("p", { class: "trust trust-changed" }, icon("warning"), t("encryption.notVerified")),
      h(
        "div",
        { class: "row-actions" },
        button(t("encryption.verifyOther"), () => this.run(() => verify(this.crypto, me)), "primary"),
        button(t("encryption.reset"), () => this.begin(true), "danger"),
      ),
    ];
  }

  /** @param {Backup | null} backup */
  recovery(backup) {
    if (backup === null) return h("p", { "aria-busy": "true" }, t("common.loading"));
    const { version, isEnabled, keys, backedUp } = backup;
    const create = () => this.run(() => this.create());
    if (isEnabled) {
      return [
        h("p", null, t("encryption.backedUp", { backedUp, keys })),
        button(t("encryption.removeBackup"), () => this.run(() => this.remove())),
      ];
    }
    return [
      h("p", null, t(version ? "encryption.backupElsewhere" : "encryption.noBackup")),
      h(
        "div",
        { class: "row-actions" },
        version ? button(t("encryption.useRecovery"), () => this.restore(), "primary") : null,
        button(t("encryption.makeBackup"), create, version ? "" : "primary"),
      ),
    ];
  }

  /** @param {boolean} reset in the place of an identity that is lost */
  async begin(reset) {
    const action = t(reset ? "encryption.reset" : "encryption.makeIdentity");
    await openDialog(action, (close) => [
      h("p", null, t(reset ? "encryption.resetExplained" : "encryption.makeExplained")),
      form(
        {
          action,
          isDanger: reset,
          run: async ({ password, totp_code }) => {
            await this.crypto.bootstrap({ password, totpCode: totp_code, reset });
            close();
          },
        },
        proofField(),
      ),
    ]);
    await this.read();
  }

  async create() {
    const key = await this.crypto.backup.create();
    await openDialog(t("encryption.recoveryKey"), (close) => [
      h("p", null, t("encryption.recoveryKeyExplained")),
      h("code", { class: "secret" }, key),
      h(
        "footer",
        { class: "dialog-foot" },
        button(t("common.copy"), () => navigator.clipboard.writeText(key)),
        button(t("encryption.kept"), () => close(), "primary"),
      ),
    ]);
  }

  async restore() {
    await openDialog(t("encryption.useRecovery"), (close) =>
      form(
        {
          action: t("encryption.restore"),
          run: async ({ key }) => {
            const { imported } = await this.crypto.backup.restore(key);
            close();
            toast(t("encryption.restored", { count: imported }));
          },
        },
        field(t("encryption.recoveryKey"), {
          name: "key",
          required: true,
          autocomplete: "off",
          spellcheck: "false",
        }),
      ),
    );
    await this.read();
  }

  async remove() {
    const action = t("encryption.removeBackup");
    const isSure = await confirm({
      title: action,
      text: t("encryption.removeBackupExplained"),
      action,
      isDanger: true,
    });
    if (isSure) await this.crypto.backup.remove();
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

/**
 * @param {string} text
 * @param {() => unknown} onclick
 * @param {string} [kind]
 */
function button(text, onclick, kind = "") {
  return h("button", { type: "button", class: kind, onclick }, text);
}

customElements.define("sc-settings-encryption", Page);
customElements.define("sc-encryption", Encryption);
