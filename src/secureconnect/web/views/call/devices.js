// Which microphone, camera and loudspeaker, and what is said when there is none.

import { h, when } from "../../parts/dom.js";
import { t } from "../../i18n/index.js";
import { effect, onEnd, signal } from "../../store/signal.js";
import { Level } from "../../call/levels.js";

/** @import { DeviceKind, Media, Trouble } from "../../call/media.js" */

const CAN_CHOOSE_SPEAKER = "setSinkId" in HTMLMediaElement.prototype;
const LABELS = /** @type {const} */ ({
  audioinput: "call.microphone",
  videoinput: "call.camera",
  audiooutput: "call.speaker",
});

/** @param {Media} media */
export function deviceFields(media) {
  return h(
    "div",
    { class: "call-devices" },
    choice(media, "audioinput"),
    level(media),
    choice(media, "videoinput"),
    CAN_CHOOSE_SPEAKER ? choice(media, "audiooutput") : null,
    checkbox(
      "call.thrifty",
      () => media.chosen.value.thrifty === true,
      (on) => media.save(on),
    ),
  );
}

/**
 * @param {string} label
 * @param {() => boolean} isOn
 * @param {(on: boolean) => void} turn
 */
export function checkbox(label, isOn, turn) {
  const onchange = (/** @type {Event} */ { target }) =>
    turn(/** @type {HTMLInputElement} */ (target).checked);
  return h(
    "label",
    { class: "call-check" },
    h("input", { type: "checkbox", checked: isOn, onchange }),
    t(label),
  );
}

/**
 * @param {Media} media
 * @param {DeviceKind} kind
 */
function choice(media, kind) {
  const select = h("select", {
    onchange: () => media.choose(kind, select.value),
    disabled: () => !media.devices.value.some((device) => device.kind === kind),
  });
  effect(() => {
    const chosen = media.chosen.value[kind] ?? "";
    const found = media.devices.value.filter(
      (device) => device.kind === kind && device.deviceId !== "default",
    );
    const options = found.map(
      ({ deviceId, label }, place) => new Option(label || `${t(LABELS[kind])} ${place + 1}`, deviceId),
    );
    select.replaceChildren(new Option(t("call.defaultDevice"), ""), ...options);
    select.value = found.some(({ deviceId }) => deviceId === chosen) ? chosen : "";
  });
  return h("label", null, h("span", null, t(LABELS[kind])), select);
}

/** What the microphone hears, so that one sees that it hears. @param {Media} media */
function level(media) {
  const heard = signal(0);
  effect(() => {
    if (!media.microphone.value) return;
    const level = new Level(media.stream);
    effect(() => (heard.value = level.level.value));
    onEnd(() => level.end());
  });
  return h("meter", { min: 0, max: 1, value: () => heard.value, "aria-label": t("call.level") });
}

/** Why there is no microphone, or no camera, and what to do. @param {Media} media @param {() => boolean} wantsCamera */
export function troubles(media, wantsCamera) {
  const microphone = () => media.noMicrophone.value;
  const camera = () => (wantsCamera() ? media.noCamera.value : null);
  return h(
    "div",
    { class: "call-troubles", role: "status" },
    when(
      () => microphone() === "insecure" || camera() === "insecure",
      () => h("p", null, t("call.insecure", { address: location.origin })),
      () => [
        () => microphone() && h("p", null, told("microphone", microphone())),
        () => camera() && h("p", null, told("camera", camera())),
      ],
    ),
  );
}

/**
 * @param {"microphone" | "camera"} what
 * @param {Trouble | null} why
 */
function told(what, why) {
  const [isMicrophone, key] = [what === "microphone", why ?? "failed"];
  return t(isMicrophone ? MICROPHONE[key] : CAMERA[key]);
}

/** @type {Record<Trouble, string>} */
const MICROPHONE = {
  insecure: "call.insecure",
  denied: "call.microphoneDenied",
  missing: "call.microphoneMissing",
  busy: "call.microphoneBusy",
  failed: "call.microphoneFailed",
};
/** @type {Record<Trouble, string>} */
const CAMERA = {
  insecure: "call.insecure",
  denied: "call.cameraDenied",
  missing: "call.cameraMissing",
  busy: "call.cameraBusy",
  failed: "call.cameraFailed",
};
