// What begins a call: in the head of a conversation, and at a call among its messages.

import { app } from "../../app.js";
import { h, when } from "../../parts/dom.js";
import { icon } from "../../parts/icons.js";
import { sheet } from "../../parts/sheet.js";
import { toast } from "../../parts/toast.js";
import { loadTexts, refused, t } from "../../i18n/index.js";
import { signal } from "../../store/signal.js";

/**
 * Call, or come to the call under way.
 * @param {string} conversationId
 */
export function callButtons(conversationId) {
  const { calls } = app.mine;
  calls.lookAt(conversationId).catch(() => {}); // then the buttons begin a call, and find the one there is
  const underway = () => calls.underway.value.get(conversationId);
  const isHere = () => calls.current.value?.conversationId === conversationId;
  const want = (/** @type {boolean} */ withCamera) =>
    calls.want({ conversationId, callId: underway()?.call_id ?? null, withCamera });
  const begin = (
    /** @type {"phone" | "camera"} */ picture,
    /** @type {string} */ label,
    /** @type {boolean} */ withCamera,
  ) =>
    h(
      "button",
      {
        type: "button",
        class: "icon-button",
        "aria-label": label,
        title: label,
        disabled: () => calls.current.value !== null,
        onclick: () => want(withCamera),
      },
      icon(picture),
    );
  return h(
    "span",
    { class: "call-buttons" },
    when(
      () => underway() !== undefined && !isHere(),
      () =>
        h(
          "button",
          { type: "button", class: "primary", onclick: () => want(underway()?.call_type === "video") },
          icon("phone"),
          t("ring.join"),
        ),
      () => [begin("phone", t("ring.audio"), false), begin("camera", t("ring.video"), true)],
    ),
  );
}

/**
 * The same kind of call once more.
 * @param {import("../../store/types.js").Message} message a notice of the event `call`
 */
export function callBack({ conversation_id, metadata }) {
  const { calls } = app.mine;
  const withCamera = metadata?.call_type === "video";
  const onclick = () => calls.want({ conversationId: conversation_id, callId: null, withCamera });
  return h(
    "button",
    { type: "button", disabled: () => calls.current.value !== null, onclick },
    t("ring.again"),
  );
}

/**
 * Plays what was recorded of a call in an encrypted conversation.
 * @param {import("../../store/attachments.js").Recorded} recorded as the message has it
 * @param {string} by who says so
 */
export function recordedCall(recorded, by) {
  const isBusy = signal(false);
  const play = async () => {
    if (isBusy.peek()) return;
    isBusy.value = true;
    try {
      const [{ playTold }] = await Promise.all([
        import("./player.js"),
        loadTexts("call"),
        sheet("calldialogs"),
      ]);
      await playTold(recorded, by);
    } catch (error) {
      toast(refused(error));
    } finally {
      isBusy.value = false;
    }
  };
  return h(
    "button",
    { type: "button", class: "file-card", "aria-busy": () => isBusy.value || null, onclick: play },
    icon("camera"),
    h("span", { class: "file-name" }, t("ring.recording")),
  );
}
