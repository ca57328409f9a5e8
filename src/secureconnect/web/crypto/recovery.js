// A key of 32 bytes in letters that people can copy: base58 with two bytes before and one of parity behind, as
// Matrix writes recovery keys (client-server API, "Recovery key").

import { Problem } from "./problem.js";

const LETTERS = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const BEFORE = [0x8b, 0x01];
const BYTES = 32;
const MOST_CHARS = 200; // typed, with blanks

/**
 * @param {string} base64 of 32 bytes
 * @returns {string} in groups of four
 */
export function writeRecoveryKey(base64) {
  const key = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
  const bytes = [...BEFORE, ...key];
  bytes.push(parity(bytes));
  const text = base58(bytes);
  return (text.match(/.{1,4}/g) ?? []).join(" ");
}

/**
 * @param {string} text
 * @returns {string} base64. Throws RECOVERY_KEY_WRONG for what is no recovery key
 */
export function readRecoveryKey(text) {
  const bytes = text.length <= MOST_CHARS ? unbase58(text.replace(/\s/g, "")) : null;
  const isWhole = bytes?.length === BEFORE.length + BYTES + 1 && parity(bytes) === 0;
  if (!bytes || !isWhole || BEFORE.some((byte, at) => bytes[at] !== byte)) {
    throw new Problem("RECOVERY_KEY_WRONG", "This is no recovery key; look for letters that are wrong.");
  }
  return btoa(String.fromCharCode(...bytes.slice(BEFORE.length, -1)));
}

/** @param {number[]} bytes */
function parity(bytes) {
  return bytes.reduce((sum, byte) => sum ^ byte, 0);
}

/** @param {number[]} bytes of which the first is not 0 */
function base58(bytes) {
  let number = bytes.reduce((sum, byte) => sum * 256n + BigInt(byte), 0n);
  let text = "";
  for (; number > 0n; number /= 58n) text = LETTERS[Number(number % 58n)] + text;
  return text;
}

/** @param {string} text */
function unbase58(text) {
  let number = 0n;
  for (const letter of text) {
    const value = LETTERS.indexOf(letter);
    if (value < 0) return null;
    number = number * 58n + BigInt(value);
  }
  /** @type {number[]} */
  const bytes = [];
  for (; number > 0n; number /= 256n) bytes.unshift(Number(number % 256n));
  return bytes;
}
