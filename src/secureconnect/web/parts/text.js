// What people write, as text: addresses in it are links, and names that are meant stand out. Nothing in it is markup.

import { h } from "./dom.js";

/** @typedef {{ name: string, isMe: boolean }} Meant somebody a text names */

// Up to a blank, a quotation mark, or a character that would turn the direction of what is shown.
const ADDRESS = /\b(?:https?:\/\/|www\.)[^\s<>"\u0000-\u001f\u200e\u200f\u202a-\u202e\u2066-\u2069]+/giu;
const NAME = /(?<![\w.@/-])@([A-Za-z0-9_][A-Za-z0-9_.-]{1,48}[A-Za-z0-9_-])/g;
const TRAILING = /[.,:;!?'’”…\])}]$/u;
const MOST_LINKS = 200; // in one text
const PAIRS = /** @type {Record<string, string>} */ ({ ")": "(", "]": "[", "}": "{" });

/**
 * @param {string} text
 * @param {(username: string) => Meant | null} [meant] who is meant by a name
 * @returns {Node[]}
 */
export function textNodes(text, meant) {
  /** @type {Node[]} */
  const nodes = [];
  let at = 0;
  const plain = (/** @type {number} */ to) => to > at && nodes.push(...namesIn(text.slice(at, to), meant));
  for (const found of text.matchAll(ADDRESS)) {
    const shown = trimmed(found[0]);
    const href = addressOf(shown);
    if (href === null || nodes.length > 2 * MOST_LINKS) continue;
    plain(found.index);
    nodes.push(h("a", { href, target: "_blank", rel: "noopener noreferrer", dir: "ltr" }, shown));
    at = found.index + shown.length;
  }
  plain(text.length);
  return nodes;
}

/**
 * Without the full stop of the sentence it stands in, and the bracket it stands in.
 * @param {string} address
 */
function trimmed(address) {
  let shown = address;
  while (TRAILING.test(shown)) {
    const opening = PAIRS[shown[shown.length - 1]];
    if (opening && count(shown, opening) >= count(shown, shown[shown.length - 1])) break;
    shown = shown.slice(0, -1);
  }
  return shown;
}

/**
 * @param {string} text
 * @param {string} character
 */
function count(text, character) {
  return text.split(character).length - 1;
}

/** @param {string} shown */
function addressOf(shown) {
  const whole = shown.toLowerCase().startsWith("www.") ? `https://${shown}` : shown;
  if (!URL.canParse(whole)) return null;
  const url = new URL(whole);
  return url.protocol === "https:" || url.protocol === "http:" ? url.href : null;
}

/**
 * @param {string} text
 * @param {(username: string) => Meant | null} [meant]
 * @returns {Node[]}
 */
function namesIn(text, meant) {
  if (meant === undefined) return [document.createTextNode(text)];
  /** @type {Node[]} */
  const nodes = [];
  let at = 0;
  for (const found of text.matchAll(NAME)) {
    const whom = meant(found[1].toLowerCase());
    if (whom === null) continue;
    const mention = h(
      "span",
      { class: whom.isMe ? "mention me" : "mention", title: found[0] },
      `@${whom.name}`,
    );
    nodes.push(document.createTextNode(text.slice(at, found.index)), mention);
    at = found.index + found[0].length;
  }
  nodes.push(document.createTextNode(text.slice(at)));
  return nodes;
}
