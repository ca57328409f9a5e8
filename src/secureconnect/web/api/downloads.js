// Files that the server has: what they are called, where their content is to be had, and of encrypted ones the content
// itself, opened and checked here.

import { Table } from "../store/state.js";
import { Refusal, Unreachable } from "./client.js";

/**
 * @typedef {import("../store/types.js").Attachment} Attachment
 * @typedef {import("../store/types.js").File} FileRecord
 * @typedef {import("../store/types.js").FileKey} FileKey
 * @typedef {{ openedFile(stream: ReadableStream<Uint8Array>, key: FileKey, type: string): Promise<Blob> }} Opening
 */

const MOST_RECORDS = 2_000;
const MOST_ADDRESSES = 1_000;
const MOST_OPENED_BYTES = 157_286_400; // of opened files that are held; the browser keeps large ones on the disk
const MARGIN_MS = 60_000; // before its end an address is asked for anew
const GONE = new Set(["NOT_FOUND", "FORBIDDEN"]);

/** What a browser shows of an opened file; all else is saved. Nothing that could run. */
const SHOWN = /^(image\/(png|jpeg|gif|webp|avif)|(audio|video)\/[\w.+-]+)$/;

export class Downloads {
  /** what the server says of files; null: there is no such file, or none for oneself */
  records = new Table(/** @type {number} */ (MOST_RECORDS));
  /** @type {Map<string, Promise<unknown>>} */
  #reading = new Map();
  /** @type {Map<string, { url: string, ends_ms: number }>} */
  #addresses = new Map();
  /** @type {Map<string, { url: string, size: number }>} */
  #opened = new Map();

  /**
   * @param {import("./client.js").Client} client
   * @param {import("./socket.js").ChatSocket} socket
   * @param {() => Promise<Opening>} opening for what came encrypted; rejects where it cannot be
   */
  constructor(client, socket, opening) {
    this.client = client;
    this.opening = opening;
    socket.on("file_updated", ({ file }) => this.#meet(file));
  }

  /** @param {FileRecord} file */
  #meet(file) {
    this.records.set(file.file_id, file.status === "deleted" ? null : file);
    if (file.status === "deleted") this.#addresses.delete(file.file_id);
  }

  /**
   * To be followed: undefined while it is not known, null when there is no such file any more.
   * @param {string} fileId
   * @returns {FileRecord | null | undefined}
   */
  record(fileId) {
    return /** @type {FileRecord | null | undefined} */ (this.records.get(fileId));
  }

  /**
   * Ask what it is, if that is not known.
   * @param {string} fileId
   */
  async learn(fileId) {
    if (this.records.peek(fileId) !== undefined) return;
    await this.#once(`record ${fileId}`, async () => {
      const told = await this.#ask(fileId, `/v1/storage/files/${fileId}`);
      // what the socket has told while the answer was under way is later
      if (this.records.peek(fileId) === undefined) this.#meet(told);
    });
  }

  /** @param {readonly FileRecord[]} files of a list */
  meet(files) {
    for (const each of files) this.#meet(each);
  }

  /**
   * Where its content is, for about an hour.
   * @param {string} fileId
   * @param {{ isAnew?: boolean }} [how] isAnew: the one that was given has failed
   * @returns {Promise<string>}
   */
  async address(fileId, { isAnew = false } = {}) {
    const known = this.#addresses.get(fileId);
    if (known && !isAnew && known.ends_ms > Date.now()) return known.url;
    return this.#once(`address ${fileId}`, async () => {
      const told = await this.#ask(fileId, `/v1/storage/download-url/${fileId}`);
      const ends_ms = Date.now() + told.expires_in * 1000 - MARGIN_MS;
      this.#addresses.delete(fileId);
      this.#addresses.set(fileId, { url: told.download_url, ends_ms });
      for (const id of first(this.#addresses, this.#addresses.size - MOST_ADDRESSES))
        this.#addresses.delete(id);
      return told.download_url;
    });
  }

  /**
   * An address that an element can show: of what is encrypted, one of the opened content in this browser.
   * @param {Attachment} file
   * @param {{ isAnew?: boolean }} [how]
   * @returns {Promise<string>}
   */
  async shown(file, how) {
    if (!file.cipher) return this.address(file.file_id, how);
    if (how?.isAnew) this.#forget(file.file_id);
    const held = this.#opened.get(file.file_id);
    if (held) {
      this.#opened.delete(file.file_id); // and put last: the ones used longest ago go first
      this.#opened.set(file.file_id, held);
      return held.url;
    }
    return this.#once(`content ${file.file_id}`, async () => this.#hold(file.file_id, await this.open(file)));
  }

  /**
   * The content of an encrypted file, checked. Throws Refusal, Unreachable, or FILE_SPOILT.
   * @param {Attachment} file
   * @returns {Promise<Blob>}
   */
  async open(file) {
    const { openedFile } = await this.opening();
    const url = await this.address(file.file_id);
    const answer = await fetch(url, { credentials: "omit", cache: "no-store" }).catch(() => null);
    if (!answer) throw new Unreachable();
    if (!answer.ok || !answer.body) throw new Refusal(answer.status, { code: "UNAVAILABLE" }, null);
    const type = SHOWN.test(file.content_type ?? "") ? file.content_type : "application/octet-stream";
    return openedFile(answer.body, /** @type {FileKey} */ (file), /** @type {string} */ (type));
  }

  /**
   * @param {string} fileId
   * @param {Blob} blob
   */
  #hold(fileId, blob) {
    const url = URL.createObjectURL(blob);
    this.#opened.set(fileId, { url, size: blob.size });
    let total = [...this.#opened.values()].reduce((sum, { size }) => sum + size, 0);
    for (const [id, { size }] of [...this.#opened]) {
      if (total <= MOST_OPENED_BYTES || id === fileId) break;
      this.#forget(id);
      total -= size;
    }
    return url;
  }

  /** @param {string} fileId */
  #forget(fileId) {
    const held = this.#opened.get(fileId);
    if (!held) return;
    URL.revokeObjectURL(held.url);
    this.#opened.delete(fileId);
  }

  close() {
    for (const id of [...this.#opened.keys()]) this.#forget(id);
  }

  /**
   * @param {string} fileId
   * @param {string} path
   */
  async #ask(fileId, path) {
    try {
      return await this.client.ask("GET", path);
    } catch (error) {
      if (error instanceof Refusal && GONE.has(error.code)) this.records.set(fileId, null);
      throw error;
    }
  }

  /**
   * Asked for once, however many want it.
   * @template T
   * @param {string} what
   * @param {() => Promise<T>} work
   * @returns {Promise<T>}
   */
  #once(what, work) {
    const known = this.#reading.get(what);
    if (known) return /** @type {Promise<T>} */ (known);
    const reading = work().finally(() => this.#reading.delete(what));
    this.#reading.set(what, reading);
    return reading;
  }
}

/**
 * @template K, V
 * @param {Map<K, V>} map
 * @param {number} count
 * @returns {K[]}
 */
function first(map, count) {
  return count > 0 ? [...map.keys()].slice(0, count) : [];
}
