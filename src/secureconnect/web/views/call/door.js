// Where calls come in: what shows them is loaded when there is the first.

import { app } from "../../app.js";
import { part } from "../../parts/dom.js";
import { loadTexts } from "../../i18n/index.js";
import { effect, untracked } from "../../store/signal.js";

/** @import { Calls } from "../../call/calls.js" */

/** Follows whoever is signed in, for as long as the page lives. */
export function openDoor() {
  effect(() => {
    const calls = app.account.value?.calls;
    if (!calls) return leave();
    const isCalled = calls.incoming.value || calls.wanted.value || calls.current.value || calls.left.value;
    if (isCalled) untracked(() => show(calls));
  });
}

/** @type {Calls | null} */
let shown = null;

/** @param {Calls} calls */
async function show(calls) {
  if (shown === calls) return;
  shown = calls;
  const [{ Stage }] = await Promise.all([import("./stage.js"), loadTexts("call"), loadStyle()]);
  if (shown === calls) document.body.append(part(Stage, { calls }));
}

function leave() {
  shown = null;
  document.querySelector("sc-calls")?.remove();
}

/** Resolves when it applies. */
export function loadStyle() {
  const href = new URL("../../styles/call.css", import.meta.url).href;
  if (document.querySelector(`link[href="${href}"]`)) return Promise.resolve();
  const link = Object.assign(document.createElement("link"), { rel: "stylesheet", href });
  return new Promise((resolve) => {
    link.onload = link.onerror = resolve;
    document.head.append(link);
  });
}
