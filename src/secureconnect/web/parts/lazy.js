// Rooms that are entered rarely are loaded when somebody does.

import { t } from "../i18n/index.js";
import { onEnd, signal, untracked } from "../store/signal.js";
import { h } from "./dom.js";

const RETRY_MS = 2_000;

/** @type {WeakMap<() => Promise<any>, { is: any }>} by what loads it */
const rooms = new WeakMap();

/**
 * Load a room before anybody enters it.
 * @param {() => Promise<any>} load
 */
export function warm(load) {
  load().then(
    (is) => rooms.set(load, { is }),
    () => {}, // whoever enters it is told
  );
}

/**
 * A room that was loaded before is entered at once, where `load` is the same function.
 *
 * `lazy(() => Promise.all([import("./room.js"), sheet("room"), loadTexts("room")]), ([{ Room }]) => new Room())`
 * @template T
 * @param {() => Promise<T>} load
 * @param {(loaded: T) => import("./dom.js").Child} make
 * @returns {() => import("./dom.js").Child}
 */
export function lazy(load, make) {
  const known = rooms.get(load);
  if (known) return () => untracked(() => make(known.is));
  const loaded = signal(/** @type {T | null} */ (null));
  const isMissing = signal(false);
  let timer = 0;
  const attempt = () =>
    load().then(
      (found) => {
        rooms.set(load, { is: found });
        loaded.value = found;
        isMissing.value = false;
      },
      () => {
        isMissing.value = true; // no network, or the server has another version by now: then a reload mends it
        timer = setTimeout(attempt, RETRY_MS);
      },
    );
  void attempt();
  onEnd(() => clearTimeout(timer));
  return () => {
    if (isMissing.value) return reloading(t("common.notLoaded"));
    const found = loaded.value;
    return found === null ? h("div", { class: "blank", "aria-busy": "true" }) : untracked(() => make(found));
  };
}

/** @param {string} text what is wrong, and may not be once the page is loaded again */
export function reloading(text) {
  const reload = () => location.reload();
  return h(
    "div",
    { class: "blank", role: "alert" },
    h("p", null, text),
    h("button", { type: "button", onclick: reload }, t("common.reload")),
  );
}
