// The files of a conversation, the newest first.

import { app } from "../../../app.js";
import { bytes, shortMoment, t } from "../../../i18n/index.js";
import { each, h, Part, when } from "../../../parts/dom.js";
import { footOf, Paged } from "../../../parts/paged.js";
import { save } from "../../files/attached.js";
import { fileIcon } from "../../files/icon.js";

/** @typedef {import("../../../store/types.js").File} File */

const PAGE = 20;

export class FileList extends Part {
  conversationId = "";

  build() {
    const files = /** @type {Paged<File>} */ (
      new Paged(async (cursor) => {
        const query = { conversation_id: this.conversationId, limit: PAGE, cursor };
        const { files: items, next_cursor } = await app.client.ask("GET", "/v1/storage/files", { query });
        return { items, next_cursor };
      })
    );
    void files.load();
    return h(
      "section",
      { class: "details-part" },
      h("h3", null, t("details.files")),
      h(
        "ul",
        { "aria-label": t("details.files") },
        each(
          () => files.items.value.filter((file) => file.status === "completed"),
          (file) => file.file_id,
          (file) => row(file()),
        ),
      ),
      when(
        () => true,
        () => footOf(files, t("details.noFiles")),
      ),
    );
  }
}

/** @param {File} file whose name the server does not know, if it is encrypted: it is had with its message */
function row(file) {
  const name = file.is_encrypted ? t("details.encryptedFile") : file.file_name;
  const about = `${bytes(file.file_size)} · ${shortMoment(file.created_at)}`;
  const content = [
    fileIcon(file.content_type),
    h("span", { class: "member-name" }, h("span", { dir: "auto" }, name), h("small", null, about)),
  ];
  if (file.is_encrypted) return h("li", { class: "file-row" }, content);
  const attachment = {
    file_id: file.file_id,
    name: file.file_name,
    size: file.file_size,
    content_type: file.content_type,
  };
  return h("li", null, h("button", { class: "file-row", onclick: () => void save(attachment) }, content));
}

customElements.define("sc-file-list", FileList);
