// Which screen the address names. Links are ordinary links; those of the page itself are followed without a load.

import { signal } from "./store/signal.js";

/** @typedef {{ name: string, params: Record<string, string>, hash: string, query: URLSearchParams }} Place */

const PLACES = /** @type {const} */ ([
  ["home", /^\/$/],
  ["conversation", /^\/c\/(?<conversation>[\w-]+)$/],
  ["conversation", /^\/c\/(?<conversation>[\w-]+)\/m\/(?<message>[\w-]+)$/],
  ["conversation", /^\/c\/(?<conversation>[\w-]+)\/(?<panel>details)$/],
  ["sign-in", /^\/sign-in$/],
  ["sign-up", /^\/sign-up$/],
  ["invite", /^\/invite(\/(?<code>[\w-]+))?$/],
  ["reset", /^\/reset$/],
  ["verify", /^\/verify$/],
  ["new", /^\/new$/],
  ["search", /^\/search$/],
  ["notifications", /^\/notifications$/],
  ["settings", /^\/settings(\/(?<page>[\w-]+))?$/],
  ["admin", /^\/admin(\/(?<page>[\w-]+))?$/],
  ["call", /^\/call\/(?<call>[\w-]+)$/],
]);

/** What is only there to come in. */
export const ENTRANCES = new Set(["sign-in", "sign-up", "invite"]);

/** @returns {Place} */
function read() {
  const query = new URLSearchParams(location.search);
  const hash = location.hash.slice(1);
  for (const [name, pattern] of PLACES) {
    const found = pattern.exec(location.pathname);
    if (found) return { name, params: definedOf(found.groups ?? {}), hash, query };
  }
  return { name: "home", params: {}, hash, query };
}

/** @param {Record<string, string | undefined>} groups */
function definedOf(groups) {
  return /** @type {Record<string, string>} */ (
    Object.fromEntries(Object.entries(groups).filter(([, value]) => value))
  );
}

export class Router {
  place = signal(read());

  constructor() {
    addEventListener("popstate", () => (this.place.value = read()));
    document.addEventListener("click", (event) => this.#follow(event));
  }

  /**
   * @param {string} path
   * @param {{ replace?: boolean }} [how]
   */
  go(path, { replace = false } = {}) {
    if (replace) history.replaceState(null, "", path);
    else if (path !== location.pathname + location.search + location.hash) history.pushState(null, "", path);
    this.place.value = read();
  }

  /** @param {MouseEvent} event */
  #follow(event) {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey)
      return;
    const link = event.composedPath().find((each) => each instanceof HTMLAnchorElement);
    if (!link || link.target || link.hasAttribute("download") || link.origin !== location.origin) return;
    if (link.pathname.startsWith("/docs") || link.pathname.startsWith("/v1/")) return;
    event.preventDefault();
    this.go(link.pathname + link.search + link.hash);
  }
}
