// Whether a call is recorded: everybody is asked, and sees and hears that it is for as long as it lasts.

import { h, when } from "../../parts/dom.js";
import { refused, t } from "../../i18n/index.js";
import { toast } from "../../parts/toast.js";
import { effect, onEnd, signal } from "../../store/signal.js";
import { icon } from "./icons.js";
import { modal } from "./modal.js";
import { isModerator, nameOf } from "./names.js";
import { cue } from "./tones.js";

/** @import { Call } from "../../call/call.js" */

const REASONS = new Set(["refused", "withdrawn", "failed", "unsealed", "too_long"]);

/** @param {Call} call */
export function recordingBanner(call) {
  const { recording } = call;
  listenFor(call);
  const attempt = (/** @type {() => Promise<void>} */ work) => () =>
    work().catch((error) => toast(refused(error)));
  return when(
    () => recording.now.value !== null,
    () =>
      h(
        "div",
        { class: () => `call-recording ${recording.now.value?.isOn ? "on" : ""}`, role: "status" },
        icon("record"),
        h("span", null, () => textOf(call)),
        when(
          () => recording.isMine || isModerator(call.conversationId),
          () =>
            h(
              "button",
              { type: "button", onclick: attempt(() => recording.stop()) },
              t("call.stopRecording"),
            ),
        ),
        when(
          () => !recording.isMine && recording.hasAgreed.value,
          () =>
            h(
              "button",
              { type: "button", onclick: attempt(() => recording.answer(false)) },
              t("call.withdraw"),
            ),
        ),
      ),
  );
}

/** @param {Call} call */
function textOf({ recording }) {
  const now = recording.now.value;
  if (!now) return "";
  if (!now.isOn) return t("call.waitingForConsent");
  return recording.isMine ? t("call.youRecord") : t("call.isRecorded", { name: nameOf(now.by) });
}

/** @param {Call} call */
function listenFor({ recording }) {
  let wasOn = false;
  const heard = () => {
    const isOn = recording.now.value?.isOn === true;
    if (isOn !== wasOn) cue(isOn);
    wasOn = isOn;
  };
  effect(heard);
  effect(() => {
    const why = recording.ended.value;
    if (why) toast(t(REASONS.has(why) ? `call.recordingEnded.${why}` : "call.recordingEnded"));
  });
  onEnd(() => wasOn && cue(false));
}

/** @param {Call} call */
export function consentDialog(call) {
  const { recording } = call;
  const isBusy = signal(false);
  const answer = (/** @type {boolean} */ consent) => async () => {
    isBusy.value = true;
    try {
      await recording.answer(consent);
    } catch (error) {
      toast(refused(error));
      recording.mustAnswer.value = false; // it is over, or asks again
    } finally {
      isBusy.value = false;
    }
  };
  return when(
    () => recording.mustAnswer.value && recording.now.value !== null,
    () => {
      const by = nameOf(recording.now.peek()?.by ?? null);
      return modal(
        { label: t("call.consentTitle"), isFirm: true },
        h("h2", null, t("call.consentTitle")),
        h("p", null, t("call.consentText", { name: by })),
        call.given.sealing && h("p", null, t("call.consentSealed", { name: by })),
        h(
          "div",
          { class: "call-row end" },
          h("button", { type: "button", onclick: () => call.leave() }, t("call.leave")),
          h(
            "button",
            { type: "button", disabled: () => isBusy.value, onclick: answer(false) },
            t("call.disagree"),
          ),
          h(
            "button",
            { type: "button", class: "primary", disabled: () => isBusy.value, onclick: answer(true) },
            t("call.agree"),
          ),
        ),
      );
    },
  );
}
