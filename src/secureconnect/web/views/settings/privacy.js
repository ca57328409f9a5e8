// What one shows of oneself.

import { app } from "../../app.js";
import { refused, t } from "../../i18n/index.js";
import { h, Part } from "../../parts/dom.js";
import { switchField } from "../../parts/form.js";
import { signal } from "../../store/signal.js";
import { told } from "./page.js";

/** @typedef {{ searchable: boolean, last_seen: boolean, read_receipts: boolean }} Privacy */

const PRIVACY = "/v1/users/me/privacy";
const CHOICES = /** @type {const} */ (["searchable", "last_seen", "read_receipts"]);

export class Page extends Part {
  error = signal("");

  build() {
    return [
      told(
        () => app.client.ask("GET", PRIVACY),
        (/** @type {Privacy} */ now) => this.choices(now),
      ),
      h("p", { class: "problem", role: "alert", hidden: () => !this.error.value }, () => this.error.value),
    ];
  }

  /** @param {Privacy} now */
  choices(now) {
    return CHOICES.map((name) => {
      const isOn = signal(now[name]);
      const choose = async (/** @type {any} */ { target }) => {
        const wanted = target.checked;
        this.error.value = "";
        isOn.value = wanted;
        try {
          await app.client.ask("PUT", PRIVACY, { body: { [name]: wanted } });
        } catch (error) {
          isOn.value = !wanted; // it stays as it was
          this.error.value = refused(error);
        }
      };
      const props = { checked: () => isOn.value, onchange: choose };
      return switchField(t(`settings.privacy.${name}`), props, t(`settings.privacy.${name}.hint`));
    });
  }
}

customElements.define("sc-settings-privacy", Page);
