// Who has read a message of one's own in a group.

import { app } from "../../../app.js";
import { t } from "../../../i18n/index.js";
import { avatar } from "../../../parts/avatar.js";
import { openDialog } from "../../../parts/dialog.js";
import { each, h, when } from "../../../parts/dom.js";
import { faceOf, known } from "../../people.js";
import { readersOf } from "../message.js";

/**
 * @param {import("../../../store/types.js").Message} message stored
 * @param {import("../talk.js").Talk} talk
 */
export async function showReaders(message, talk) {
  const read = () => readersOf(message.seq ?? Infinity, talk);
  const others = () =>
    (talk.conversation?.participants ?? [])
      .map((member) => member.user_id)
      .filter((id) => id !== app.session.userId && !read().includes(id));
  await openDialog(t("message.readers"), () => [
    list(t("message.haveRead"), read),
    list(t("message.haveNotRead"), others),
  ]);
}

/**
 * @param {string} heading
 * @param {() => string[]} ids
 */
function list(heading, ids) {
  return when(
    () => ids().length > 0,
    () => [
      h("h3", null, heading),
      h(
        "ul",
        { class: "choose-list", "aria-label": heading },
        each(
          ids,
          (id) => id,
          (id) =>
            h(
              "li",
              { class: "person" },
              avatar(() => faceOf(id())),
              h("span", { dir: "auto" }, () => known(id())),
            ),
        ),
      ),
    ],
  );
}
