// Files of one's own message on their way: how far each is, and what one can do about it.

import { app } from "../../app.js";
import { bytes, refused, t } from "../../i18n/index.js";
import { each, h, when } from "../../parts/dom.js";
import { icon } from "../../parts/icons.js";
import { onEnd, signal } from "../../store/signal.js";
import { kindOf } from "../../store/attachments.js";
import { fileIcon } from "./icon.js";

/**
 * @typedef {import("../../store/types.js").Outgoing} Outgoing
 * @typedef {import("../../store/types.js").Sending} Sending
 */

/** @param {string} id client_message_id of a message of one's own */
export function sending(id) {
  const { outbox } = app.mine;
  /** @type {readonly Sending[]} */
  let latest = [];
  const files = () => {
    latest = outbox.entries.value.find((one) => one.client_message_id === id)?.files ?? latest;
    return latest;
  };
  return h(
    "ul",
    { class: "sending", "aria-label": t("files.sending") },
    each(
      files,
      (file) => file.upload_id,
      (file) => row(id, file),
    ),
  );
}

/**
 * @param {string} id
 * @param {() => Sending} file
 */
function row(id, file) {
  const { outbox } = app.mine;
  const { upload_id, name, size, content_type } = file();
  const sent = outbox.uploads.sent(upload_id);
  const isGoing = () => file().state === "waiting" || file().state === "paused";
  const button = (/** @type {string} */ picture, /** @type {string} */ key, /** @type {() => void} */ run) =>
    h(
      "button",
      { class: "icon-button", "aria-label": t(`files.${key}`, { name }), onclick: run },
      icon(picture),
    );
  return h(
    "li",
    { class: "file-card" },
    kindOf(content_type) === "image" ? thumb(upload_id) : fileIcon(content_type),
    h(
      "div",
      { class: "sending-what" },
      h("span", { class: "file-name", dir: "auto", title: name }, name),
      when(isGoing, () =>
        h("progress", {
          max: size,
          value: () => Math.min(sent.value, size),
          "aria-label": t("files.progress", { name }),
        }),
      ),
      h("small", null, () => factOf(file(), sent.value)),
      when(
        () => file().state === "lost",
        () => chooseAgain(id, file),
      ),
    ),
    when(
      () => file().state === "waiting",
      () => button("pause", "pause", () => void outbox.pauseFile(id, upload_id)),
    ),
    when(
      () => file().state === "paused" || file().state === "failed",
      () => button("play", "resume", () => void outbox.resumeFile(id, upload_id)),
    ),
    when(
      () => file().state !== "done",
      () => button("close", "cancel", () => void outbox.cancelFile(id, upload_id)),
    ),
  );
}

/**
 * @param {Sending} file
 * @param {number} sent
 */
function factOf({ state, size, code }, sent) {
  if (state === "done") return bytes(size);
  if (state === "failed") return refused({ code });
  if (state === "lost") return t("files.lost");
  const far = t("files.far", { sent: bytes(Math.min(sent, size)), size: bytes(size) });
  return state === "paused" ? `${t("files.paused")} · ${far}` : far;
}

/** @param {string} uploadId */
function thumb(uploadId) {
  const { uploads } = app.mine.outbox;
  const image = h("img", { class: "file-thumb", alt: "" });
  let isOver = false;
  onEnd(() => {
    isOver = true;
    URL.revokeObjectURL(image.src);
  });
  void uploads.content(uploadId).then((blob) => {
    if (blob && !isOver) image.src = URL.createObjectURL(blob);
  });
  return image;
}

/**
 * @param {string} id
 * @param {() => Sending} file
 */
function chooseAgain(id, file) {
  const { outbox } = app.mine;
  const problem = signal("");
  const input = h("input", {
    type: "file",
    hidden: true,
    onchange: () => {
      const [chosen] = input.files ?? [];
      const { name, size, upload_id } = file();
      if (!chosen) return;
      if (chosen.size !== size) problem.value = t("files.another", { name });
      else void outbox.resumeFile(id, upload_id, chosen);
    },
  });
  return [
    input,
    h("button", { onclick: () => input.click() }, t("files.chooseAgain")),
    h("small", { role: "alert" }, () => problem.value),
  ];
}
