// A long list that ends at the bottom, of which only what is near the window is in the page. What one looks at stays where
// it is, whatever is put before it, grows above it or turns out taller than was guessed; and whoever is at the end stays
// at the end.

import { effect, onEnd, signal, untracked } from "../store/signal.js";
import { h, Rows } from "./dom.js";

/** @typedef {{ key: string, isLoose?: boolean }} Row isLoose: comes and goes, so that nothing is held to it */
/** @typedef {{ key: string, px: number, isFoot: boolean }} Anchor its head, or foot, is so far below the window's top */

const GUESS_PX = 64; // how tall a row is, until some have been measured
const ENOUGH = 20; // measured, to guess the others by
const BEYOND_PX = 600; // made ready before and after the window
const END_PX = 40; // so near the end one is at the end
const MOST_PASSES = 8; // of measuring and making ready: each finds fewer rows that were guessed wrong
const MOST_HEIGHTS = 60_000;

/** @template {Row} R */
export class Scroller {
  /** whether one sees the end */
  isAtEnd = signal(true);

  /** @type {readonly R[]} */
  #rows = [];
  /** @type {Map<string, number>} */
  #places = new Map();
  /** @type {Map<string, number>} */
  #heights = new Map();
  #tall = new Float64Array(0); // heights, row by row; 0: not measured
  #tops = new Float64Array(1); // of each row, and after the last
  #guess = GUESS_PX;
  #from = 0;
  #to = 0;
  /** @type {Anchor[]} the first of them that is still there holds */
  #anchors = [];
  #isHeldAtEnd = true;
  #height = 0; // of the window
  #set = 0; // scrollTop as it was set here
  /** @type {Set<Element>} */
  #observed = new Set();

  /**
   * @param {() => readonly R[]} rows
   * @param {(row: () => R) => HTMLElement} make a row; it must have no margins
   * @param {() => void} moved something else is in the window now, or may be
   */
  constructor(rows, make, moved) {
    this.moved = moved;
    const foot = document.createComment("");
    this.list = h("ol", null, foot);
    this.element = h(
      "div",
      { class: "scroller", tabindex: "0", onscroll: () => this.#scrolled() },
      this.list,
    );
    this.shown = new Rows(foot, (/** @type {R} */ row) => row.key, make);
    this.observer = new ResizeObserver((entries) => this.#resized(entries));
    this.observer.observe(this.element);
    effect(() => {
      const next = rows();
      untracked(() => this.#take(next));
    });
    onEnd(() => {
      this.observer.disconnect();
      this.shown.dispose();
    });
  }

  /** It is in the page. */
  settle() {
    this.#settle(true);
  }

  toEnd() {
    this.#isHeldAtEnd = true;
    this.#settle(true);
  }

  /**
   * Bring a row to a place: its head so far from the top, in parts of the window; or, without one, just into the window.
   * @param {string} key
   * @param {number | null} [share]
   */
  to(key, share = null) {
    const place = this.#places.get(key);
    if (place === undefined) return;
    const { clientHeight, scrollTop } = this.element;
    let px = Math.round((share ?? 0) * clientHeight);
    if (share === null) {
      const head = this.#tops[place] - scrollTop;
      const foot = this.#tops[place + 1] - scrollTop;
      if (head >= 0 && foot <= clientHeight) return;
      px = head < 0 ? 0 : Math.max(0, clientHeight - (foot - head));
    }
    this.#isHeldAtEnd = false;
    this.#anchors = [{ key, px, isFoot: false }];
    this.#settle(true);
    this.#anchor(this.element.scrollTop); // it may not have come so far
  }

  /**
   * Rows of which the foot, or all below the window's top, is in the window: from, and up to before.
   * @returns {[number, number]}
   */
  inWindow() {
    const { scrollTop, clientHeight } = this.element;
    return [this.#at(scrollTop + 1), this.#at(scrollTop + clientHeight + 1)];
  }

  /** @param {string} key */
  elementOf(key) {
    return this.shown.get(key);
  }

  /** @param {readonly R[]} rows */
  #take(rows) {
    this.#rows = rows;
    this.#places = new Map(rows.map((row, place) => [row.key, place]));
    if (this.#heights.size > MOST_HEIGHTS) this.#heights.clear();
    this.#tall = Float64Array.from(rows, (row) => this.#heights.get(row.key) ?? 0);
    this.#sum();
    this.#from = this.#to = -1; // other rows, perhaps, at the same places
    this.#settle(true);
  }

  #sum() {
    const { length } = this.#rows;
    if (this.#tops.length !== length + 1) this.#tops = new Float64Array(length + 1);
    let top = 0;
    for (let place = 0; place < length; place++) {
      top += this.#tall[place] || this.#guess;
      this.#tops[place + 1] = top;
    }
  }

  /**
   * The row at this height, as far as there are rows.
   * @param {number} px
   */
  #at(px) {
    let low = 0;
    let high = this.#rows.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#tops[middle + 1] <= px) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** @param {boolean} isFollowing whether the end is followed, not only the anchors */
  #settle(isFollowing) {
    this.#height = this.element.clientHeight;
    if (this.#height === 0) return; // not in the page, or hidden in it
    const before = this.element.scrollTop;
    const wanted = () => this.#wanted(isFollowing, before);
    let top = wanted();
    for (let pass = 0; pass < MOST_PASSES && this.#show(top); pass++) top = wanted();
    if (Math.abs(before - top) >= 0.5) {
      this.element.scrollTop = top;
      this.#set = this.element.scrollTop;
    }
    if (!isFollowing || this.#anchors.length === 0) this.#anchor(top); // by what has been measured, not guessed
    this.#noticed(top);
  }

  /**
   * @param {boolean} isFollowing
   * @param {number} before where it stands
   */
  #wanted(isFollowing, before) {
    const most = Math.max(0, this.#tops[this.#rows.length] - this.#height);
    if (isFollowing && this.#isHeldAtEnd) return most;
    for (const { key, px, isFoot } of this.#anchors) {
      const place = this.#places.get(key);
      if (place !== undefined) return Math.max(0, Math.min(most, this.#tops[place + Number(isFoot)] - px));
    }
    return Math.min(most, before);
  }

  /**
   * Have in the page what is near the window when it stands there. Returns whether that changes where anything is.
   * @param {number} top
   */
  #show(top) {
    const from = this.#at(top - BEYOND_PX);
    const to = Math.min(this.#rows.length, this.#at(top + this.#height + BEYOND_PX) + 1);
    if (from === this.#from && to === this.#to) return false;
    this.#from = from;
    this.#to = to;
    const rows = this.#rows.slice(from, to);
    this.#keepFocus(rows);
    this.shown.set(rows);
    this.#observe(rows);
    const isOther = this.#measure();
    this.#pad();
    return isOther;
  }

  /**
   * Keys go on from the list when the row that had the focus leaves the page.
   * @param {readonly R[]} rows
   */
  #keepFocus(rows) {
    const { activeElement } = document;
    if (activeElement === null || !this.list.contains(activeElement)) return;
    if (!rows.some(({ key }) => this.shown.get(key)?.contains(activeElement)))
      this.element.focus({ preventScroll: true });
  }

  /** @param {readonly R[]} rows */
  #observe(rows) {
    const next = new Set(rows.map(({ key }) => /** @type {Element} */ (this.shown.get(key))));
    for (const element of this.#observed) if (!next.has(element)) this.observer.unobserve(element);
    for (const element of next) if (!this.#observed.has(element)) this.observer.observe(element);
    this.#observed = next;
  }

  #measure() {
    let isOther = false;
    for (let place = Math.max(0, this.#from); place < this.#to; place++) {
      const { key } = this.#rows[place];
      const height = this.shown.get(key)?.getBoundingClientRect().height ?? 0;
      if (this.#tall[place] === height) continue;
      this.#tall[place] = height;
      this.#heights.set(key, height);
      isOther = true;
    }
    if (!isOther) return false;
    if (this.#guess === GUESS_PX && this.#heights.size >= ENOUGH) {
      const sum = [...this.#heights.values()].reduce((one, other) => one + other);
      this.#guess = Math.max(1, sum / this.#heights.size);
    }
    this.#sum();
    return true;
  }

  #pad() {
    const after = this.#tops[this.#rows.length] - this.#tops[this.#to];
    this.list.style.setProperty("padding-top", `${this.#tops[this.#from]}px`);
    this.list.style.setProperty("padding-bottom", `${after}px`);
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.element;
    if (Math.abs(scrollTop - this.#set) < 1) return; // not by the one who reads
    this.#set = scrollTop;
    this.#isHeldAtEnd = scrollHeight - scrollTop - clientHeight <= END_PX;
    this.#anchor(scrollTop);
    this.#settle(false);
  }

  /**
   * Hold to the rows that are wholly in the window, the uppermost first.
   * @param {number} top where it stands
   */
  #anchor(top) {
    const first = this.#rows.findIndex((row) => !row.isLoose);
    const from = this.#at(top - 1);
    const whole = this.#tops[from] >= top - 1 ? from : from + 1;
    const to = Math.max(from + 1, this.#at(top + this.element.clientHeight));
    this.#anchors = [];
    for (let place = Math.min(whole, to - 1); place < to && place < this.#rows.length; place++) {
      const { key, isLoose } = this.#rows[place];
      if (isLoose) continue;
      const isFoot = place === first; // what is put before it may change its head
      this.#anchors.push({ key, px: this.#tops[place + Number(isFoot)] - top, isFoot });
    }
  }

  /** @param {ResizeObserverEntry[]} entries */
  #resized(entries) {
    if (this.element.clientHeight === 0) return;
    const isWindow = entries.some(({ target }) => target === this.element);
    const isRow = this.#measure();
    if (isRow) this.#pad();
    if (isRow || isWindow) this.#settle(true);
  }

  /** @param {number} top where it stands now */
  #noticed(top) {
    this.isAtEnd.value = this.#tops[this.#rows.length] - top - this.#height <= END_PX;
    this.moved();
  }
}
