// One's own files, wherever they were sent: how much room they take, and a way to have it back.

import { app } from "../../app.js";
import { bytes, refused, shortMoment, t } from "../../i18n/index.js";
import { confirm } from "../../parts/dialog.js";
import { each, h, Part, when } from "../../parts/dom.js";
import { icon } from "../../parts/icons.js";
import { footOf, Paged } from "../../parts/paged.js";
import { toast } from "../../parts/toast.js";
import { signal } from "../../store/signal.js";
import { save } from "./attached.js";
import { fileIcon } from "./icon.js";

/**
 * @typedef {import("../../store/types.js").File} FileRecord
 * @typedef {{ quota_bytes: number, used_bytes: number, reserved_bytes: number, available_bytes: number }} Quota
 */

const PAGE = 50;

export class Page extends Part {
  quota = signal(/** @type {Quota | null} */ (null));
  /** @type {Paged<FileRecord>} */
  files = new Paged(async (cursor) => {
    const query = { limit: PAGE, cursor };
    const { files, next_cursor } = await app.client.ask("GET", "/v1/storage/files", { query });
    return { items: files, next_cursor };
  });

  build() {
    void this.#load();
    return [
      when(
        () => this.quota.value,
        () => this.#room(),
      ),
      h(
        "ul",
        { class: "rows", "aria-label": t("files.own") },
        each(
          () => this.files.items.value.filter(({ status }) => status === "completed"),
          ({ file_id }) => file_id,
          (file) => this.#row(file()),
        ),
      ),
      footOf(this.files, t("files.ownNone")),
    ];
  }

  #room() {
    const used = () => {
      const { used_bytes = 0, reserved_bytes = 0 } = this.quota.value ?? {};
      return used_bytes + reserved_bytes;
    };
    const whole = () => this.quota.value?.quota_bytes ?? 1;
    const text = () => t("files.used", { used: bytes(used()), whole: bytes(whole()) });
    return h(
      "div",
      { class: "room" },
      h("p", null, text),
      h("meter", { max: whole, high: () => 0.9 * whole(), value: used, "aria-label": text }),
      h("small", null, t("files.ownHint")),
    );
  }

  /** @param {FileRecord} file whose name the server does not know if it is encrypted: it is had with its message */
  #row(file) {
    const { file_id, file_name, file_size: size, content_type, is_encrypted } = file;
    const name = is_encrypted ? t("files.sealed") : file_name;
    const button = (
      /** @type {string} */ picture,
      /** @type {string} */ key,
      /** @type {() => void} */ run,
    ) =>
      h(
        "button",
        { class: "icon-button", "aria-label": t(`files.${key}`, { name }), onclick: run },
        icon(picture),
      );
    return h(
      "li",
      { class: "row own-file" },
      fileIcon(is_encrypted ? undefined : content_type),
      h(
        "div",
        { class: "row-text" },
        h("strong", { class: "file-name", dir: "auto", title: name }, name),
        h("small", null, `${bytes(size)} · ${shortMoment(file.created_at)}`),
      ),
      h(
        "div",
        { class: "row-actions" },
        is_encrypted
          ? null
          : button("download", "download", () => void save({ file_id, name, size, content_type })),
        button("trash", "delete", () => void this.#delete(file_id, name)),
      ),
    );
  }

  async #load() {
    await Promise.all([this.files.load(), this.#measure()]);
  }

  async #measure() {
    try {
      this.quota.value = await app.client.ask("GET", "/v1/storage/quota");
    } catch {
      // the list says what is wrong
    }
  }

  /**
   * @param {string} id
   * @param {string} name
   */
  async #delete(id, name) {
    const isSure = await confirm({
      title: t("files.delete", { name }),
      text: t("files.deleteHint"),
      action: t("files.deleteIt"),
      isDanger: true,
    });
    if (!isSure) return;
    try {
      await app.client.ask("DELETE", `/v1/storage/files/${id}`);
      toast(t("files.deleted", { name }));
    } catch (error) {
      toast(refused(error));
    }
    await this.#load();
  }
}

customElements.define("sc-own-files", Page);
