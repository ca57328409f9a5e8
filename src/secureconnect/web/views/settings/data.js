// Taking along what the server holds of one, and leaving for good.

import { exported } from "../../api/export.js";
import { app } from "../../app.js";
import { bytes, refused, t } from "../../i18n/index.js";
import { h, Part } from "../../parts/dom.js";
import { form } from "../../parts/form.js";
import { onEnd, signal } from "../../store/signal.js";
import { proofField, proofOf, section } from "./page.js";

const KEPT_MS = 60_000; // for the browser to take it

export class Page extends Part {
  /** bytes so far; null: none is under way */
  come = signal(/** @type {number | null} */ (null));
  error = signal("");
  #ended = new AbortController();

  build() {
    onEnd(() => this.#ended.abort());
    return [section(t("settings.export"), this.export()), section(t("settings.delete"), this.delete())];
  }

  export() {
    return [
      h("p", null, t("settings.exportHint")),
      () =>
        this.come.value === null
          ? h("button", { type: "button", onclick: () => this.fetch() }, t("settings.exportStart"))
          : h("button", { type: "button", onclick: () => this.#ended.abort() }, t("common.cancel")),
      h("p", { role: "status", hidden: () => this.come.value === null }, () =>
        t("settings.exportSoFar", { size: bytes(this.come.value ?? 0) }),
      ),
      h("p", { class: "problem", role: "alert", hidden: () => !this.error.value }, () => this.error.value),
    ];
  }

  async fetch() {
    const ended = (this.#ended = new AbortController());
    this.come.value = 0;
    this.error.value = "";
    try {
      save(await exported(app.session, (count) => (this.come.value = count), ended.signal));
    } catch (error) {
      if (!ended.signal.aborted) this.error.value = refused(error);
    } finally {
      this.come.value = null;
    }
  }

  delete() {
    const run = async (/** @type {any} */ given) => {
      await app.client.ask("DELETE", "/v1/users/me", { body: proofOf(given) });
      app.session.leave("DELETION_ASKED"); // every session has ended
    };
    return [
      h("p", null, t("settings.deleteHint")),
      h("p", null, t("settings.deleteStays")),
      h(
        "details",
        null,
        h("summary", null, t("settings.delete")),
        form({ action: t("settings.deleteFinally"), run, isDanger: true }, proofField()),
      ),
    ];
  }
}

/** @param {Blob} blob */
function save(blob) {
  const href = URL.createObjectURL(blob);
  h("a", { href, download: "secureconnect-export.zip" }).click();
  setTimeout(() => URL.revokeObjectURL(href), KEPT_MS);
}

customElements.define("sc-settings-data", Page);
