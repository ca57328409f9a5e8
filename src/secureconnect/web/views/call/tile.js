// Somebody in a call: their picture, their name, and how it stands with them.

import { avatar } from "../../parts/avatar.js";
import { h, when } from "../../parts/dom.js";
import { t } from "../../i18n/index.js";
import { computed, effect, onEnd, signal } from "../../store/signal.js";
import { Level } from "../../call/levels.js";
import { bars, icon } from "./icons.js";
import { nameOf, pictureOf } from "./names.js";

/** @import { Call } from "../../call/call.js" */
/** @import { Link } from "../../call/link.js" */

const BARS = { good: 3, fair: 2, poor: 1 };
const QUALITY = /** @type {const} */ ({ good: "call.good", fair: "call.fair", poor: "call.poor" });

/**
 * Somebody else's camera and microphone.
 * @param {Call} call
 * @param {Link} link
 */
export function tileOf(call, link) {
  const name = () => nameOf(link.userId);
  const speaks = signal(false);
  effect(() => {
    link.changes.value;
    const level = new Level(link.camera.value);
    effect(() => (speaks.value = level.speaks.value && link.hears.value));
    onEnd(() => level.end());
  });
  const problem = computed(() => problemOf(call, link));
  return h(
    "figure",
    { class: () => `call-tile ${speaks.value ? "speaks" : ""}`, "aria-label": name },
    // hidden it is still heard
    player(
      call,
      () => link.camera.value,
      () => !link.shows.value || !hasPicture(link),
    ),
    when(
      () => !link.shows.value || !hasPicture(link),
      () =>
        h(
          "div",
          { class: "call-face" },
          avatar(() => pictureOf(link.userId)),
        ),
    ),
    h(
      "p",
      { class: "call-overlay", role: "status", hidden: () => !problem.value },
      () => problem.value && t(problem.value),
    ),
    h(
      "figcaption",
      null,
      when(
        () => speaks.value,
        () => h("span", { class: "call-mark", title: t("call.speaks") }, icon("sound")),
      ),
      h("span", { class: "call-name" }, name),
      when(
        () => !link.hears.value,
        () => mark("microphoneOff", t("call.isMuted")),
      ),
      when(
        () => !link.shows.value,
        () => mark("cameraOff", t("call.isCameraOff")),
      ),
      () => {
        const quality = link.quality.value;
        if (!quality) return null;
        const label = t(QUALITY[quality]);
        return h(
          "span",
          { class: "call-mark", role: "img", "aria-label": label, title: label },
          bars(BARS[quality]),
        );
      },
    ),
  );
}

/** @param {Link} link */
function hasPicture(link) {
  link.changes.value;
  return Boolean(link.camera.value?.getVideoTracks().length);
}

/**
 * Media goes on while one of the two has no connection to the server.
 * @param {Call} call
 * @param {Link} link
 */
function problemOf(call, link) {
  const state = link.state.value;
  if (state === "unsealable") return "call.unsealable";
  if (state === "connecting") return "call.connecting";
  return state === "lost" || !link.isAttached.value || !call.isAttached.value ? "call.reconnecting" : null;
}

/**
 * The screen somebody shares.
 * @param {Call} call
 * @param {Link} link
 */
export function screenOf(call, link) {
  const label = () => t("call.screenOf", { name: nameOf(link.userId) });
  return h(
    "figure",
    { class: "call-tile screen", "aria-label": label },
    player(
      call,
      () => link.screen.value,
      () => false,
    ),
    h("figcaption", null, h("span", { class: "call-name" }, label)),
  );
}

/** Oneself. @param {Call} call */
export function selfView(call) {
  const { media } = call;
  return h(
    "figure",
    { class: "call-tile self", "aria-label": t("call.you") },
    h("video", {
      class: "mirrored",
      autoplay: true,
      playsinline: true,
      muted: true,
      srcObject: media.stream,
      hidden: () => media.camera.value === null,
    }),
    when(
      () => media.camera.value === null,
      () =>
        h(
          "div",
          { class: "call-face" },
          avatar(() => pictureOf(call.given.userId)),
        ),
    ),
    h(
      "figcaption",
      null,
      h("span", { class: "call-name" }, t("call.you")),
      when(
        () => media.isMuted.value || media.microphone.value === null,
        () => mark("microphoneOff", t("call.isMuted")),
      ),
    ),
  );
}

/**
 * @param {import("./icons.js").Picture} picture
 * @param {string} label
 */
function mark(picture, label) {
  return h("span", { class: "call-mark", role: "img", "aria-label": label, title: label }, icon(picture));
}

/**
 * @param {Call} call
 * @param {() => MediaStream | null} stream
 * @param {() => boolean} isHidden
 */
function player(call, stream, isHidden) {
  const video = h("video", { autoplay: true, playsinline: true, srcObject: stream, hidden: isHidden });
  const onresize = () => video.classList.toggle("tall", video.videoHeight > video.videoWidth); // a phone was turned
  video.addEventListener("resize", onresize);
  effect(() => {
    if (!stream() || call.isSilenced.value) return;
    video.play().catch(({ name }) => {
      if (name === "NotAllowedError") call.isSilenced.value = true; // no sound before somebody clicks
    });
  });
  effect(() => {
    const speaker = call.media.chosen.value.audiooutput ?? "";
    if (speaker || video.sinkId) video.setSinkId?.(speaker).catch(() => {}); // it is gone: the default is heard
  });
  onEnd(() => (video.srcObject = null));
  return video;
}
