// One film of a call: the pictures side by side, the sounds together; of nobody who has not agreed.

import { effect, scope } from "../store/signal.js";
import { sound } from "./levels.js";
import { FullError } from "./shelf.js";

/** @import { Sealer } from "./types.js" */
/** @import { Link } from "./link.js" */
/** @import { Media } from "./media.js" */
/** @import { Shelf } from "./shelf.js" */
/** @import { Sender } from "./sender.js" */

const RATE = 15; // pictures a second
const WIDTH = 1280;
const HEIGHT = 720;
const VIDEO_BPS = 1_200_000;
const AUDIO_BPS = 64_000;
const PART_MS = 4_000; // about 600 kB
const FILM = ["video/webm;codecs=vp8,opus", "video/webm"];
const TAPE = ["audio/webm;codecs=opus", "audio/webm"];
const BACKGROUND = "#16181d";
const INK = "#e8eaee";

/**
 * Somebody in the film.
 * @typedef {{ key: string, name: string, video: HTMLVideoElement | null }} Place
 */

/**
 * sealer: makes ciphertext of it, where the conversation is encrypted.  failed: no more can be recorded.
 * @typedef {{ recordingId: string, links: () => Link[], media: Media, nameOf: (userId: string | null) => string,
 *   agreed: ReadonlySet<string>, withPicture: boolean, shelf: Shelf, sender: Sender,
 *   sealer: Sealer | null, failed: () => void }} Given
 */

export function canRecord() {
  return typeof MediaRecorder === "function" && isSecureContext;
}

/** @param {boolean} withPicture */
export function mediaType(withPicture) {
  return withPicture ? "video/webm" : "audio/webm";
}

export class Recorder {
  /** @param {Given} given */
  constructor(given) {
    this.given = given;
    /** @type {Map<string, Place>} */
    this.places = new Map();
    /** @type {AudioNode[]} */
    this.sources = [];
    this.audio = sound();
    this.mixed = this.audio.createMediaStreamDestination();
    this.silence = this.audio.createGain();
    this.silence.gain.value = 0;
    this.silence.connect(this.audio.destination);
    this.silence.connect(this.mixed); // without any sound there would be no film either
    this.canvas = Object.assign(document.createElement("canvas"), { width: WIDTH, height: HEIGHT });
    this.unfollow = () => {};
    this.isOver = false;
    this.hasBegun = false;
    this.isBroken = false; // a part is missing: what follows is worth nothing
    /** @type {Promise<void>} one part after the other */
    this.keeping = Promise.resolve();
    const pictures = given.withPicture ? this.canvas.captureStream(RATE).getTracks() : [];
    const mimeType = (given.withPicture ? FILM : TAPE).find((type) => MediaRecorder.isTypeSupported(type));
    const limits = { videoBitsPerSecond: VIDEO_BPS, audioBitsPerSecond: AUDIO_BPS };
    const all = new MediaStream([...pictures, ...this.mixed.stream.getTracks()]);
    this.tracks = all.getTracks();
    this.recorder = new MediaRecorder(all, { mimeType, ...limits });
    this.recorder.ondataavailable = ({ data }) => this.keep(data);
  }

  /** All who are there have agreed: from the beginning, or again. */
  go() {
    if (this.isOver) return;
    if (this.recorder.state === "paused") this.recorder.resume();
    if (this.recorder.state === "inactive") {
      this.recorder.start(PART_MS);
      if (this.given.withPicture) this.beat();
    }
    this.unfollow();
    [, this.unfollow] = scope(() => effect(() => this.arrange()));
  }

  /** Somebody has come who was not asked yet. */
  pause() {
    if (this.recorder.state === "recording") this.recorder.pause();
  }

  /** What is seen and heard, whenever any of it is another. */
  arrange() {
    const { media, links, nameOf, agreed } = this.given;
    media.microphone.value;
    const there = links().filter(({ userId }) => agreed.has(userId));
    /** @type {[string, string, MediaStream | null][]} */
    const shown = [["me", nameOf(null), media.camera.value && media.stream]];
    if (media.screen.value) shown.push(["my screen", nameOf(null), media.screen.value]);
    /** @type {(MediaStream | null)[]} */
    const heard = [media.stream];
    for (const link of there) {
      link.changes.value;
      const camera = link.camera.value;
      shown.push([link.peerId, nameOf(link.userId), link.shows.value ? camera : null]);
      if (link.screen.value) shown.push([`${link.peerId} screen`, nameOf(link.userId), link.screen.value]);
      heard.push(camera);
    }
    this.mix(heard);
    this.place(shown);
  }

  /** @param {(MediaStream | null)[]} heard */
  mix(heard) {
    for (const source of this.sources) source.disconnect();
    this.sources = [];
    for (const stream of heard) {
      if (!stream?.getAudioTracks().length) continue;
      const source = this.audio.createMediaStreamSource(new MediaStream(stream.getAudioTracks()));
      source.connect(this.mixed);
      this.sources.push(source);
    }
  }

  /** @param {[string, string, MediaStream | null][]} shown */
  place(shown) {
    const before = this.places;
    this.places = new Map();
    for (const [key, name, stream] of shown) {
      let video = before.get(key)?.video ?? null;
      if (video && video.srcObject !== stream) video = release(video);
      if (stream?.getVideoTracks().length && !video) {
        video = Object.assign(document.createElement("video"), { srcObject: stream, muted: true });
        video.play().catch(() => {}); // taken away again before it began
      }
      before.delete(key);
      this.places.set(key, { key, name, video });
    }
    for (const { video } of before.values()) if (video) release(video);
  }

  /** By the clock of the sound card: timers of a page that nobody looks at go once a second. */
  beat() {
    if (this.isOver) return;
    if (this.recorder.state === "recording") this.draw();
    const next = this.audio.createConstantSource();
    next.connect(this.silence);
    next.onended = () => this.beat();
    next.start();
    next.stop(this.audio.currentTime + 1 / RATE);
  }

  draw() {
    const context = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
    context.fillStyle = BACKGROUND;
    context.fillRect(0, 0, WIDTH, HEIGHT);
    const columns = Math.ceil(Math.sqrt(this.places.size));
    const rows = Math.ceil(this.places.size / columns);
    const [width, height] = [WIDTH / columns, HEIGHT / rows];
    let count = 0;
    for (const place of this.places.values()) {
      const [x, y] = [(count % columns) * width, Math.floor(count / columns) * height];
      if (place.video?.videoWidth) fit(context, place.video, x, y, width, height);
      context.fillStyle = INK;
      context.font = "24px sans-serif";
      context.fillText(place.name, x + 16, y + height - 16, width - 32);
      count += 1;
    }
  }

  /** @param {Blob} data */
  keep(data) {
    const { sealer } = this.given;
    if (!data.size) return;
    this.hasBegun = true;
    this.put(async () => {
      const content = await data.arrayBuffer();
      return sealer ? sealer.add(content) : content;
    });
  }

  /** @param {() => Promise<ArrayBuffer>} make the next part */
  put(make) {
    const { recordingId, shelf, sender, failed } = this.given;
    this.keeping = this.keeping
      .then(async () => {
        if (this.isBroken) return;
        const content = await make();
        if (content.byteLength) await shelf.add(recordingId, content);
        sender.poke();
      })
      .catch((error) => {
        this.isBroken = true;
        this.end();
        if (error instanceof FullError || error instanceof DOMException) failed();
        else throw error;
      });
  }

  /**
   * Resolves when the last part is kept.
   * @param {boolean} isUnwanted none of what has not been sent yet is to be kept
   */
  async end(isUnwanted = false) {
    if (this.isOver) return;
    this.isOver = true;
    this.isBroken ||= isUnwanted;
    if (this.recorder.state !== "inactive") {
      const stopped = new Promise((resolve) => (this.recorder.onstop = resolve));
      this.recorder.stop();
      await stopped;
    }
    for (const track of this.tracks) track.stop();
    this.unfollow();
    this.mix([]);
    this.place([]);
    this.silence.disconnect();
    const { sealer } = this.given;
    if (sealer && this.hasBegun) this.put(() => sealer.end());
    await this.keeping;
    const { recordingId, shelf, sender } = this.given;
    await (isUnwanted ? shelf.drop(recordingId) : shelf.finish(recordingId));
    sender.poke();
  }
}

/**
 * Whole, in the middle.
 * @param {CanvasRenderingContext2D} context
 * @param {HTMLVideoElement} video
 * @param {number} x
 * @param {number} y
 * @param {number} width
 * @param {number} height
 */
function fit(context, video, x, y, width, height) {
  const scale = Math.min(width / video.videoWidth, height / video.videoHeight);
  const [wide, high] = [video.videoWidth * scale, video.videoHeight * scale];
  context.drawImage(video, x + (width - wide) / 2, y + (height - high) / 2, wide, high);
}

/** @param {HTMLVideoElement} video */
function release(video) {
  video.pause();
  video.srcObject = null;
  return null;
}
