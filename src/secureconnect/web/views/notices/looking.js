// Whether somebody looks at the page: tabs that are looked at are known to the others.

import { app } from "../../app.js";
import { listen } from "../../parts/dom.js";
import { holdUntil } from "../../store/locks.js";
import { onEnd } from "../../store/signal.js";

/** Held by tabs that are looked at. */
export const LOOKING = "sc.looking";

/** Until the scope that is open now ends. */
export function watchWhetherSeen() {
  let leave = () => {};
  const look = async () => {
    leave();
    leave = () => {};
    if (document.visibilityState === "visible") {
      leave = holdUntil(LOOKING);
      void app.device.silence();
      return;
    }
    if (app.device.alerts.peek() !== "on") return;
    try {
      (await import("./alerts.js")).alertInBackground();
    } catch {
      // no network: when the page is next left
    }
  };
  listen(document, "visibilitychange", () => void look());
  void look();
  onEnd(() => leave());
}
