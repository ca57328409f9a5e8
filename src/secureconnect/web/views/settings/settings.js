// Everything one decides about oneself. Each page is fetched when it is opened.

import { app } from "../../app.js";
import { t } from "../../i18n/index.js";
import { h, Part } from "../../parts/dom.js";
import { icon } from "../../parts/icons.js";
import { lazy } from "../../parts/lazy.js";
import { computed } from "../../store/signal.js";
import { leave } from "./leave.js";

/** @type {Record<string, () => Promise<{ Page: new () => Part }>>} in this order */
const PAGES = {
  profile: () => import("./profile.js"),
  account: () => import("./account.js"),
  devices: () => import("./devices.js"),
  encryption: () => import("./encryption.js"),
  privacy: () => import("./privacy.js"),
  people: () => import("./people.js"),
  notifications: () => import("./notifications.js"),
  files: () => import("../files/own.js"),
  appearance: () => import("./appearance.js"),
  data: () => import("./data.js"),
  about: () => import("./about.js"),
};

export class Settings extends Part {
  build() {
    const { place } = app.router;
    const chosen = computed(() => place.value.params.page ?? "");
    const page = computed(() => (chosen.value in PAGES ? chosen.value : "profile"));
    return h(
      "section",
      { class: () => (chosen.value ? "settings at-page" : "settings at-pages") },
      h(
        "div",
        { class: "settings-side" },
        h(
          "header",
          { class: "conversation-head" },
          h("a", { class: "icon-button back", href: "/", "aria-label": t("settings.leave") }, icon("back")),
          h("h1", null, t("settings.title")),
        ),
        h(
          "nav",
          { "aria-label": t("settings.title") },
          h(
            "ul",
            null,
            Object.keys(PAGES).map((name) => link(name, page)),
          ),
        ),
        h(
          "div",
          { class: "settings-out" },
          h("button", { type: "button", onclick: leave }, t("settings.signOut")),
        ),
      ),
      h(
        "div",
        { class: "settings-page" },
        h(
          "header",
          { class: "settings-head" },
          h(
            "a",
            { class: "icon-button settings-back", href: "/settings", "aria-label": t("settings.all") },
            icon("back"),
          ),
          h("h2", null, () => t(`settings.page.${page.value}`)),
        ),
        () => lazy(PAGES[page.value], ({ Page }) => new Page()),
      ),
    );
  }
}

/**
 * @param {string} name
 * @param {{ readonly value: string }} page the one that is open
 */
function link(name, page) {
  const current = () => (page.value === name ? "page" : null);
  return h(
    "li",
    null,
    h("a", { href: `/settings/${name}`, "aria-current": current }, t(`settings.page.${name}`)),
  );
}

customElements.define("sc-settings", Settings);
