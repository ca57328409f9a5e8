// Recordings of calls, sealed as they are made: as files are, though nobody knows yet how long they become. What is made
// is cut into parts of one size, whatever the pieces it comes in; only the last part is shorter, and says that it is the
// last. So a recording of which the end is missing, as of a browser that was closed, is known for that.

import { Cipher, joined, newFileKey, openFile } from "./files.js";

const PART_BYTES = 16_384; // what a browser that is closed loses at most: a tenth of a second of a film, two of a voice

/** @typedef {import("./files.js").FileKey} FileKey */

/** @returns {FileKey} for one recording, never for a second */
export function newRecordingKey() {
  return newFileKey(PART_BYTES);
}

export class RecordingSealer {
  #part = 0;
  #rest = new Uint8Array();

  /**
   * @param {Cipher} cipher
   * @param {number} partBytes
   */
  constructor(cipher, partBytes) {
    this.cipher = cipher;
    this.partBytes = partBytes;
  }

  /** @param {FileKey} key */
  static async of(key) {
    return new RecordingSealer(await Cipher.of(key), key.part_bytes);
  }

  /**
   * One piece after the other.
   * @param {ArrayBuffer} piece
   * @returns {Promise<ArrayBuffer>} what is whole by now: may be nothing
   */
  async add(piece) {
    let all = joined([this.#rest, new Uint8Array(piece)], this.#rest.length + piece.byteLength);
    /** @type {Uint8Array[]} */
    const sealed = [];
    let length = 0;
    while (all.length > this.partBytes) {
      const part = await this.cipher.seal(all.subarray(0, this.partBytes), this.#part++, false);
      sealed.push(part);
      length += part.length;
      all = all.subarray(this.partBytes);
    }
    this.#rest = all.slice();
    return joined(sealed, length).buffer;
  }

  /**
   * Nothing comes after it.
   * @returns {Promise<ArrayBuffer>}
   */
  async end() {
    return (await this.cipher.seal(this.#rest, this.#part, true)).buffer;
  }
}

/**
 * @param {ReadableStream<Uint8Array>} stream what was downloaded
 * @param {FileKey} key
 * @param {string} contentType
 * @returns {Promise<{ blob: Blob, isWhole: boolean }>} isWhole: its end is there.  Rejects with FILE_SPOILT
 */
export async function openedRecording(stream, key, contentType) {
  let isWhole = true;
  /** @type {Blob[]} */
  const parts = [];
  for await (const part of openFile(stream, key, () => (isWhole = false))) parts.push(new Blob([part]));
  return { blob: new Blob(parts, { type: contentType }), isWhole };
}
