// Before a call: how one looks and sounds, and with which devices.

import { h, Part, when } from "../../parts/dom.js";
import { refused, t } from "../../i18n/index.js";
import { onEnd, signal } from "../../store/signal.js";
import { Media } from "../../call/media.js";
import { calleesOf } from "./callees.js";
import { deviceFields, troubles } from "./devices.js";
import { icon } from "./icons.js";
import { modal } from "./modal.js";
import { placeOf } from "./names.js";

/** @import { Calls, Wanted } from "../../call/calls.js" */

export class PreJoin extends Part {
  calls = /** @type {Calls} */ (/** @type {unknown} */ (null)); // given, as is `wanted`
  wanted = /** @type {Wanted} */ (/** @type {unknown} */ (null));

  build() {
    const { calls, wanted } = this;
    const media = new Media();
    const isOpening = signal(true);
    const isBusy = signal(false);
    const problem = signal("");
    const wantsCamera = signal(wanted.withCamera);
    let isUsed = false;
    const opened = media.open(wanted.withCamera).finally(() => (isOpening.value = false));
    const cancelled = new AbortController();
    onEnd(() => {
      if (!isUsed) media.close();
      if (calls.current.peek()?.media !== media) cancelled.abort();
    });

    const callees = calleesOf(wanted);
    const cancel = () => (calls.wanted.value = null);
    const begin = async (/** @type {boolean} */ withCamera) => {
      isBusy.value = true;
      problem.value = "";
      try {
        await opened;
        if (!withCamera) await media.show(false);
        isUsed = true;
        const calleeIds = callees.ids() ?? undefined;
        const kind = { ...wanted, calleeIds, withCamera: wanted.callId ? wanted.withCamera : withCamera };
        await calls.begin(kind, media, cancelled.signal);
      } catch (error) {
        isUsed = false;
        if (cancelled.signal.aborted) return media.close();
        problem.value = refused(error);
        isBusy.value = false;
      }
    };
    const cannotBegin = () => isBusy.value || callees.ids()?.length === 0;
    const turnCamera = async () => {
      wantsCamera.value = !wantsCamera.peek();
      await media.show(wantsCamera.peek());
    };

    const title = t(wanted.callId ? "call.joinTitle" : "call.callTitle", {
      name: placeOf(wanted.conversationId),
    });
    const toggle = (
      /** @type {string} */ label,
      /** @type {() => boolean} */ isOn,
      /** @type {() => void} */ turn,
    ) =>
      h(
        "button",
        { type: "button", class: "call-toggle", "aria-pressed": () => String(isOn()), onclick: turn },
        t(label),
      );
    return modal(
      { label: title, class: "call-prejoin", close: cancel },
      h("h2", null, title),
      callees.field,
      h(
        "div",
        { class: "call-preview" },
        h("video", {
          class: "mirrored",
          autoplay: true,
          playsinline: true,
          muted: true,
          srcObject: media.stream,
          hidden: () => media.camera.value === null,
          "aria-label": t("call.preview"),
        }),
        when(
          () => media.camera.value === null,
          () =>
            h("p", null, icon("cameraOff"), () => t(isOpening.value ? "call.opening" : "call.cameraIsOff")),
        ),
      ),
      h(
        "div",
        { class: "call-row" },
        toggle(
          "call.micOn",
          () => !media.isMuted.value,
          () => media.mute(!media.isMuted.peek()),
        ),
        toggle("call.cameraOn", () => media.camera.value !== null, turnCamera),
      ),
      troubles(media, () => wantsCamera.value),
      deviceFields(media),
      h("p", { class: "problem", role: "alert", hidden: () => !problem.value }, () => problem.value),
      h(
        "div",
        { class: "call-row end" },
        h("button", { type: "button", onclick: cancel }, t("call.cancel")),
        when(
          () => wantsCamera.value,
          () =>
            h(
              "button",
              { type: "button", disabled: cannotBegin, onclick: () => begin(false) },
              t("call.withoutCamera"),
            ),
        ),
        h(
          "button",
          {
            type: "button",
            class: "primary",
            autofocus: true,
            disabled: cannotBegin,
            onclick: () => begin(true),
          },
          () => t(isBusy.value ? "call.connecting" : wanted.callId ? "call.join" : "call.start"),
        ),
      ),
    );
  }
}

customElements.define("sc-call-prejoin", PreJoin);
