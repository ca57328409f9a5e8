// Files chosen for the next message: by the button, dropped on the conversation, or pasted. What cannot be sent is said
// here, before anything is.

import { newId } from "../../api/ids.js";
import { app } from "../../app.js";
import { bytes, t } from "../../i18n/index.js";
import { batch, signal } from "../../store/signal.js";
import { kindOf, kindOfAll } from "../../store/attachments.js";

/**
 * @typedef {import("../../store/types.js").Draft} Draft
 * @typedef {import("../../store/types.js").Sending} Sending
 * @typedef {{ file: Sending, blob: Blob, preview: string | null }} Chosen preview: address of a picture
 */

const MEASURED_WITHIN_MS = 3_000;
const MEASURED_MOST = 104_857_600; // larger pictures are sent without their size

export class Choice {
  chosen = signal(/** @type {readonly Chosen[]} */ ([]));
  /** what was not taken, and why */
  problem = signal("");
  #adding = Promise.resolve();
  #begun = 0; // times that files are being added

  /** @param {string} conversationId */
  constructor(conversationId) {
    this.conversationId = conversationId;
  }

  /**
   * Returns when they are chosen, or are not.
   * @param {Iterable<File>} files
   */
  add(files) {
    this.#begun += 1;
    this.#adding = this.#adding
      .then(() => this.#add(files))
      .catch(reportError)
      .finally(() => (this.#begun -= 1));
    return this.#adding;
  }

  /** Nothing is chosen, nor about to be. */
  get isEmpty() {
    return this.#begun === 0 && this.chosen.peek().length === 0;
  }

  /** @param {Iterable<File>} files */
  async #add(files) {
    this.problem.value = "";
    const fit = [];
    for (const each of files) {
      const problem = await problemOf(each);
      if (problem) this.problem.value = problem;
      else fit.push(each);
    }
    const most = limit("message_files");
    const room = most - this.chosen.peek().length;
    if (fit.length > room) this.problem.value = t("files.tooMany", { count: most });
    const taken = await this.#withinQuota(fit.slice(0, Math.max(0, room)));
    const measured = await Promise.all(taken.map(chosenOf));
    this.chosen.update((before) => [...before, ...measured]);
  }

  /**
   * All of them, or none: which ones to leave out is not ours to say.
   * @param {File[]} files
   */
  async #withinQuota(files) {
    if (!files.length) return files;
    try {
      const { available_bytes } = await app.mine.client.ask("GET", "/v1/storage/quota");
      const before = this.chosen.peek().reduce((sum, { file }) => sum + file.size, 0);
      if (files.reduce((sum, { size }) => sum + size, before) <= available_bytes) return files;
      this.problem.value = t("files.noRoom", { free: bytes(available_bytes) });
      return [];
    } catch {
      return files; // the upload will learn it
    }
  }

  /** @param {string} id */
  remove(id) {
    this.problem.value = "";
    const gone = this.chosen.peek().find(({ file }) => file.upload_id === id);
    if (gone?.preview) URL.revokeObjectURL(gone.preview);
    this.chosen.update((before) => before.filter((each) => each !== gone));
  }

  /**
   * What is sent now; nothing is chosen any more.
   * @returns {Promise<{ draft: Partial<Draft>, blobs: Map<string, Blob>, putBack: () => void }>} putBack: it could not be
   */
  async take() {
    await this.#adding; // what was dropped just before Enter was pressed
    const taken = this.chosen.peek();
    this.clear();
    if (!taken.length) return { draft: {}, blobs: new Map(), putBack: () => {} };
    const { settings } = app.state.conversations.peek(this.conversationId) ?? {};
    const is_encrypted = settings?.is_e2ee_enabled ?? true; // of a conversation nothing is known of yet, too
    const files = taken.map(({ file }) => ({ ...file, is_encrypted }));
    return {
      draft: { files, message_type: kindOfAll(files) },
      blobs: new Map(taken.map(({ file, blob }) => [file.upload_id, blob])),
      putBack: () => void this.add(taken.map(({ file, blob }) => new File([blob], file.name, blob))),
    };
  }

  clear() {
    for (const { preview } of this.chosen.peek()) if (preview) URL.revokeObjectURL(preview);
    batch(() => {
      this.chosen.value = [];
      this.problem.value = "";
    });
  }
}

/** @param {string} name */
function limit(name) {
  return app.state.server.peek()?.limits[name] ?? Infinity;
}

/** @param {File} file */
async function problemOf(file) {
  const most = limit("file_bytes");
  if (file.size > most) return t("files.tooLarge", { name: file.name, most: bytes(most) });
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    return t("files.unreadable", { name: file.name }); // a folder, for one
  }
  return file.size === 0 ? t("files.empty", { name: file.name }) : "";
}

/**
 * @param {File} blob
 * @returns {Promise<Chosen>}
 */
async function chosenOf(blob) {
  const content_type = typeOf(blob);
  const kind = kindOf(content_type);
  const isSeen = (kind === "image" || kind === "video") && blob.size <= MEASURED_MOST;
  const url = isSeen ? URL.createObjectURL(blob) : null;
  const size = url ? await within(kind === "image" ? pictureSize(url) : filmSize(url)) : null;
  if (url && kind === "video") URL.revokeObjectURL(url);
  const file = /** @type {Sending} */ ({
    upload_id: newId(),
    name: nameOf(blob),
    size: blob.size,
    content_type,
    is_encrypted: false,
    state: "waiting",
    ...(size?.width ? size : {}),
  });
  return { file, blob, preview: kind === "image" ? url : null };
}

const TYPE = /^[\w!#$&^.+-]+\/[\w!#$&^.+-]+$/; // as the server takes it

/** @param {File} file */
function typeOf({ type }) {
  const plain = type.split(";")[0]?.trim() ?? "";
  return TYPE.test(plain) && plain.length <= 200 ? plain : "application/octet-stream";
}

/**
 * At most 255 characters, the ending kept, and nothing that steers a terminal.
 * @param {File} file
 */
function nameOf({ name }) {
  const plain = [...name.replaceAll(/\p{Cc}/gu, "")];
  return plain.length > 255
    ? [...plain.slice(0, 215), ...plain.slice(-40)].join("")
    : plain.join("") || "file";
}

/** @param {string} url */
async function pictureSize(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return { width: image.naturalWidth, height: image.naturalHeight };
}

/**
 * @param {string} url
 * @returns {Promise<{ width: number, height: number }>}
 */
function filmSize(url) {
  const video = document.createElement("video");
  video.preload = "metadata";
  return new Promise((resolve, reject) => {
    video.onloadedmetadata = () => resolve({ width: video.videoWidth, height: video.videoHeight });
    video.onerror = reject;
    video.src = url;
  });
}

/**
 * @template T
 * @param {Promise<T>} measuring
 * @returns {Promise<T | null>} null: it is broken, or takes too long
 */
function within(measuring) {
  const late = new Promise((resolve) => setTimeout(() => resolve(null), MEASURED_WITHIN_MS));
  return /** @type {Promise<T | null>} */ (Promise.race([measuring, late]).catch(() => null));
}
