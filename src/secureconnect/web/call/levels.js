// How loud somebody is, of as many streams as are watched.

import { signal } from "../store/signal.js";

const LOOK_MS = 120;
const SPEAKS = 0.04; // of 1: what a room without anybody speaking stays below
const SILENT_LOOKS = 5; // the mark stays between two words

/** @type {AudioContext | null} one for the page: browsers allow few */
let context = null;
/** @type {Set<Level>} */
const watched = new Set();
/** @type {number | undefined} */
let looking;

/** Of the whole page; it makes a sound only after somebody has clicked somewhere. */
export function sound() {
  context ??= new AudioContext();
  if (context.state === "suspended") context.resume().catch(() => {});
  return context;
}

export class Level {
  /** @param {MediaStream | null} stream with a sound, or there is nothing to hear */
  constructor(stream) {
    this.level = signal(0); // 0..1
    this.speaks = signal(false);
    this.quiet = SILENT_LOOKS;
    if (!stream?.getAudioTracks().length) return;
    const audio = sound();
    this.source = audio.createMediaStreamSource(new MediaStream(stream.getAudioTracks()));
    this.analyser = audio.createAnalyser();
    this.analyser.fftSize = 512;
    this.samples = new Float32Array(this.analyser.fftSize);
    this.source.connect(this.analyser);
    watched.add(this);
    looking ??= setInterval(lookAtAll, LOOK_MS);
  }

  look() {
    if (!this.analyser || !this.samples) return;
    this.analyser.getFloatTimeDomainData(this.samples);
    let sum = 0;
    for (const sample of this.samples) sum += sample * sample;
    const loud = Math.sqrt(sum / this.samples.length);
    this.level.value = Math.min(1, Math.round(loud * 30) / 10); // in tenths, so that little is drawn anew
    this.quiet = loud > SPEAKS ? 0 : this.quiet + 1;
    this.speaks.value = this.quiet < SILENT_LOOKS;
  }

  end() {
    this.source?.disconnect();
    watched.delete(this);
    if (watched.size || looking === undefined) return;
    clearInterval(looking);
    looking = undefined;
  }
}

function lookAtAll() {
  for (const each of watched) each.look();
}
