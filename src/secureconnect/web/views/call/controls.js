// What one does in a call: buttons, and a key for each that one needs often.

import { h, listen, when } from "../../parts/dom.js";
import { refused, t } from "../../i18n/index.js";
import { toast } from "../../parts/toast.js";
import { signal } from "../../store/signal.js";
import { canRecord } from "../../call/recorder.js";
import { app } from "../../app.js";
import { checkbox, deviceFields } from "./devices.js";
import { icon } from "./icons.js";
import { modal } from "./modal.js";
import { isGroup, isModerator } from "./names.js";

/** @import { Call } from "../../call/call.js" */
/** @import { Picture } from "./icons.js" */

const TYPED = "input, textarea, select, [contenteditable]";
const CAN_SHARE = Boolean(navigator.mediaDevices?.getDisplayMedia);

/** @param {Call} call */
export function controls(call) {
  const { media, recording } = call;
  const isChoosing = signal(false);
  const attempt = (/** @type {() => unknown} */ work) => async () => {
    try {
      await work();
    } catch (error) {
      toast(refused(error));
    }
  };
  const mute = () => call.mute(!media.isMuted.peek());
  const show = () => call.show(media.camera.peek() === null);
  const share = () => (media.screen.peek() ? call.unshare() : call.share());
  keys(call, { KeyM: mute, KeyV: show, KeyD: share });

  return h(
    "div",
    { class: "call-controls", role: "group", "aria-label": t("call.controls") },
    button({
      label: () => t("call.mute"),
      picture: () => (media.isMuted.value || !media.microphone.value ? "microphoneOff" : "microphone"),
      isPressed: () => media.isMuted.value,
      isDisabled: () => media.microphone.value === null,
      key: "M",
      onclick: mute,
    }),
    button({
      label: () => t("call.cameraOff"),
      picture: () => (media.camera.value ? "camera" : "cameraOff"),
      isPressed: () => media.camera.value === null,
      key: "V",
      onclick: show,
    }),
    CAN_SHARE &&
      button({
        label: () => t("call.share"),
        picture: () => "screen",
        kind: "rare",
        isPressed: () => media.screen.value !== null,
        key: "D",
        onclick: attempt(share),
      }),
    when(
      () => mayRecord(call),
      () =>
        button({
          label: () => t("call.record"),
          picture: () => "record",
          kind: "rare",
          isPressed: () => recording.now.value !== null,
          isDisabled: () => recording.now.value !== null && !recording.isMine,
          onclick: attempt(() => (recording.now.peek() ? recording.stop() : recording.ask())),
        }),
    ),
    button({
      label: () => t("call.devices"),
      picture: () => "devices",
      kind: "rare",
      onclick: () => (isChoosing.value = true),
    }),
    button({
      label: () => t("call.leave"),
      picture: () => "leave",
      kind: "danger",
      onclick: () => call.leave(),
    }),
    when(
      () => mayEnd(call),
      () =>
        h(
          "button",
          { type: "button", class: "danger rare", onclick: attempt(() => call.endForAll()) },
          t("call.endForAll"),
        ),
    ),
    when(
      () => isChoosing.value,
      () => chooser(call, () => (isChoosing.value = false)),
    ),
  );
}

/** @param {Call} call */
function mayRecord(call) {
  const conversation = app.state.conversations.get(call.conversationId);
  const { recording_enabled = false, is_e2ee_enabled = true } = conversation?.settings ?? {};
  const isSealed = !is_e2ee_enabled || call.given.sealing !== null; // encrypted since it began, it is not here
  return canRecord() && recording_enabled && isSealed && call.links.value.length > 0;
}

/** @param {Call} call */
function mayEnd(call) {
  const isCaller = call.record.value.initiated_by === call.given.userId;
  return isGroup(call.conversationId) && (isCaller || isModerator(call.conversationId));
}

/**
 * @param {{ label: () => string, picture: () => Picture, isPressed?: () => boolean, isDisabled?: () => boolean,
 *   key?: string, kind?: string, onclick: () => unknown }} how
 */
function button({ label, picture, isPressed, isDisabled, key, kind = "", onclick }) {
  return h(
    "button",
    {
      type: "button",
      class: `call-button ${kind}`,
      "aria-label": label,
      "aria-pressed": isPressed ? () => String(isPressed()) : null,
      "aria-keyshortcuts": key ?? null,
      title: () => (key ? `${label()} (${key})` : label()),
      disabled: isDisabled ?? false,
      onclick,
    },
    () => icon(picture()),
  );
}

/**
 * Letters alone are keys only while one writes nowhere, and can be switched off.
 * @param {Call} call
 * @param {Record<string, () => unknown>} bound
 */
function keys(call, bound) {
  listen(document, "keydown", (/** @type {KeyboardEvent} */ event) => {
    const work = bound[event.code];
    const isElsewhere = event.target instanceof Element && event.target.closest(TYPED) !== null;
    if (
      !work ||
      isElsewhere ||
      event.repeat ||
      event.ctrlKey ||
      event.metaKey ||
      event.altKey ||
      event.shiftKey
    )
      return;
    if (call.media.chosen.peek().noKeys || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    work();
  });
}

/**
 * @param {Call} call
 * @param {() => void} close
 */
function chooser(call, close) {
  const { media } = call;
  return modal(
    { label: t("call.devices"), close },
    h("h2", null, t("call.devices")),
    deviceFields(media),
    checkbox(
      "call.keys",
      () => !media.chosen.value.noKeys,
      (on) => media.remember({ noKeys: !on }),
    ),
    h(
      "div",
      { class: "call-row end" },
      h("button", { type: "button", class: "primary", onclick: close }, t("call.done")),
    ),
  );
}
