// Telling everybody something.

import { app } from "../../app.js";
import { newId } from "../../api/ids.js";
import { moment, refused, t } from "../../i18n/index.js";
import { each, h, Part } from "../../parts/dom.js";
import { submit } from "../../parts/form.js";
import { footOf, Paged } from "../../parts/paged.js";
import { signal } from "../../store/signal.js";

/** @typedef {{ announcement_id: string, text: string, created_at: string, until: string | null }} Announcement */

const DAY_MS = 86_400_000;

export class Announcements extends Part {
  error = signal("");
  isBusy = signal(false);
  #key = newId(); // of what is being written: told once, however often it is sent
  /** @type {Paged<Announcement>} */
  announcements = new Paged(async (cursor) => {
    const { announcements, next_cursor } = await app.client.ask("GET", "/v1/admin/announcements", {
      query: { cursor },
    });
    return { items: announcements, next_cursor };
  });

  build() {
    void this.announcements.load();
    return [
      h(
        "form",
        { onsubmit: (/** @type {SubmitEvent} */ event) => this.tell(event) },
        h(
          "label",
          { class: "field" },
          h("span", null, t("admin.announcement")),
          h("textarea", { name: "text", rows: 3, maxlength: 2000, required: true }),
        ),
        h(
          "label",
          { class: "field" },
          h("span", null, t("admin.shownFor")),
          h(
            "select",
            { name: "days" },
            [1, 7, 30].map((count) => h("option", { value: String(count) }, t("admin.dayCount", { count }))),
            h("option", { value: "0" }, t("admin.forGood")),
          ),
        ),
        submit(t("admin.tell"), this.isBusy),
      ),
      h("p", { class: "problem", role: "alert", hidden: () => !this.error.value }, () => this.error.value),
      h(
        "ul",
        { class: "rows" },
        each(
          () => this.announcements.items.value,
          (each) => each.announcement_id,
          (each) =>
            h(
              "li",
              { class: "row" },
              h(
                "div",
                { class: "row-text" },
                h("p", { dir: "auto" }, () => each().text),
                h("small", null, () => {
                  const { created_at, until } = each();
                  return until
                    ? t("admin.toldUntil", { when: moment(created_at), until: moment(until) })
                    : moment(created_at);
                }),
              ),
            ),
        ),
      ),
      footOf(this.announcements, t("admin.noAnnouncements")),
    ];
  }

  /** @param {SubmitEvent} event */
  async tell(event) {
    event.preventDefault();
    const form = /** @type {HTMLFormElement} */ (event.target);
    const given = new FormData(form);
    const days = Number(given.get("days"));
    const body = {
      text: given.get("text"),
      until: days ? new Date(Date.now() + days * DAY_MS).toISOString() : null,
    };
    this.isBusy.value = true;
    this.error.value = "";
    try {
      await app.client.ask("POST", "/v1/admin/announcements", { body, idempotencyKey: this.#key });
      this.#key = newId();
      form.reset();
      await this.announcements.load();
    } catch (error) {
      this.error.value = refused(error);
    } finally {
      this.isBusy.value = false;
    }
  }
}

customElements.define("sc-admin-announcements", Announcements);
