// The name and the picture of a group.

import { app } from "../../../app.js";
import { t } from "../../../i18n/index.js";
import { openDialog } from "../../../parts/dialog.js";
import { focus, h } from "../../../parts/dom.js";
import { field, form } from "../../../parts/form.js";

/** @param {import("../../../store/types.js").Conversation} conversation */
export function describe({ conversation_id: id, title, avatar_url }) {
  return openDialog(t("details.describe"), (/** @type {(done?: boolean) => void} */ close) =>
    form(
      {
        action: t("common.save"),
        run: async ({ title: named, avatar_url: picture }) => {
          const body = { title: named.trim(), avatar_url: picture.trim() || null };
          await app.client.ask("PATCH", `/v1/conversations/${id}`, { body });
          close(true);
        },
        beside: h("button", { type: "button", onclick: () => close(false) }, t("common.cancel")),
      },
      field(t("chat.groupTitle"), {
        name: "title",
        value: title ?? "",
        maxlength: 200,
        required: true,
        ref: focus,
      }),
      field(
        t("details.picture"),
        { name: "avatar_url", value: avatar_url ?? "", maxlength: 2048 },
        t("details.pictureSays"),
      ),
    ),
  );
}
