// What one hears of a call that rings, is rung, or is recorded.

import { sound } from "../../call/levels.js";

const LOUD = 0.15;
const RAMP_S = 0.02; // without it a tone clicks

/** Beginning, length, and frequency in Hz. @typedef {[number, number, number]} Tone */

/** @type {Tone[]} */
const RING = [
  [0, 0.18, 660],
  [0.22, 0.18, 880],
  [0.6, 0.18, 660],
  [0.82, 0.18, 880],
];
/** @type {Tone[]} */
const RINGBACK = [[0, 1, 425]];

/** @param {Tone[]} tones */
function play(tones) {
  const audio = sound();
  for (const [begins, lasts, hertz] of tones) {
    const [from, to] = [audio.currentTime + begins, audio.currentTime + begins + lasts];
    const source = new OscillatorNode(audio, { frequency: hertz });
    const gain = new GainNode(audio, { gain: 0 });
    gain.gain.setValueAtTime(0, from);
    gain.gain.linearRampToValueAtTime(LOUD, from + RAMP_S);
    gain.gain.setValueAtTime(LOUD, to - RAMP_S);
    gain.gain.linearRampToValueAtTime(0, to);
    source.connect(gain).connect(audio.destination);
    source.start(from);
    source.stop(to);
  }
}

/**
 * @param {Tone[]} tones
 * @param {number} eachMs
 * @returns {() => void} ends it
 */
function repeat(tones, eachMs) {
  const again = () => sound().state === "running" && play(tones); // else all of them would come at the first click
  again();
  const timer = setInterval(again, eachMs);
  return () => clearInterval(timer);
}

/** Browsers want a click first, and complain of pages that do not wait for it. */
function mayMakeSounds() {
  return navigator.userActivation?.hasBeenActive ?? true;
}

/** Somebody calls. */
export function ring() {
  if (!mayMakeSounds()) return () => {};
  navigator.vibrate?.([300, 200, 300]);
  return repeat(RING, 3_000);
}

/** It rings where one calls. */
export function ringback() {
  return repeat(RINGBACK, 4_000);
}

/** A recording begins, or ends. @param {boolean} begins */
export function cue(begins) {
  const pair = begins ? [523, 784] : [784, 523];
  play(pair.map((hertz, place) => /** @type {Tone} */ ([place * 0.2, 0.18, hertz])));
}
