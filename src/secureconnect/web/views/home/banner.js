// One line that says what is not as it should be: no network, a server that restarts, or what it does without.

import { app } from "../../app.js";
import { t } from "../../i18n/index.js";
import { h, Part, when } from "../../parts/dom.js";
import { icon } from "../../parts/icons.js";
import { effect, onEnd, signal } from "../../store/signal.js";

const PATIENCE_MS = 2_000; // a link that is back by then was never missed

export class Banner extends Part {
  build() {
    const { socket } = app.mine;
    const isLong = signal(false);
    effect(() => {
      if (socket.lostMs.value === null) {
        isLong.value = false;
        return;
      }
      const timer = setTimeout(() => (isLong.value = true), PATIENCE_MS);
      onEnd(() => clearTimeout(timer));
    });
    const text = () => {
      if (isLong.value) return navigator.onLine ? t("chat.reconnecting") : t("chat.offline");
      const affected = [...new Set(Object.values(app.state.degraded.value).flat())];
      return affected.length ? t("chat.degraded", { what: affected.map(named).join(", ") }) : "";
    };
    return when(text, () => h("p", { class: "banner", role: "status" }, icon("warning"), text));
  }
}

const NAMED = new Set([
  "sign_in",
  "messages",
  "history",
  "settings",
  "presence",
  "typing",
  "delivery_between_nodes",
  "uploads",
  "downloads",
  "mail",
  "push",
]);

/** @param {string} affected a function of the server */
function named(affected) {
  return NAMED.has(affected) ? t(`chat.affected.${affected}`) : affected;
}

customElements.define("sc-banner", Banner);
