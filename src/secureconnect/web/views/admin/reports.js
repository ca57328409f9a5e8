// What people have reported, and what became of it.

import { app } from "../../app.js";
import { moment, refused, t } from "../../i18n/index.js";
import { each, h, Part } from "../../parts/dom.js";
import { footOf, Paged } from "../../parts/paged.js";
import { signal } from "../../store/signal.js";
import { known } from "../people.js";

/**
 * @typedef {{ report_id: string, reporter_id: string, user_id: string, message_id: string | null, reason: string,
 *   comment: string, content: string | null, state: string, note: string, created_at: string }} Report
 */

export class Reports extends Part {
  state = signal("open");
  error = signal("");
  /** @type {Paged<Report>} */
  reports = new Paged(async (cursor) => {
    const query = { state: this.state.peek() || null, cursor };
    const { reports, next_cursor } = await app.client.ask("GET", "/v1/admin/reports", { query });
    return { items: reports, next_cursor };
  });

  build() {
    void this.reports.load();
    return [
      h(
        "label",
        { class: "field" },
        h("span", null, t("admin.show")),
        h(
          "select",
          {
            onchange: (/** @type {any} */ event) => {
              this.state.value = event.target.value;
              void this.reports.load();
            },
          },
          ["open", "resolved", "dismissed"].map((name) =>
            h("option", { value: name }, t(`admin.report.${name}`)),
          ),
          h("option", { value: "" }, t("admin.filter.all")),
        ),
      ),
      h("p", { class: "problem", role: "alert", hidden: () => !this.error.value }, () => this.error.value),
      h(
        "ul",
        { class: "rows" },
        each(
          () => this.reports.items.value,
          (report) => report.report_id,
          (report) => this.row(report),
        ),
      ),
      footOf(this.reports, t("admin.noReports")),
    ];
  }

  /** @param {() => Report} report */
  row(report) {
    const { user_id, reporter_id, reason, comment, content, note, created_at } = report();
    const written = h("input", {
      maxlength: 2000,
      value: note,
      "aria-label": t("admin.note"),
      placeholder: t("admin.note"),
    });
    return h(
      "li",
      { class: "row report" },
      h(
        "div",
        { class: "row-text" },
        h("strong", null, t(`admin.because.${reason}`)),
        h("span", null, () => t("admin.reportedBy", { about: known(user_id), by: known(reporter_id) })),
        content === null ? null : h("blockquote", { dir: "auto" }, content),
        comment ? h("p", { dir: "auto" }, comment) : null,
        h("small", null, () => `${moment(created_at)} · ${t(`admin.report.${report().state}`)}`),
      ),
      written,
      h(
        "div",
        { class: "row-actions" },
        ["resolved", "dismissed", "open"].map((state) =>
          h(
            "button",
            {
              disabled: () => report().state === state,
              onclick: () => this.find(report(), state, written.value),
            },
            t(`admin.finding.${state}`),
          ),
        ),
      ),
    );
  }

  /**
   * @param {Report} report
   * @param {string} state
   * @param {string} note
   */
  async find(report, state, note) {
    this.error.value = "";
    try {
      await app.client.ask("PATCH", `/v1/admin/reports/${report.report_id}`, { body: { state, note } });
      await this.reports.load();
    } catch (error) {
      this.error.value = refused(error);
    }
  }
}

customElements.define("sc-admin-reports", Reports);
