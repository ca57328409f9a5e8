// The room of the administrators: how the server is, who is here, and what there is to decide.

import { app } from "../../app.js";
import { t } from "../../i18n/index.js";
import { h, Part } from "../../parts/dom.js";
import { icon } from "../../parts/icons.js";
import { Announcements } from "./announcements.js";
import { AuditLog } from "./audit.js";
import { Invites } from "./invites.js";
import { Overview } from "./overview.js";
import { Reports } from "./reports.js";
import { Users } from "./users.js";

/** @type {Record<string, new () => Part>} */
const PAGES = {
  overview: Overview,
  users: Users,
  reports: Reports,
  invites: Invites,
  announcements: Announcements,
  audit: AuditLog,
};

export class Admin extends Part {
  build() {
    const page = () => app.router.place.value.params.page ?? "overview";
    return h(
      "section",
      { class: "admin" },
      h(
        "header",
        { class: "conversation-head" },
        h("a", { class: "icon-button back", href: "/", "aria-label": t("admin.back") }, icon("back")),
        h("h1", { tabindex: -1 }, t("admin.title")),
      ),
      () =>
        app.state.me.value?.role === "admin"
          ? this.inside(page)
          : h("p", { class: "blank" }, t("admin.notYours")),
    );
  }

  /** @param {() => string} page */
  inside(page) {
    return [
      h(
        "nav",
        { class: "tabs", "aria-label": t("admin.title") },
        Object.keys(PAGES).map((name) =>
          h(
            "a",
            { href: `/admin/${name}`, "aria-current": () => (page() === name ? "page" : null) },
            t(`admin.page.${name}`),
          ),
        ),
      ),
      h("div", { class: "page admin-page", tabindex: 0 }, () => new (PAGES[page()] ?? Overview)()),
    ];
  }
}

customElements.define("sc-admin", Admin);
