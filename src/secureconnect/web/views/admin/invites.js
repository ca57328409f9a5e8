// Invitations: who may register where registration is not open.

import { app } from "../../app.js";
import { moment, refused, t } from "../../i18n/index.js";
import { each, h, Part } from "../../parts/dom.js";
import { field, submit } from "../../parts/form.js";
import { footOf, Paged } from "../../parts/paged.js";
import { signal } from "../../store/signal.js";

/** @typedef {{ invite_id: string, created_at: string, expires_at: string, max_uses: number, uses: number }} Invite */

const DAY_S = 86_400;

export class Invites extends Part {
  error = signal("");
  isBusy = signal(false);
  /** the link of the one that was just made: it is told this once */
  link = signal("");
  /** @type {Paged<Invite>} */
  invites = new Paged(async (cursor) => {
    const { invites, next_cursor } = await app.client.ask("GET", "/v1/admin/invites", { query: { cursor } });
    return { items: invites, next_cursor };
  });

  build() {
    void this.invites.load();
    return [
      h(
        "form",
        { class: "filters", onsubmit: (/** @type {SubmitEvent} */ event) => this.make(event) },
        field(t("admin.uses"), {
          name: "uses",
          type: "number",
          min: 1,
          max: 10_000,
          value: 1,
          required: true,
        }),
        field(t("admin.days"), { name: "days", type: "number", min: 1, max: 365, value: 7, required: true }),
        submit(t("admin.makeInvite"), this.isBusy),
      ),
      h("p", { class: "problem", role: "alert", hidden: () => !this.error.value }, () => this.error.value),
      h(
        "div",
        { class: "notice", role: "status", hidden: () => !this.link.value },
        h("p", null, t("admin.inviteMade")),
        h("code", { class: "secret" }, () => this.link.value),
        h("button", { onclick: () => navigator.clipboard?.writeText(this.link.peek()) }, t("common.copy")),
      ),
      h(
        "ul",
        { class: "rows" },
        each(
          () => this.invites.items.value,
          (invite) => invite.invite_id,
          (invite) =>
            h(
              "li",
              { class: "row" },
              h(
                "div",
                { class: "row-text" },
                h("strong", null, () => t("admin.used", { uses: invite().uses, most: invite().max_uses })),
                h("small", null, () => t("admin.goodUntil", { when: moment(invite().expires_at) })),
              ),
              h("button", { onclick: () => this.takeBack(invite()) }, t("admin.takeBack")),
            ),
        ),
      ),
      footOf(this.invites, t("admin.noInvites")),
    ];
  }

  /** @param {SubmitEvent} event */
  async make(event) {
    event.preventDefault();
    const given = new FormData(/** @type {HTMLFormElement} */ (event.target));
    const body = { max_uses: Number(given.get("uses")), expires_in: Number(given.get("days")) * DAY_S };
    this.isBusy.value = true;
    this.error.value = "";
    try {
      const made = await app.client.ask("POST", "/v1/admin/invites", { body });
      this.link.value = new URL(made.link, location.origin).href;
      await this.invites.load();
    } catch (error) {
      this.error.value = refused(error);
    } finally {
      this.isBusy.value = false;
    }
  }

  /** @param {Invite} invite */
  async takeBack({ invite_id }) {
    try {
      await app.client.ask("DELETE", `/v1/admin/invites/${invite_id}`);
      await this.invites.load();
    } catch (error) {
      this.error.value = refused(error);
    }
  }
}

customElements.define("sc-admin-invites", Invites);
