// How others see one.

import { app } from "../../app.js";
import { t } from "../../i18n/index.js";
import { openDialog } from "../../parts/dialog.js";
import { h } from "../../parts/dom.js";
import { presenceMark } from "../../parts/presence.js";

const STATES = /** @type {const} */ (["online", "away", "busy", "offline"]);

export function showOwnPresence() {
  const { presences } = app.mine;
  return openDialog(t("home.ownPresence"), (close) =>
    h(
      "div",
      { class: "choose", role: "radiogroup", "aria-label": t("home.ownPresence") },
      STATES.map((status) =>
        h(
          "label",
          { class: "choose-row" },
          h("input", {
            type: "radio",
            name: "presence",
            checked: presences.chosen.peek() === status,
            onchange: () => presences.choose(status),
            onclick: (/** @type {MouseEvent} */ event) => event.detail > 0 && close(undefined),
          }),
          h(
            "span",
            { "aria-hidden": "true" },
            presenceMark(() => status),
          ),
          h("span", null, t(`home.presence.${status}`), h("small", null, t(`home.presenceSays.${status}`))),
        ),
      ),
    ),
  );
}
