// The call one is in: over the whole page, or in a corner of it while one reads.

import { app } from "../../app.js";
import { each, h, listen, Part, when } from "../../parts/dom.js";
import { duration, t } from "../../i18n/index.js";
import { effect, onEnd, signal } from "../../store/signal.js";
import { consentDialog, recordingBanner } from "./consent.js";
import { controls } from "./controls.js";
import { troubles } from "./devices.js";
import { icon } from "./icons.js";
import { placeOf } from "./names.js";
import { screenOf, selfView, tileOf } from "./tile.js";
import { ringback } from "./tones.js";

/** @import { Call } from "../../call/call.js" */

export class CallScreen extends Part {
  call = /** @type {Call} */ (/** @type {unknown} */ (null)); // given

  build() {
    const { call } = this;
    const isSmall = signal(false);
    makeRoom(() => !isSmall.value);
    whoeverReads(isSmall);
    ringWhile(call);
    stay(call);
    const name = () => t("call.with", { name: placeOf(call.conversationId) });
    return [
      h(
        "section",
        { class: () => `call ${isSmall.value ? "small" : "full"}`, "aria-label": name },
        h(
          "header",
          { class: "call-head" },
          h("strong", null, () => placeOf(call.conversationId)),
          h("p", { role: "status" }, () => stateOf(call)),
          clock(call),
          h(
            "button",
            {
              type: "button",
              class: "icon-button",
              "aria-label": () => t(isSmall.value ? "call.larger" : "call.smaller"),
              onclick: () => (isSmall.value = !isSmall.peek()),
            },
            () => icon(isSmall.value ? "larger" : "smaller"),
          ),
        ),
        recordingBanner(call),
        troubles(call.media, () => true),
        when(
          () => call.isSilenced.value,
          () =>
            h(
              "button",
              { type: "button", class: "primary", onclick: () => (call.isSilenced.value = false) },
              t("call.hear"),
            ),
        ),
        tiles(call),
        controls(call),
      ),
      consentDialog(call),
    ];
  }
}

/** @param {Call} call */
function tiles(call) {
  const shared = () => call.links.value.filter((link) => link.screen.value !== null);
  return h(
    "div",
    {
      class: () => `call-tiles ${shared().length ? "shared" : ""}`,
      "data-people": () => String(call.links.value.length),
    },
    each(
      shared,
      (link) => `${link.peerId} ${link.instanceId}`,
      (link) => screenOf(call, link()),
    ),
    each(
      () => call.links.value,
      (link) => `${link.peerId} ${link.instanceId}`,
      (link) => tileOf(call, link()),
    ),
    selfView(call),
  );
}

/** @param {Call} call */
function stateOf(call) {
  if (!call.isAttached.value) return t(call.hasBeenAttached ? "call.serverAway" : "call.connecting");
  if (call.links.value.length) return call.media.screen.value ? t("call.youShare") : "";
  return t(call.record.value.answered_at ? "call.alone" : "call.rings");
}

/** @param {Call} call */
function clock(call) {
  const now = signal(Date.now());
  const timer = setInterval(() => (now.value = Date.now()), 1_000);
  onEnd(() => clearInterval(timer));
  return h("span", { class: "call-clock", role: "timer", "aria-label": t("call.duration") }, () => {
    if (!call.links.value.length && !call.record.value.answered_at) return "";
    const since = new Date(call.record.value.answered_at ?? call.startedAt).getTime();
    return duration(Math.max(0, (now.value - since) / 1000));
  });
}

/** What lies beneath is not reached by keys while the call is over the whole page. @param {() => boolean} isFull */
function makeRoom(isFull) {
  const page = document.querySelector("sc-shell");
  if (!(page instanceof HTMLElement)) return;
  effect(() => (page.inert = isFull()));
  onEnd(() => (page.inert = false));
}

/** Whoever goes to another conversation wants to read it. @param {import("../../store/signal.js").Signal<boolean>} isSmall */
function whoeverReads(isSmall) {
  const here = app.router.place.peek();
  effect(() => {
    if (app.router.place.value !== here) isSmall.value = true;
  });
}

/** @param {Call} call */
function ringWhile(call) {
  effect(() => {
    const rings = call.isAttached.value && !call.links.value.length && !call.record.value.answered_at;
    if (rings) onEnd(ringback());
  });
}

/** Nobody closes the page in a call without being asked. @param {Call} call */
function stay(call) {
  listen(window, "beforeunload", (event) => {
    if (!call.isOver.peek() && call.links.peek().length) event.preventDefault();
  });
}

customElements.define("sc-call-screen", CallScreen);
