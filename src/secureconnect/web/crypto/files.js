// Files sealed in parts, so that of a large one never more than a part is in memory, in either direction.
//
// AES-256-GCM for each part, with a nonce of the file's 7 random bytes, the number of the part and whether it is the
// last (the STREAM construction of Hoang, Reyhanitabar, Rogaway and Vizár, 2015): a part that is changed, left out,
// moved or missing at the end is noticed before it is shown. A file has a key of its own, which its message carries.

import { Problem } from "./problem.js";

export const CIPHER = "aes-256-gcm-parts";
const PART_BYTES = 5_242_880; // of the file; a sealed part has TAG_BYTES more
const TAG_BYTES = 16;
const MOST_PART_BYTES = 67_108_864; // of a part that somebody else has chosen
const IV_BYTES = 7;

/**
 * @typedef {object} FileKey what the message says of it
 * @property {string} cipher
 * @property {string} key 32 bytes in base64
 * @property {string} iv 7 bytes in base64
 * @property {number} part_bytes
 */

/**
 * @param {number} [partBytes]
 * @returns {FileKey} for one file, never for a second
 */
export function newFileKey(partBytes = PART_BYTES) {
  const key = base64(crypto.getRandomValues(new Uint8Array(32)));
  const iv = base64(crypto.getRandomValues(new Uint8Array(IV_BYTES)));
  return { cipher: CIPHER, key, iv, part_bytes: partBytes };
}

/**
 * @param {number} size of the file
 * @returns {number} what is to be announced to the server
 */
export function sealedSize(size) {
  return size + TAG_BYTES * partsOf(size, PART_BYTES);
}

/** A file as it is sent: like a Blob, sealed as it is read. The same bytes each time, so any part may be sent again. */
export class SealedFile {
  /**
   * @param {Blob} blob
   * @param {FileKey} fileKey
   */
  constructor(blob, fileKey) {
    this.blob = blob;
    this.fileKey = fileKey;
    this.size = sealedSize(blob.size);
    this.cipher = Cipher.of(fileKey);
    /** @type {{part: number, bytes: Uint8Array<ArrayBuffer>}?} the last one, of which the rest is asked for next */
    this.kept = null;
  }

  /**
   * @param {number} start
   * @param {number} end
   * @returns {Promise<Blob>}
   */
  async slice(start, end) {
    const sealed = PART_BYTES + TAG_BYTES;
    const stop = Math.min(end, this.size);
    /** @type {Blob[]} */
    const pieces = [];
    for (let part = Math.floor(start / sealed); part * sealed < stop; part += 1) {
      const bytes = await this.#part(part);
      const from = Math.max(start - part * sealed, 0);
      pieces.push(new Blob([bytes.subarray(from, stop - part * sealed)]));
    }
    return new Blob(pieces);
  }

  /** @param {number} part */
  async #part(part) {
    if (this.kept?.part === part) return this.kept.bytes;
    const plain = await this.blob.slice(part * PART_BYTES, (part + 1) * PART_BYTES).arrayBuffer();
    const isLast = part === partsOf(this.blob.size, PART_BYTES) - 1;
    const bytes = await (await this.cipher).seal(plain, part, isLast);
    this.kept = { part, bytes };
    return bytes;
  }
}

/**
 * @param {ReadableStream<Uint8Array>} stream what was downloaded
 * @param {FileKey} fileKey
 * @param {(() => void) | null} [cut] told when the end is missing, of what may end anywhere; else it is spoilt then
 * @returns {AsyncGenerator<Uint8Array<ArrayBuffer>>} its parts, each checked.  Throws FILE_SPOILT
 */
export async function* openFile(stream, fileKey, cut = null) {
  const cipher = await Cipher.of(fileKey);
  const sealed = fileKey.part_bytes + TAG_BYTES;
  const reader = stream.getReader();
  try {
    /** @type {Uint8Array[]} */
    let pieces = [];
    let length = 0;
    for (let part = 0; ;) {
      const { value, done } = await reader.read();
      if (value) {
        pieces.push(value);
        length += value.length;
      }
      while (length > sealed) {
        const whole = joined(pieces, length);
        yield await cipher.open(whole.subarray(0, sealed), part++, false);
        pieces = [whole.subarray(sealed)];
        length -= sealed;
      }
      if (done) {
        yield await openLast(cipher, joined(pieces, length), part, cut);
        return;
      }
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/**
 * @param {Cipher} cipher
 * @param {Uint8Array<ArrayBuffer>} sealed
 * @param {number} part
 * @param {(() => void) | null} cut
 */
async function openLast(cipher, sealed, part, cut) {
  try {
    return await cipher.open(sealed, part, true);
  } catch (error) {
    if (cut === null) throw error;
    const opened = await cipher.open(sealed, part, false);
    cut();
    return opened;
  }
}

/**
 * The whole file; the browser keeps large ones on the disk.
 * @param {ReadableStream<Uint8Array>} stream
 * @param {FileKey} fileKey
 * @param {string} contentType
 * @returns {Promise<Blob>}
 */
export async function openedFile(stream, fileKey, contentType) {
  /** @type {Blob[]} */
  const parts = [];
  for await (const part of openFile(stream, fileKey)) parts.push(new Blob([part]));
  return new Blob(parts, { type: contentType });
}

export class Cipher {
  /**
   * @param {CryptoKey} key
   * @param {Uint8Array} iv
   */
  constructor(key, iv) {
    this.key = key;
    this.iv = iv;
  }

  /**
   * @param {FileKey} fileKey
   * @returns {Promise<Cipher>}
   */
  static async of({ cipher, key, iv, part_bytes }) {
    const isKnown = cipher === CIPHER && part_bytes > 0 && part_bytes <= MOST_PART_BYTES;
    const [keyBytes, ivBytes] = [bytesOf(key), bytesOf(iv)];
    if (!isKnown || keyBytes.length !== 32 || ivBytes.length !== IV_BYTES) throw spoilt();
    const imported = await crypto.subtle.importKey("raw", keyBytes, "AES-GCM", false, ["encrypt", "decrypt"]);
    return new Cipher(imported, ivBytes);
  }

  /**
   * @param {BufferSource} plain
   * @param {number} part
   * @param {boolean} isLast
   */
  async seal(plain, part, isLast) {
    return new Uint8Array(await crypto.subtle.encrypt(this.#nonce(part, isLast), this.key, plain));
  }

  /**
   * @param {Uint8Array<ArrayBuffer>} sealed
   * @param {number} part
   * @param {boolean} isLast
   */
  async open(sealed, part, isLast) {
    try {
      return new Uint8Array(await crypto.subtle.decrypt(this.#nonce(part, isLast), this.key, sealed));
    } catch {
      throw spoilt();
    }
  }

  /**
   * @param {number} part
   * @param {boolean} isLast
   */
  #nonce(part, isLast) {
    const iv = new Uint8Array(IV_BYTES + 5);
    iv.set(this.iv);
    new DataView(iv.buffer).setUint32(IV_BYTES, part);
    iv[IV_BYTES + 4] = isLast ? 1 : 0;
    return { name: "AES-GCM", iv };
  }
}

/**
 * An empty file has one part, too.
 * @param {number} size
 * @param {number} partBytes
 */
function partsOf(size, partBytes) {
  return Math.max(1, Math.ceil(size / partBytes));
}

/**
 * @param {Uint8Array[]} pieces
 * @param {number} length
 */
export function joined(pieces, length) {
  const whole = new Uint8Array(length);
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

/** @param {Uint8Array} bytes */
function base64(bytes) {
  return btoa(String.fromCharCode(...bytes));
}

/** @param {unknown} text */
function bytesOf(text) {
  try {
    return Uint8Array.from(atob(/** @type {string} */ (text)), (char) => char.charCodeAt(0));
  } catch {
    return new Uint8Array();
  }
}

function spoilt() {
  return new Problem("FILE_SPOILT", "This file is not what was sent.");
}
