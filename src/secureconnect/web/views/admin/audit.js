// The audit log: who did what. Looking is itself noted there.

import { app } from "../../app.js";
import { moment, refused, t } from "../../i18n/index.js";
import { each, h, Part } from "../../parts/dom.js";
import { field } from "../../parts/form.js";
import { footOf, Paged } from "../../parts/paged.js";
import { signal } from "../../store/signal.js";
import { known } from "../people.js";

/**
 * @typedef {{ audit_id: string, recorded_at: string, action: string, actor_id: string | null, subject: string | null,
 *   facts: Record<string, any>, personal: Record<string, any> | null, position: number | null }} Entry
 */

const EXPORT_MS = 600_000;

export class AuditLog extends Part {
  filters = signal(/** @type {Record<string, string>} */ ({}));
  error = signal("");
  isBusy = signal(false);
  /** @type {Paged<Entry>} */
  entries = new Paged(async (cursor) => {
    const query = { ...this.filters.peek(), limit: 50, cursor };
    const { entries, next_cursor } = await app.client.ask("GET", "/v1/admin/audit", { query });
    return { items: entries, next_cursor };
  });

  build() {
    void this.entries.load();
    return [
      h(
        "form",
        {
          class: "filters",
          role: "search",
          onsubmit: (/** @type {SubmitEvent} */ event) => this.look(event),
        },
        field(t("admin.action"), { name: "action", maxlength: 100, placeholder: "auth:login" }),
        field(t("admin.subject"), { name: "subject", maxlength: 200 }),
        field(t("admin.since"), { name: "since", type: "datetime-local" }),
        field(t("admin.until"), { name: "until", type: "datetime-local" }),
        h("button", { class: "primary" }, t("admin.look")),
        h(
          "button",
          { type: "button", disabled: () => this.isBusy.value, onclick: () => this.save() },
          t("admin.export"),
        ),
      ),
      h("p", { class: "problem", role: "alert", hidden: () => !this.error.value }, () => this.error.value),
      h(
        "div",
        { class: "scrolling", tabindex: 0, role: "region", "aria-label": t("admin.page.audit") },
        h(
          "table",
          null,
          h(
            "thead",
            null,
            h(
              "tr",
              null,
              ["when", "action", "actor", "subject", "facts"].map((name) =>
                h("th", { scope: "col" }, t(`admin.${name}`)),
              ),
            ),
          ),
          h(
            "tbody",
            null,
            each(
              () => this.entries.items.value,
              (entry) => entry.audit_id,
              (entry) => row(entry()),
            ),
          ),
        ),
      ),
      footOf(this.entries, t("admin.noEntries")),
    ];
  }

  /** @param {SubmitEvent} event */
  look(event) {
    event.preventDefault();
    const given = new FormData(/** @type {HTMLFormElement} */ (event.target));
    /** @type {Record<string, string>} */
    const filters = {};
    for (const [name, value] of given) {
      const text = String(value).trim();
      if (text) filters[name] = ["since", "until"].includes(name) ? new Date(text).toISOString() : text;
    }
    this.filters.value = filters;
    void this.entries.load();
  }

  /** All that the filters leave, as a file of JSON lines. */
  async save() {
    this.isBusy.value = true;
    this.error.value = "";
    try {
      const url = new URL("/v1/admin/audit/export", location.origin);
      for (const [name, value] of Object.entries(this.filters.peek())) url.searchParams.set(name, value);
      const headers = { Authorization: `Bearer ${await app.session.token()}` };
      const answer = await fetch(url, { headers, signal: AbortSignal.timeout(EXPORT_MS) });
      if (!answer.ok) throw new Error(String(answer.status));
      const link = h("a", { href: URL.createObjectURL(await answer.blob()), download: "audit.jsonl" });
      link.click();
      URL.revokeObjectURL(link.href);
    } catch (error) {
      this.error.value = refused(error);
    } finally {
      this.isBusy.value = false;
    }
  }
}

/** @param {Entry} entry */
function row({ recorded_at, action, actor_id, subject, facts, personal }) {
  return h(
    "tr",
    null,
    h("td", null, moment(recorded_at)),
    h("td", null, h("code", null, action)),
    h("td", null, () => (actor_id ? known(actor_id) : "")),
    h("td", null, subject ?? ""),
    h("td", null, h("code", null, JSON.stringify({ ...facts, ...personal }))),
  );
}

customElements.define("sc-admin-audit", AuditLog);
