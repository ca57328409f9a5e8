// The way of one file to the server, from wherever it is: announced, sent, completed; tried again while that may help.

import { effect } from "../store/signal.js";
import { Refusal, Unreachable } from "./client.js";
import { pause } from "./transfer.js";

/**
 * @typedef {import("../store/types.js").Sending} Sending
 * @typedef {import("./uploads.js").Uploads} Uploads
 * @typedef {{ size: number, slice(start: number, end: number): Blob | Promise<Blob> }} Content
 * @typedef {{ file_id: string, upload_url: string | null, parts: { number: number, upload_url: string }[] | null,
 *   parts_done: { number: number }[] | null, part_size: number | null }} Plan as `upload-url` answers
 */

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 30_000;
const MOST_TRIES = 60; // in a row, with a link and nothing that arrived: half an hour
const MOST_BEGINNINGS = 4; // of one file: it was given up by the server meanwhile, or something else arrived
const VERIFIED_EVERY_MS = 1_000;
const HASHED_MOST = 67_108_864; // browsers hash only what is whole in memory; what is larger has no checksum

/** The browser no longer has the file: it is to be chosen again. */
export class ContentGone extends Error {
  constructor() {
    super("the file is to be chosen again");
    this.code = "CONTENT_GONE";
  }
}

export class Journey {
  #tries = 0;
  #beginnings = 0;
  #unanswered = 0; // times that nothing answered at an address of the store

  /**
   * @param {Uploads} uploads
   * @param {Sending} file
   * @param {(facts: Partial<Sending>) => Promise<void>} note
   * @param {AbortSignal} signal
   */
  constructor(uploads, file, note, signal) {
    this.uploads = uploads;
    this.client = uploads.client;
    this.file = file;
    this.note = note;
    this.signal = signal;
    this.sent = uploads.sent(file.upload_id);
  }

  async go() {
    for (;;) {
      try {
        await this.#attempt();
        return;
      } catch (error) {
        this.signal.throwIfAborted();
        if (isOver(error)) await this.#beginAnew(error);
        else await this.#wait(error);
      }
    }
  }

  async #attempt() {
    const plan = await this.#plan();
    if (plan !== null) {
      const content = await this.#content();
      if (plan.upload_url !== null) await this.#sendWhole(plan.upload_url, content);
      else await this.#sendParts(plan, content);
    }
    await this.#complete();
  }

  /**
   * Where to send what is missing.
   * @returns {Promise<Plan | null>} null: all is there
   */
  async #plan() {
    if (!this.file.file_id) return this.#announce();
    try {
      return await this.#ask("GET", `/v1/storage/uploads/${this.file.file_id}`);
    } catch (error) {
      if (codeOf(error) === "UPLOAD_ARRIVED") return null;
      throw error;
    }
  }

  async #announce() {
    await this.#seal();
    const { file } = this;
    const content = await this.#content();
    const begun = (file.begun ?? 0) + 1;
    await this.#keep({ begun }); // first: what is announced under its key is not announced a second time
    const body = file.secret
      ? { file_size: content.size, content_type: "application/octet-stream", is_encrypted: true }
      : {
          file_size: content.size,
          content_type: file.content_type,
          file_name: file.name,
          checksum_sha256: (await hashOf(await this.#chosen())) ?? undefined,
        };
    /** @type {Plan} */
    const plan = await this.#ask("POST", "/v1/storage/upload-url", {
      body,
      idempotencyKey: `${file.upload_id}-${begun}`,
    });
    await this.#keep({ file_id: plan.file_id });
    return plan;
  }

  /** A key is chosen once: what is sent in several goes must be the same bytes. */
  async #seal() {
    if (!this.file.is_encrypted || this.file.secret) return;
    const { newFileKey } = await this.uploads.sealing();
    await this.#keep({ secret: newFileKey() });
  }

  async #chosen() {
    const blob = await this.uploads.content(this.file.upload_id);
    if (blob === null) throw new ContentGone();
    return blob;
  }

  /** @returns {Promise<Content>} */
  async #content() {
    const blob = await this.#chosen();
    if (!this.file.secret) return blob;
    const { SealedFile } = await this.uploads.sealing();
    return new SealedFile(blob, this.file.secret);
  }

  /**
   * @param {string} url
   * @param {Content} content
   */
  async #sendWhole(url, content) {
    const read = () => readable(content, 0, content.size);
    await this.#put(url, read, (bytes) => (this.sent.value = bytes));
  }

  /**
   * @param {Plan} plan
   * @param {Content} content
   */
  async #sendParts(plan, content) {
    const size = /** @type {number} */ (plan.part_size);
    for (
      let next = plan;
      next.parts?.length;
      next = await this.#ask("GET", `/v1/storage/uploads/${plan.file_id}`)
    ) {
      const under = new Map();
      const done = (next.parts_done ?? []).reduce(
        (sum, { number }) => sum + lengthOf(number, size, content),
        0,
      );
      const count = () => (this.sent.value = [...under.values()].reduce((sum, each) => sum + each, done));
      count();
      await everyOne(next.parts, async ({ number, upload_url }) => {
        const read = () => readable(content, (number - 1) * size, number * size);
        await this.#put(upload_url, read, (bytes) => {
          under.set(number, bytes);
          count();
        });
      });
    }
  }

  /**
   * @param {string} url
   * @param {() => Promise<Blob>} read
   * @param {(bytes: number) => void} told
   */
  async #put(url, read, told) {
    try {
      await this.uploads.put(url, read, { signal: this.signal, told });
    } catch (error) {
      if (codeOf(error) === "UPLOAD_ARRIVED") return;
      if (isElsewhere(url) && error instanceof Unreachable) this.#unanswered += 1;
      throw error;
    }
    this.#tries = 0;
    this.#unanswered = 0;
  }

  async #complete() {
    const { file_id } = this.file;
    let { status } = await this.#ask("POST", "/v1/storage/upload-complete", { body: { file_id } });
    while (status === "verifying") {
      await pause(VERIFIED_EVERY_MS, this.signal);
      ({ status } = await this.#ask("GET", `/v1/storage/files/${file_id}`));
    }
    if (status !== "completed") throw new Refusal(409, { code: "UPLOAD_OVER" }, null);
    this.sent.value = this.file.size;
  }

  /** @param {unknown} error */
  async #beginAnew(error) {
    this.#beginnings += 1;
    if (this.#beginnings > MOST_BEGINNINGS) throw error;
    this.sent.value = 0;
    await this.#keep({ file_id: undefined });
  }

  /** @param {unknown} error */
  async #wait(error) {
    if (!passes(error)) throw error;
    await isOnline(this.uploads.link, this.signal);
    this.#tries += 1;
    if (this.#tries > MOST_TRIES) throw error;
    const told = error instanceof Refusal ? (error.retryAfterS ?? 0) * 1000 : 0;
    const own = Math.min(FIRST_PAUSE_MS * 2 ** (this.#tries - 1), LONGEST_PAUSE_MS);
    await pause(Math.max(told, own * (0.5 + Math.random())), this.signal);
    if (this.#unanswered > 1) await this.#goElsewhere();
  }

  /** While the store is away the server itself takes what is announced now; not what it had sent to the store. */
  async #goElsewhere() {
    this.#unanswered = 0;
    if (this.sent.peek() > 0) return; // of a large file something is there: it waits for the store
    await this.#ask("DELETE", `/v1/storage/files/${this.file.file_id}`).catch(() => {});
    await this.#keep({ file_id: undefined });
  }

  /** @param {Partial<Sending>} facts */
  async #keep(facts) {
    this.file = { ...this.file, ...facts };
    if (!this.signal.aborted) await this.note(facts);
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {import("./client.js").Asked} [asked]
   */
  #ask(method, path, asked = {}) {
    return this.client.ask(method, path, { ...asked, signal: this.signal });
  }
}

/**
 * @param {unknown} error
 * @returns {string | undefined}
 */
function codeOf(error) {
  return /** @type {{ code?: string }} */ (error).code;
}

/**
 * The server has given this upload up, or what has arrived is not what was announced.
 * @param {unknown} error
 */
function isOver(error) {
  const code = codeOf(error) ?? "";
  return ["UPLOAD_OVER", "UPLOAD_MISMATCH", "NOT_FOUND"].includes(code);
}

const LATER = new Set(["UPLOAD_MISSING", "CONFLICT", "ADDRESS_EXPIRED", "IDEMPOTENCY_KEY_IN_USE"]);

/** @param {unknown} error */
function passes(error) {
  if (error instanceof Unreachable) return true;
  if (!(error instanceof Refusal)) return false;
  // a store says nothing of ours: its address is over, or it is busy
  return error.passes || LATER.has(error.code) || error.code === "UNKNOWN" || error.status >= 500;
}

/**
 * Returns when there is a link.
 * @param {{ readonly value: string }} link
 * @param {AbortSignal} signal
 */
async function isOnline(link, signal) {
  let end = () => {};
  try {
    await new Promise((resolve, reject) => {
      end = effect(() => {
        if (link.value === "online") resolve(undefined);
      });
      signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    });
  } finally {
    end();
  }
}

/** @param {string} url */
function isElsewhere(url) {
  return new URL(url, location.origin).origin !== location.origin;
}

/**
 * @param {number} number of a part, from 1
 * @param {number} size of one
 * @param {Content} content
 */
function lengthOf(number, size, content) {
  return Math.min(size, content.size - (number - 1) * size);
}

/**
 * @param {Content} content
 * @param {number} start
 * @param {number} end
 */
async function readable(content, start, end) {
  const blob = await content.slice(start, Math.min(end, content.size));
  try {
    await blob.slice(0, 1).arrayBuffer();
  } catch {
    throw new ContentGone(); // moved, changed or deleted since it was chosen
  }
  return blob;
}

/**
 * @param {Blob} blob
 * @returns {Promise<string | null>} SHA-256 in hexadecimal; null where the browser cannot tell
 */
async function hashOf(blob) {
  if (!globalThis.crypto.subtle || blob.size > HASHED_MOST) return null;
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", await blob.arrayBuffer()));
  return [...hash].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * All of them, also when one fails; then with the first failure.
 * @template T
 * @param {readonly T[]} items
 * @param {(item: T) => Promise<void>} work
 */
async function everyOne(items, work) {
  const ends = await Promise.allSettled(items.map(work));
  const failed = ends.find((each) => each.status === "rejected");
  if (failed) throw failed.reason;
}
