// Pictures of a message over the whole page.

import { app } from "../../app.js";
import { refused, t } from "../../i18n/index.js";
import { openDialog } from "../../parts/dialog.js";
import { h, listen } from "../../parts/dom.js";
import { icon } from "../../parts/icons.js";
import { kindOf } from "../../store/attachments.js";
import { effect, signal } from "../../store/signal.js";
import { nameOf, save } from "./attached.js";

/** @typedef {import("../../store/types.js").Attachment} Attachment */

const LARGEST = 8;
const STEP = 1.5;

/**
 * Returns when it is closed.
 * @param {readonly Attachment[]} files of a message
 * @param {Attachment} first
 */
export async function openViewer(files, first) {
  const known = files.filter((each) => kindOf(each.content_type) === "image");
  const pictures = known.some((each) => each.file_id === first.file_id) ? known : [first];
  const place = signal(pictures.findIndex((each) => each.file_id === first.file_id));
  await openDialog(t("files.view", { name: nameOf(first) }), (close) => build(pictures, place, close), {
    class: "viewer",
    isHeadless: true,
  });
}

/**
 * @param {readonly Attachment[]} pictures
 * @param {import("../../store/signal.js").Signal<number>} place
 * @param {() => void} close
 */
function build(pictures, place, close) {
  const zoom = signal(1);
  const problem = signal("");
  const now = () => /** @type {Attachment} */ (pictures[place.value]);
  const go = (/** @type {number} */ by) => {
    const next = place.peek() + by;
    if (next >= 0 && next < pictures.length) place.value = next;
  };
  const scale = (/** @type {number} */ by) => (zoom.value = Math.min(LARGEST, Math.max(1, zoom.peek() * by)));
  const image = h("img", {
    alt: () => nameOf(now()),
    onclick: () => (zoom.value = zoom.peek() > 1 ? 1 : STEP ** 2),
  });
  effect(() => {
    const file = now();
    zoom.value = 1;
    problem.value = "";
    image.removeAttribute("src");
    app.mine.downloads.shown(file).then(
      (url) => file === now() && (image.src = url),
      (error) => (problem.value = refused(error)),
    );
  });
  effect(() => image.style.setProperty("width", zoom.value > 1 ? `${zoom.value * 100}%` : ""));
  const keys = /** @type {Record<string, () => void>} */ ({
    ArrowLeft: () => go(-1),
    ArrowRight: () => go(1),
    "+": () => scale(STEP),
    "-": () => scale(1 / STEP),
  });
  const button = (/** @type {string} */ picture, /** @type {string} */ name, /** @type {() => void} */ run) =>
    h("button", { class: "icon-button", "aria-label": name, onclick: run }, icon(picture));
  const many = pictures.length > 1;
  const whole = h(
    "div",
    { class: "viewer-whole" },
    h(
      "header",
      null,
      h("span", { class: "file-name", dir: "auto" }, () => nameOf(now())),
      many ? h("small", null, () => t("files.of", { place: place.value + 1, count: pictures.length })) : null,
      button("zoom-out", t("files.zoomOut"), () => scale(1 / STEP)),
      button("zoom-in", t("files.zoomIn"), () => scale(STEP)),
      h(
        "button",
        {
          class: "icon-button",
          "aria-label": () => t("files.download", { name: nameOf(now()) }),
          onclick: () => void save(now()),
        },
        icon("download"),
      ),
      button("close", t("common.close"), close),
    ),
    h("p", { class: "problem", role: "alert", hidden: () => !problem.value }, () => problem.value),
    h("div", { class: () => `viewer-stage ${zoom.value > 1 ? "zoomed" : ""}` }, image),
    many
      ? h(
          "footer",
          null,
          button("back", t("files.previous"), () => go(-1)),
          button("next", t("files.next"), () => go(1)),
        )
      : null,
  );
  listen(
    whole,
    "wheel",
    (event) => event.ctrlKey && (event.preventDefault(), scale(event.deltaY < 0 ? STEP : 1 / STEP)),
    {
      passive: false,
    },
  );
  listen(document, "keydown", (event) => keys[event.key]?.());
  return whole;
}
