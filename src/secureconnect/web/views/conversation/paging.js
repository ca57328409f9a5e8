// Reading more of a conversation, one page at a time, and the line that says how it goes.

import { refused, t } from "../../i18n/index.js";
import { h } from "../../parts/dom.js";
import { signal } from "../../store/signal.js";

export class Paging {
  isBusy = signal(false);
  /** why it did not work; null: it did, or was not tried */
  error = signal(/** @type {unknown} */ (null));

  /** @param {() => Promise<void>} read */
  constructor(read) {
    this.read = read;
  }

  /** Returns whether it was done. What has failed is done again only by `retry`, or when `forgive` was said. */
  async run() {
    if (this.isBusy.peek() || this.error.peek() !== null) return false;
    this.isBusy.value = true;
    try {
      await this.read();
      return true;
    } catch (error) {
      this.error.value = error;
      return false;
    } finally {
      this.isBusy.value = false;
    }
  }

  forgive() {
    this.error.value = null;
  }

  retry() {
    this.forgive();
    return this.run();
  }
}

/** @param {() => readonly (Paging | undefined)[]} pagings that read what is missing here */
export function pagingRow(pagings) {
  const failed = () => pagings().find((each) => each !== undefined && each.error.value !== null);
  return h("li", { class: "paging" }, () => {
    const paging = failed();
    if (paging === undefined)
      return h("span", { class: "spinner", role: "img", "aria-label": t("chat.loading") });
    return [
      h("span", null, refused(paging.error.value)),
      h("button", { type: "button", onclick: () => void paging.retry() }, t("chat.retry")),
    ];
  });
}
