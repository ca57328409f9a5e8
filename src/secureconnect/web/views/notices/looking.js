// Whether somebody looks at the page: tabs that are looked at are known to the others.

import { app } from "../../app.js";
import { listen } from "../../parts/dom.js";
import { holdUntil } from "../../store/locks.js";
import { effect, onEnd } from "../../store/signal.js";

/** Held by tabs that are looked at. */
export const LOOKING = "sc.looking";

/** Until the scope that is open now ends. */
export function watchWhetherSeen() {
  let leave = () => {};
  const look = () => {
    leave();
    leave = () => {};
    void ready();
    if (document.visibilityState !== "visible") return;
    leave = holdUntil(LOOKING);
    void app.device.silence();
  };
  listen(document, "visibilitychange", look);
  look();
  effect(() => {
    if (app.device.alerts.value === "on") void ready();
  });
  onEnd(() => leave());
}

/** What is told to whoever does not look is there before nobody does. */
async function ready() {
  if (app.device.alerts.peek() !== "on") return;
  try {
    (await import("./alerts.js")).alertInBackground();
  } catch {
    // no network: when the page is next left, or come back to
  }
}
