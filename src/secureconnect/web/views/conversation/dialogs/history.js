// What an edited message has said before.

import { app } from "../../../app.js";
import { moment, t } from "../../../i18n/index.js";
import { openDialog } from "../../../parts/dialog.js";
import { h } from "../../../parts/dom.js";
import { textNodes } from "../../../parts/text.js";
import { said } from "../said.js";

/** @typedef {import("../../../store/types.js").Message} Message */
/** @typedef {{ version: number, content: string, is_encrypted: boolean, written_at: string }} Version */

/** @param {Message} message */
export async function showHistory(message) {
  const path = `/v1/messages/${message.message_id}/history`;
  const { versions } = await app.client.ask("GET", path, { query: { limit: 100 } });
  await openDialog(t("message.history"), () =>
    h(
      "ol",
      { class: "versions" },
      versions.toReversed().map((/** @type {Version} */ version) => shown(version, message)),
    ),
  );
}

/**
 * @param {Version} version
 * @param {Message} message
 */
function shown({ version, content, is_encrypted, written_at }, message) {
  // an earlier version is opened as a message of its own: it was sealed with another key, perhaps
  const message_id = `${message.message_id} ${version}`;
  const text = () => said({ ...message, message_id, content, is_encrypted, is_earlier: true });
  return h(
    "li",
    null,
    h("time", null, moment(written_at)),
    h("p", { class: "pre", dir: "auto" }, () => {
      const { body, state } = text();
      return state === "plain" || state === "decrypted" ? textNodes(body) : t(`chat.sealed.${state}`);
    }),
  );
}
