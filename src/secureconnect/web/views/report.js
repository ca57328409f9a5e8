// Telling the administrators about a person or a message.

import { app } from "../app.js";
import { t } from "../i18n/index.js";
import { openDialog } from "../parts/dialog.js";
import { h } from "../parts/dom.js";
import { choiceField, form } from "../parts/form.js";

const REASONS = ["spam", "harassment", "violence", "illegal", "impersonation", "other"];

/**
 * Whether it was told.
 * @param {{ user_id: string } | { message_id: string }} what
 */
export async function report(what) {
  const told = await openDialog(t("details.report"), (/** @type {(told?: boolean) => void} */ close) =>
    form(
      {
        action: t("details.report"),
        isDanger: true,
        run: async ({ reason, comment }) => {
          const body = { ...what, reason, ...(comment.trim() ? { comment: comment.trim() } : {}) };
          await app.client.ask("POST", "/v1/reports", { body });
          close(true);
        },
        beside: h("button", { type: "button", onclick: () => close(false) }, t("common.cancel")),
      },
      h("p", null, t("details.reportSays")),
      choiceField(
        t("details.reason"),
        { name: "reason", value: REASONS[0] },
        REASONS.map((each) => [each, t(`details.reason.${each}`)]),
      ),
      h(
        "label",
        { class: "field" },
        h("span", null, t("details.comment")),
        h("textarea", { name: "comment", rows: 3, maxlength: 2000 }),
      ),
    ),
  );
  return told ?? false;
}
