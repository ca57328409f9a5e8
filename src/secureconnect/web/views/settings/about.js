// What this is, and whose work is in it.

import { app } from "../../app.js";
import { t } from "../../i18n/index.js";
import { h, Part } from "../../parts/dom.js";
import { section } from "./page.js";

const LICENCE = "Apache-2.0";

export class Page extends Part {
  build() {
    const { server } = app.state;
    return [
      section(
        "SecureConnect",
        h("p", null, () =>
          t("settings.version", {
            version: server.value?.version ?? "",
            name: server.value?.server_name ?? "",
          }),
        ),
        h("p", null, t("settings.licence", { licence: LICENCE })),
        h(
          "p",
          null,
          h("a", { href: "/docs", target: "_blank", rel: "noopener noreferrer" }, t("settings.api")),
        ),
      ),
      packages() &&
        section(
          t("settings.thirdParty"),
          h("p", null, `${packages()} (${LICENCE})`),
          h("p", null, t("settings.thirdPartyHint")),
        ),
    ];
  }
}

/** Names and versions, as the page was built with them. */
function packages() {
  return document.querySelector('meta[name="packages"]')?.getAttribute("content") ?? "";
}

customElements.define("sc-settings-about", Page);
