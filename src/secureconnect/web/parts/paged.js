// A list of the server's that comes page by page.

import { refused, t } from "../i18n/index.js";
import { signal } from "../store/signal.js";
import { h, when } from "./dom.js";

const MOST_HELD = 2_000;

/** @template T */
export class Paged {
  /** @type {string | null} */
  #cursor = null;
  #turn = 0; // an answer to an earlier question is not wanted any more

  /** @param {(cursor: string | null) => Promise<{ items: T[], next_cursor: string | null }>} ask */
  constructor(ask) {
    this.ask = ask;
    this.items = signal(/** @type {readonly T[]} */ ([]));
    this.hasMore = signal(false);
    this.isLoading = signal(false);
    this.error = signal("");
  }

  /** From the beginning. */
  load() {
    this.#cursor = null;
    return this.#read([]);
  }

  more() {
    return this.#read(this.items.peek());
  }

  /** @param {readonly T[]} before */
  async #read(before) {
    this.#turn += 1;
    const turn = this.#turn;
    this.isLoading.value = true;
    this.error.value = "";
    try {
      const { items, next_cursor } = await this.ask(this.#cursor);
      if (turn !== this.#turn) return;
      this.#cursor = next_cursor;
      this.items.value = [...before, ...items];
      this.hasMore.value = next_cursor !== null && this.items.peek().length < MOST_HELD;
    } catch (error) {
      if (turn === this.#turn) this.error.value = refused(error);
    } finally {
      if (turn === this.#turn) this.isLoading.value = false;
    }
  }
}

/**
 * What stands under a list: that there is nothing, that it did not come, or a button for more.
 * @param {Paged<any>} paged
 * @param {string} nothing
 * @param {() => boolean} [isElse] whether something from elsewhere stands there, or is to come
 */
export function footOf(paged, nothing, isElse = () => false) {
  return h(
    "div",
    { class: "paged-foot", role: "status" },
    when(
      () => paged.error.value,
      () => [
        h("p", { class: "problem" }, () => paged.error.value),
        h("button", { type: "button", onclick: () => paged.more() }, t("common.again")),
      ],
    ),
    when(
      () => paged.isLoading.value,
      () => h("p", null, t("common.loading")),
    ),
    when(
      () => !paged.isLoading.value && !paged.error.value && paged.items.value.length === 0 && !isElse(),
      () => h("p", { class: "blank" }, nothing),
    ),
    when(
      () => paged.hasMore.value && !paged.isLoading.value && !paged.error.value,
      () => h("button", { type: "button", onclick: () => paged.more() }, t("common.more")),
    ),
  );
}
