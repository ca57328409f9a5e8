// Elements that follow signals. Text is text: nothing here, and nothing that uses it, parses HTML.

import { effect, onEnd, scope, signal, untracked } from "../store/signal.js";

/** @typedef {Node | string | number | null | undefined | false | Child[] | (() => any)} Child */
/** @typedef {Record<string, any>} Props */

// Set as properties: as attributes they would only say how the element began.
const PROPERTIES = new Set([
  "value",
  "checked",
  "selected",
  "disabled",
  "indeterminate",
  "muted",
  "srcObject",
  "currentTime",
  "scrollTop",
]);

/**
 * An element. A function in the place of a value is followed: it runs again when what it read has changed.
 *
 * `on…` takes a listener, `class` a text or an object of booleans, `style` an object, `ref` a function that is given the
 * element. null, undefined and false leave an attribute out; true sets it empty.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Props | null} [props]
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  dress(element, props ?? {});
  append(element, children);
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/**
 * The same for a picture.
 * @param {string} tag
 * @param {Record<string, string>} attributes
 * @param {...Node} children
 */
export function svg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/**
 * @param {HTMLElement} element
 * @param {Props} props
 */
function dress(element, props) {
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "ref") value(element);
    else if (typeof value === "function") effect(() => set(element, name, value()));
    else set(element, name, value);
  }
}

/**
 * @param {HTMLElement} element
 * @param {string} name
 * @param {any} value
 */
function set(element, name, value) {
  if (name === "class" && value && typeof value === "object") {
    for (const [each, isOn] of Object.entries(value)) element.classList.toggle(each, Boolean(isOn));
  } else if (name === "style") {
    for (const [each, how] of Object.entries(value)) element.style.setProperty(each, how);
  } else if (PROPERTIES.has(name)) {
    const target = /** @type {any} */ (element);
    if (target[name] !== value) target[name] = value;
  } else if (value === null || value === undefined || value === false) {
    element.removeAttribute(name);
  } else {
    element.setAttribute(name, value === true ? "" : String(value));
  }
}

/**
 * @param {Node} parent
 * @param {Child[]} children
 */
export function append(parent, children) {
  for (const child of children) parent.appendChild(nodeOf(child));
}

/**
 * @param {Child} child
 * @returns {Node}
 */
function nodeOf(child) {
  if (child instanceof Node) return child;
  if (typeof child === "function") return follow(child);
  if (Array.isArray(child)) {
    const all = document.createDocumentFragment();
    append(all, child);
    return all;
  }
  return document.createTextNode(
    child === null || child === undefined || child === false ? "" : String(child),
  );
}

/**
 * What a function gives, now and whenever it gives something else, between two marks.
 * @param {() => Child} give
 */
function follow(give) {
  const begin = document.createComment("");
  const end = document.createComment("");
  const all = document.createDocumentFragment();
  all.append(begin, end);
  effect(() => {
    const given = give();
    const only = begin.nextSibling;
    const isText = typeof given === "string" || typeof given === "number";
    if (isText && only instanceof Text && only.nextSibling === end) {
      if (only.data !== String(given)) only.data = String(given);
      return;
    }
    clear(begin, end);
    /** @type {ParentNode & Node} */ (end.parentNode).insertBefore(nodeOf(given), end);
  });
  return all;
}

/**
 * @param {Node} begin
 * @param {Node} end
 */
function clear(begin, end) {
  while (begin.nextSibling !== end && begin.nextSibling !== null) {
    begin.parentNode?.removeChild(begin.nextSibling);
  }
}

/**
 * One thing or the other; made anew only when the condition turns.
 * @param {() => any} condition
 * @param {() => Child} yes
 * @param {() => Child} [no]
 */
export function when(condition, yes, no) {
  let was = /** @type {boolean | null} */ (null);
  const turned = signal(false);
  effect(() => {
    const is = Boolean(condition());
    if (is === was) return;
    was = is;
    turned.value = is;
  });
  return () => {
    const is = turned.value;
    return untracked(() => (is ? yes() : (no?.() ?? null)));
  };
}

/**
 * Elements for items, before the node `end`. An element stays, and moves, with its item's key; what it reads of the item
 * it reads by a function, so that it follows the next one of the same key.
 * @template T
 */
export class Rows {
  /** @type {Map<string, { item: import("../store/signal.js").Signal<T>, element: HTMLElement, dispose: () => void }>} */
  #rows = new Map();

  /**
   * @param {Node} end
   * @param {(item: T) => string} keyOf
   * @param {(item: () => T) => HTMLElement} make
   */
  constructor(end, keyOf, make) {
    this.end = end;
    this.keyOf = keyOf;
    this.make = make;
  }

  /** @param {readonly T[]} items */
  set(items) {
    const parent = /** @type {Node} */ (this.end.parentNode);
    const next = new Map();
    for (const one of items) {
      const key = this.keyOf(one);
      next.set(key, this.#rows.get(key) ?? this.#row(one));
      this.#rows.delete(key);
    }
    this.dispose();
    this.#rows = next;
    let follower = this.end;
    for (const { element } of [...next.values()].reverse()) {
      if (element.nextSibling !== follower) move(element, parent, follower);
      follower = element;
    }
    for (const one of items) next.get(this.keyOf(one)).item.value = one;
  }

  /** @param {T} one */
  #row(one) {
    const item = signal(one);
    const [element, dispose] = scope(() => this.make(() => item.value));
    return { item, element, dispose };
  }

  /** @param {string} key */
  get(key) {
    return this.#rows.get(key)?.element;
  }

  /** Takes all of them away. */
  dispose() {
    for (const { element, dispose } of this.#rows.values()) {
      element.remove();
      dispose();
    }
    this.#rows.clear();
  }
}

/**
 * An element for each item, as `Rows` keeps them.
 * @template T
 * @param {() => readonly T[]} list
 * @param {(item: T) => string} keyOf
 * @param {(item: () => T) => HTMLElement} make
 */
export function each(list, keyOf, make) {
  const end = document.createComment("");
  const all = document.createDocumentFragment();
  all.append(end);
  const rows = new Rows(end, keyOf, make);
  effect(() => {
    const items = list();
    untracked(() => rows.set(items));
  });
  onEnd(() => rows.dispose());
  return all;
}

let isMoving = false;

/**
 * @param {Element} element
 * @param {Node} parent
 * @param {Node} follower
 */
function move(element, parent, follower) {
  const before = isMoving;
  const focused = element.contains(document.activeElement) ? document.activeElement : null;
  isMoving = element.isConnected;
  try {
    parent.insertBefore(element, follower);
  } finally {
    isMoving = before;
  }
  if (focused instanceof HTMLElement && document.activeElement !== focused)
    focused.focus({ preventScroll: true });
}

/**
 * A custom element: `build` gives its content when it comes into the page, and what that began ends when it leaves.
 * Moving it within the page changes nothing.
 */
export class Part extends HTMLElement {
  /** @type {(() => void) | null} */
  #end = null;

  /** @returns {Child} */
  build() {
    return null;
  }

  connectedCallback() {
    if (this.#end !== null) return; // moved
    const [content, end] = scope(() => nodeOf(this.build()));
    this.#end = end;
    this.replaceChildren(content);
    this.settled();
  }

  disconnectedCallback() {
    if (isMoving) return;
    this.#end?.();
    this.#end = null;
  }

  /** Its content is in the page. */
  settled() {}
}

/**
 * A custom element with what it is given set before it comes into the page.
 * @template {HTMLElement} E
 * @param {new () => E} kind
 * @param {Partial<E>} [given]
 * @returns {E}
 */
export function part(kind, given = {}) {
  return Object.assign(new kind(), given);
}

/**
 * A listener that lasts as long as the scope that is open now.
 * @param {EventTarget} target
 * @param {string} type
 * @param {(event: any) => void} listener
 * @param {AddEventListenerOptions} [options]
 */
export function listen(target, type, listener, options) {
  target.addEventListener(type, listener, options);
  onEnd(() => target.removeEventListener(type, listener, options));
}

/**
 * As a `ref`: the element has the focus once it is in the page.
 * @param {HTMLElement} element
 */
export function focus(element) {
  queueMicrotask(() => element.focus());
}
