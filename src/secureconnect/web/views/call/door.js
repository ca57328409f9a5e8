// Where calls come in: what shows them is loaded when there is the first.

import { app } from "../../app.js";
import { part } from "../../parts/dom.js";
import { sheet } from "../../parts/sheet.js";
import { toast } from "../../parts/toast.js";
import { loadTexts, t } from "../../i18n/index.js";
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
  effect(() => {
    const { name, params } = app.router.place.value;
    const calls = app.account.value?.calls;
    if (calls && name === "call") void visit(calls, params.call);
  });
}

/**
 * `/call/…`, as notifications have it.
 * @param {Calls} calls
 * @param {string} callId
 */
async function visit(calls, callId) {
  let path = "/";
  try {
    path = `/c/${await calls.visit(callId)}`;
  } catch {
    // there is no such call, or none for this person
  }
  app.router.go(path, { replace: true });
}

/** @type {Calls | null} */
let shown = null;

/** @param {Calls} calls */
async function show(calls) {
  if (shown === calls) return;
  shown = calls;
  try {
    const [{ Stage }] = await Promise.all([
      import("./stage.js"),
      loadTexts("call"),
      sheet("call"),
      sheet("calldialogs"),
    ]);
    if (shown === calls) document.body.append(part(Stage, { calls }));
  } catch {
    shown = null; // no network, or the server has another version by now
    toast(t("common.notLoaded"));
  }
}

function leave() {
  shown = null;
  document.querySelector("sc-calls")?.remove();
}
