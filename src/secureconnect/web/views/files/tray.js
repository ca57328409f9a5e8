// What stands above the field where one writes: the files that go with the next message. And the ways to choose them.

import { bytes, t } from "../../i18n/index.js";
import { each, h } from "../../parts/dom.js";
import { icon } from "../../parts/icons.js";
import { listen } from "../../parts/dom.js";
import { signal } from "../../store/signal.js";
import { fileIcon } from "./icon.js";

/** @typedef {import("./choice.js").Choice} Choice */

/** @param {Choice} choice */
export function attachButton(choice) {
  const input = h("input", {
    type: "file",
    multiple: true,
    hidden: true,
    onchange: async () => {
      const files = [...(input.files ?? [])];
      input.value = ""; // the same one may be chosen again
      await choice.add(files);
    },
  });
  return [
    input,
    h(
      "button",
      {
        type: "button",
        class: "icon-button attach",
        "aria-label": t("files.attach"),
        onclick: () => input.click(),
      },
      icon("attach"),
    ),
  ];
}

/** @param {Choice} choice */
export function tray(choice) {
  return h(
    "div",
    { class: "tray", hidden: () => !choice.chosen.value.length && !choice.problem.value },
    h(
      "p",
      { class: "problem", role: "alert", hidden: () => !choice.problem.value },
      () => choice.problem.value,
    ),
    h(
      "ul",
      { class: "chosen", "aria-label": t("files.chosen"), hidden: () => !choice.chosen.value.length },
      each(
        () => choice.chosen.value,
        ({ file }) => file.upload_id,
        (chosen) => row(choice, chosen()),
      ),
    ),
  );
}

/**
 * @param {Choice} choice
 * @param {import("./choice.js").Chosen} chosen
 */
function row(choice, { file, preview }) {
  return h(
    "li",
    { class: "file-card" },
    preview ? h("img", { class: "file-thumb", src: preview, alt: "" }) : fileIcon(file.content_type),
    h("span", { class: "file-name", title: file.name, dir: "auto" }, file.name),
    h("small", null, bytes(file.size)),
    h(
      "button",
      {
        type: "button",
        class: "icon-button",
        "aria-label": t("files.remove", { name: file.name }),
        onclick: () => choice.remove(file.upload_id),
      },
      icon("close"),
    ),
  );
}

/**
 * The whole of an element takes what is dropped on it, and what is pasted into it.
 * @param {HTMLElement} element
 * @param {Choice} choice
 * @returns {HTMLElement} shown while something is held over it
 */
export function dropping(element, choice) {
  const isOver = signal(false);
  let depth = 0; // entering a child comes before leaving its parent
  const hasFiles = (/** @type {DragEvent} */ event) => event.dataTransfer?.types.includes("Files");
  const turn = (/** @type {number} */ by) => {
    depth = by ? Math.max(0, depth + by) : 0;
    isOver.value = depth > 0;
  };
  listen(element, "dragenter", (event) => hasFiles(event) && turn(1));
  listen(element, "dragleave", (event) => hasFiles(event) && turn(-1));
  listen(element, "dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
  });
  listen(element, "drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    turn(0);
    void choice.add([...event.dataTransfer.files]);
  });
  listen(element, "paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    void choice.add(files);
  });
  return h(
    "div",
    { class: "drop-frame", hidden: () => !isOver.value },
    h("p", null, icon("attach"), t("files.drop")),
  );
}
