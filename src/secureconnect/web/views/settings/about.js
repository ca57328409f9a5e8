// What this is, and whose work is in it.

import { app } from "../../app.js";
import { t } from "../../i18n/index.js";
import { h, Part } from "../../parts/dom.js";
import { section } from "./page.js";

const THIRD_PARTY = "@matrix-org/matrix-sdk-crypto-wasm 18.9.0";
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
      section(
        t("settings.thirdParty"),
        h("p", null, `${THIRD_PARTY} (${LICENCE})`),
        h("p", null, t("settings.thirdPartyHint")),
      ),
    ];
  }
}

customElements.define("sc-settings-about", Page);
