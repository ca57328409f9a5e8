// The files of a message. Room is kept for each before it is there, and content is asked for when it is nearly in view.

import { app } from "../../app.js";
import { bytes, refused, t } from "../../i18n/index.js";
import { h, when } from "../../parts/dom.js";
import { icon } from "../../parts/icons.js";
import { toast } from "../../parts/toast.js";
import { kindOf } from "../../store/attachments.js";
import { onEnd, signal } from "../../store/signal.js";
import { fileIcon } from "./icon.js";

/** @typedef {import("../../store/types.js").Attachment} Attachment */

const LONGEST_PX = 320; // of a picture in a message
const NEAR = "300px";
const OPENED_BY_ITSELF = 5_242_880; // bytes of an encrypted file that are fetched without being asked for
const SAVED_WITHIN_MS = 60_000; // the browser has taken over what it saves

/** @param {readonly Attachment[]} files of one message */
export function attached(files) {
  if (!files.length) return null;
  return h(
    "div",
    { class: "attached" },
    files.map((file) => shown(file, files)),
  );
}

/**
 * @param {Attachment} file
 * @param {readonly Attachment[]} all of the message
 */
function shown(file, all) {
  const { downloads } = app.mine;
  const box = h("div", { class: "attached-one" });
  if (!file.content_type) whenNear(box, () => void downloads.learn(file.file_id).catch(() => {}));
  const whole = () => factsOf(file, downloads.record(file.file_id));
  const isGone = () => downloads.record(file.file_id) === null;
  const isKnown = () => whole().content_type !== undefined;
  box.append(
    h(
      "div",
      { class: "attached-content" },
      when(isGone, gone, () => [
        when(
          isKnown,
          () => contentOf(whole(), all),
          () => waiting(file),
        ),
      ]),
    ),
  );
  return box;
}

/**
 * What the message says of it counts first; the record is there when nothing was said.
 * @param {Attachment} file
 * @param {import("../../store/types.js").File | null | undefined} record
 * @returns {Attachment}
 */
export function factsOf(file, record) {
  if (file.content_type || !record) return file;
  const { file_name, file_size, content_type } = record;
  return { ...file, name: file_name, size: file_size, content_type };
}

function gone() {
  return h("p", { class: "file-card file-gone" }, icon("file"), h("span", null, t("files.gone")));
}

/** @param {Attachment} file */
function waiting(file) {
  return h(
    "p",
    { class: "file-card" },
    fileIcon(undefined),
    h("span", { class: "file-name" }, file.name ?? "…"),
  );
}

/**
 * @param {Attachment} file
 * @param {readonly Attachment[]} all
 */
function contentOf(file, all) {
  switch (kindOf(file.content_type)) {
    case "image":
      return picture(file, all);
    case "video":
      return film(file);
    case "audio":
      return sound(file);
    default:
      return card(file);
  }
}

/** @param {Attachment} file */
function card(file) {
  const { downloads } = app.mine;
  const isBusy = signal(false);
  const button = h(
    "button",
    {
      class: "file-card",
      "aria-busy": () => isBusy.value || null,
      onclick: () => save(file, isBusy),
    },
    fileIcon(file.content_type),
    h("span", { class: "hidden" }, t("files.download", { name: nameOf(file) })),
    h("span", { class: "file-name", dir: "auto", "aria-hidden": "true" }, nameOf(file)),
    file.size === undefined ? null : h("small", null, bytes(file.size)),
    icon("download"),
  );
  whenNear(button, () => void downloads.learn(file.file_id).catch(() => {})); // it may be gone
  return button;
}

/**
 * @param {Attachment} file
 * @param {readonly Attachment[]} all
 */
function picture(file, all) {
  const view = async () => (await import("./viewer.js")).openViewer(all, file);
  const image = h("img", { alt: "", decoding: "async" });
  return loaded(file, image, (content) =>
    h(
      "button",
      { class: "picture", "aria-label": t("files.view", { name: nameOf(file) }), onclick: view },
      content,
    ),
  );
}

/** @param {Attachment} file */
function film(file) {
  const video = h("video", {
    controls: true,
    preload: "metadata",
    playsinline: true,
    "aria-label": nameOf(file),
  });
  return [loaded(file, video, (content) => h("div", { class: "film" }, content)), foot(file)];
}

/** @param {Attachment} file */
function sound(file) {
  const audio = h("audio", { controls: true, preload: "metadata", "aria-label": nameOf(file) });
  return [loaded(file, audio, (content) => h("div", { class: "sound" }, content)), foot(file)];
}

/** @param {Attachment} file the name, and a way to keep it */
function foot(file) {
  const isBusy = signal(false);
  return h(
    "p",
    { class: "file-foot" },
    h("span", { class: "file-name", dir: "auto" }, nameOf(file)),
    file.size === undefined ? null : h("small", null, bytes(file.size)),
    h(
      "button",
      {
        class: "icon-button",
        "aria-label": t("files.download", { name: nameOf(file) }),
        "aria-busy": () => isBusy.value || null,
        onclick: () => save(file, isBusy),
      },
      icon("download"),
    ),
  );
}

/**
 * An element that is given its address when it is nearly in view, or, of a large encrypted file, when it is asked for;
 * and another one when the first has failed.
 * @param {Attachment} file
 * @param {HTMLImageElement | HTMLMediaElement} element
 * @param {(content: Node) => HTMLElement} frame
 */
function loaded(file, element, frame) {
  const problem = signal("");
  const isAsked = signal(!file.cipher || (file.size ?? Infinity) <= OPENED_BY_ITSELF);
  const load = (isAnew = false) => give(file, element, problem, isAnew);
  onFailure(element, load, () => (problem.value = t("files.broken")));
  const framed = frame(element);
  reserve(framed, file);
  const box = h(
    "div",
    { class: "loaded" },
    when(
      () => problem.value !== "",
      () => [
        h(
          "p",
          { class: "file-card" },
          icon("warning"),
          h("span", null, () => problem.value),
          h("button", { onclick: () => void load(true) }, t("chat.retry")),
        ),
        element instanceof HTMLImageElement ? card(file) : null, // film and sound have theirs below
      ],
      () => [
        when(
          () => isAsked.value,
          () => framed,
          () =>
            h(
              "button",
              {
                class: "file-card",
                onclick: () => {
                  isAsked.value = true;
                  void load();
                },
              },
              fileIcon(file.content_type),
              h("span", null, t("files.show", { name: nameOf(file), size: bytes(file.size ?? 0) })),
            ),
        ),
      ],
    ),
  );
  whenNear(box, () => isAsked.peek() && void load());
  return box;
}

/**
 * @param {Attachment} file
 * @param {HTMLImageElement | HTMLMediaElement} element
 * @param {import("../../store/signal.js").Signal<string>} problem
 * @param {boolean} isAnew
 */
async function give(file, element, problem, isAnew) {
  const { downloads } = app.mine;
  problem.value = "";
  try {
    element.src = await downloads.shown(file, { isAnew });
  } catch (error) {
    problem.value = refused(error);
  }
}

/**
 * Its address may be over: once another one is asked for, and what played goes on where it was.
 * @param {HTMLImageElement | HTMLMediaElement} element
 * @param {(isAnew: boolean) => Promise<void>} load
 * @param {() => void} giveUp
 */
function onFailure(element, load, giveUp) {
  let hasFailed = false;
  const isFine = () => (hasFailed = false);
  element.addEventListener("load", isFine);
  element.addEventListener("error", async () => {
    if (!element.getAttribute("src")) return;
    if (hasFailed) return giveUp();
    hasFailed = true;
    const at = element instanceof HTMLMediaElement ? element.currentTime : 0;
    await load(true);
    if (element instanceof HTMLMediaElement) {
      element.addEventListener("loadeddata", isFine, { once: true });
      element.currentTime = at;
      if (at > 0) await element.play().catch(() => {});
    }
  });
}

/**
 * @param {HTMLElement} element
 * @param {Attachment} file
 */
function reserve(element, { width, height, content_type }) {
  if (kindOf(content_type) === "audio") return;
  const [wide, high] = width && height ? [width, height] : [LONGEST_PX, (LONGEST_PX * 3) / 4];
  const scale = Math.min(1, LONGEST_PX / Math.max(wide, high));
  element.style.setProperty("width", `${Math.max(Math.round(wide * scale), 48)}px`);
  element.style.setProperty("aspect-ratio", `${wide} / ${high}`);
}

/**
 * Once, when the element comes near what is seen.
 * @param {Element} element
 * @param {() => void} then
 */
export function whenNear(element, then) {
  const observer = new IntersectionObserver(
    (entries) => {
      if (!entries.some((each) => each.isIntersecting)) return;
      observer.disconnect();
      then();
    },
    { rootMargin: NEAR },
  );
  observer.observe(element);
  onEnd(() => observer.disconnect());
}

/** @param {Attachment} file */
export function nameOf({ name }) {
  return name || t("files.unnamed");
}

/**
 * The browser saves it. The server sends files as what is to be saved, and never run; what was opened here is as
 * harmless.
 * @param {Attachment} file
 * @param {import("../../store/signal.js").Signal<boolean>} [isBusy]
 */
export async function save(file, isBusy = signal(false)) {
  if (isBusy.peek()) return;
  isBusy.value = true;
  const { downloads } = app.mine;
  try {
    const url = file.cipher
      ? brief(new Blob([await downloads.open(file)], { type: "application/octet-stream" }))
      : await downloads.address(file.file_id);
    h("a", { href: url, download: nameOf(file) }).click();
  } catch (error) {
    toast(refused(error));
  } finally {
    isBusy.value = false;
  }
}

/** @param {Blob} blob */
function brief(blob) {
  const url = URL.createObjectURL(blob);
  setTimeout(() => URL.revokeObjectURL(url), SAVED_WITHIN_MS);
  return url;
}
