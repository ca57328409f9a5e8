// Files on their way to the server: announced, sent to the addresses that are given for them, completed. What breaks off
// goes on where it was; after a reload, too, as long as the file is still there. How that is done is loaded with the
// first one.

import { signal } from "../store/signal.js";

/**
 * @typedef {import("../store/types.js").Sending} Sending
 * @typedef {import("../store/types.js").FileKey} FileKey
 * @typedef {import("./journey.js").Content} Content
 * @typedef {{ newFileKey(): FileKey, SealedFile: new (blob: Blob, key: FileKey) => Content }} Sealing
 */

const MOST_AT_ONCE = 3; // files, or parts of them

export class Uploads {
  #turns = new Turns();
  /** @type {Map<string, Blob>} chosen since the page was loaded */
  #chosen = new Map();
  /** @type {Map<string, AbortController>} */
  #running = new Map();
  /** @type {Map<string, import("../store/signal.js").Signal<number>>} */
  #sent = new Map();

  /**
   * @param {import("./client.js").Client} client
   * @param {import("../store/disk.js").Disk} disk
   * @param {{ readonly value: string }} link of the socket: without it nothing is tried
   * @param {() => Promise<Sealing>} sealing for what is sent encrypted; rejects where it cannot be
   */
  constructor(client, disk, link, sealing) {
    this.client = client;
    this.disk = disk;
    this.link = link;
    this.sealing = sealing;
  }

  /**
   * @param {string} uploadId
   * @param {Blob} blob
   */
  hold(uploadId, blob) {
    this.#chosen.set(uploadId, blob);
  }

  /** @param {string} uploadId */
  release(uploadId) {
    this.#chosen.delete(uploadId);
    this.#sent.delete(uploadId);
  }

  /**
   * What is to be sent, as it was chosen.
   * @param {string} uploadId
   * @returns {Promise<Blob | null>} null: it is to be chosen again
   */
  async content(uploadId) {
    return this.#chosen.get(uploadId) ?? (await this.disk.get("blobs", uploadId)) ?? null;
  }

  /**
   * Bytes that have gone out, to be followed.
   * @param {string} uploadId
   */
  sent(uploadId) {
    let found = this.#sent.get(uploadId);
    if (found === undefined) {
      found = signal(0);
      this.#sent.set(uploadId, found);
    }
    return found;
  }

  /** @param {string} uploadId */
  stop(uploadId) {
    this.#running.get(uploadId)?.abort();
  }

  close() {
    for (const each of this.#running.values()) each.abort();
    this.#chosen.clear();
  }

  /**
   * Carry a file to the server. Whatever comes of it is noted; nothing is when it was stopped.
   * @param {Sending} file
   * @param {(facts: Partial<Sending>) => Promise<void>} note
   */
  async run(file, note) {
    if (this.#running.has(file.upload_id)) return;
    const stop = new AbortController();
    this.#running.set(file.upload_id, stop);
    try {
      const { Journey } = await import("./journey.js");
      await new Journey(this, file, note, stop.signal).go();
      if (!stop.signal.aborted) await note({ state: "done" });
    } catch (error) {
      if (stop.signal.aborted) return;
      const { code = "UNKNOWN" } = /** @type {{ code?: string }} */ (error);
      await note(code === "CONTENT_GONE" ? { state: "lost" } : { state: "failed", code });
    } finally {
      this.#running.delete(file.upload_id);
    }
  }

  /**
   * Nobody wants it any more. If the server cannot be told it gives the upload up by itself.
   * @param {Sending} file
   */
  async abandon(file) {
    this.stop(file.upload_id);
    this.release(file.upload_id);
    if (!file.file_id) return;
    try {
      await this.client.ask("DELETE", `/v1/storage/files/${file.file_id}`);
    } catch {
      // as above
    }
  }

  /**
   * Some at a time; what is to be sent is read, or sealed, when its turn has come.
   * @param {string} url
   * @param {() => Promise<Blob>} read
   * @param {{ signal: AbortSignal, told: (bytes: number) => void }} how
   */
  put(url, read, how) {
    return this.#turns.take(async () => {
      how.signal.throwIfAborted();
      const [blob, { put }] = await Promise.all([read(), import("./transfer.js")]);
      await put(url, blob, how);
      how.told(blob.size);
    });
  }
}

/** So many at a time, of all files together; the others wait in their order. */
class Turns {
  #free = MOST_AT_ONCE;
  /** @type {(() => void)[]} */
  #waiting = [];

  /**
   * @template T
   * @param {() => Promise<T>} work
   * @returns {Promise<T>}
   */
  async take(work) {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise((resolve) => this.#waiting.push(() => resolve(undefined)));
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#free += 1;
    }
  }
}
