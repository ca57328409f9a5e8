// The keys there are, where one is now.

import { t } from "../../i18n/index.js";
import { openDialog } from "../../parts/dialog.js";
import { h } from "../../parts/dom.js";
import { chooseLetters, hasLetters, keysNow, written } from "../keys.js";

export function showAllKeys() {
  return openDialog(t("home.keys.all"), () => [
    h(
      "dl",
      { class: "keys" },
      keysNow().map(({ keys, says }) =>
        h(
          "div",
          null,
          h("dt", null, says()),
          h(
            "dd",
            null,
            written(keys).map((each) => [h("kbd", null, each), " "]),
          ),
        ),
      ),
    ),
    h(
      "label",
      { class: "choose-row" },
      h("input", {
        type: "checkbox",
        checked: () => hasLetters.value,
        onchange: (/** @type {any} */ event) => chooseLetters(event.target.checked),
      }),
      h("span", null, t("home.keys.letters"), h("small", null, t("home.keys.lettersSay"))),
    ),
  ]);
}
