// What this device sends: its microphone, its camera and its screen. Why one of them is not there is told by a word
// that the page has a text for.

import { batch, signal } from "../store/signal.js";

/** @typedef {"insecure" | "denied" | "missing" | "busy" | "failed"} Trouble */
/** @typedef {"audio" | "video"} Kind */
/** @typedef {"audioinput" | "videoinput" | "audiooutput"} DeviceKind */

const CHOSEN = "sc.call.devices"; // in localStorage
const PICTURE = { width: { ideal: 640 }, height: { ideal: 360 }, frameRate: { ideal: 24, max: 30 } };
const THRIFTY = { width: { ideal: 320 }, height: { ideal: 240 }, frameRate: { ideal: 10, max: 10 } };
const SCREEN = { width: { max: 1920 }, height: { max: 1080 }, frameRate: { ideal: 10, max: 15 } };

/** @type {Record<string, Trouble>} names of what getUserMedia throws */
const TROUBLES = {
  NotAllowedError: "denied",
  SecurityError: "denied",
  NotFoundError: "missing",
  OverconstrainedError: "missing",
  NotReadableError: "busy",
  AbortError: "busy",
};

/** Browsers give cameras and microphones to pages with TLS alone, and to this very machine. */
export function isSecure() {
  return isSecureContext && navigator.mediaDevices !== undefined;
}

export class Media {
  constructor() {
    this.stream = new MediaStream(); // the same all the time: others know it by its id
    this.microphone = signal(/** @type {MediaStreamTrack | null} */ (null));
    this.camera = signal(/** @type {MediaStreamTrack | null} */ (null));
    this.screen = signal(/** @type {MediaStream | null} */ (null));
    this.isMuted = signal(false);
    this.noMicrophone = signal(/** @type {Trouble | null} */ (null));
    this.noCamera = signal(/** @type {Trouble | null} */ (null));
    this.devices = signal(/** @type {MediaDeviceInfo[]} */ ([]));
    this.chosen = signal(
      /** @type {Partial<Record<DeviceKind, string>> & { thrifty?: boolean, noKeys?: boolean }} */ (chosen()),
    );
    this.changed = (/** @type {Kind} */ _kind, /** @type {MediaStreamTrack | null} */ _track) => {};
    this.isClosed = false;
    this.isSharing = false; // or the browser asks what
    this.wantsCamera = false;
    this.onDevices = () => this.look();
    if (isSecure()) navigator.mediaDevices.addEventListener("devicechange", this.onDevices);
  }

  /**
   * Take the microphone, and the camera if it is wanted; what cannot be had is told by `noMicrophone`, `noCamera`.
   * @param {boolean} withCamera
   */
  async open(withCamera) {
    this.wantsCamera = withCamera;
    if (withCamera && isSecure()) {
      // asked for together, so that the browser asks its person once
      const both = await this.get({ audio: this.wish("audio"), video: this.wish("video") });
      if (both instanceof MediaStream) {
        for (const track of both.getTracks()) this.take(/** @type {Kind} */ (track.kind), track);
        return this.look();
      }
    }
    await this.obtain("audio");
    if (this.wantsCamera) await this.obtain("video");
    await this.look();
  }

  /**
   * What the browser has given, if it is still wanted: it may have asked its person for long.
   * @param {Kind} kind
   * @param {MediaStreamTrack} track
   */
  take(kind, track) {
    if (kind === "video" && !this.wantsCamera) track.stop();
    else this.use(kind, track);
  }

  /** @param {Kind} kind */
  async obtain(kind) {
    if (kind === "video") this.camera.peek()?.stop(); // phones have one at a time
    const got = await this.get({ [kind]: this.wish(kind) });
    if (got instanceof MediaStream) this.take(kind, got.getTracks()[0]);
    else {
      if (kind === "video" && this.camera.peek()?.readyState === "ended") this.use(kind, null);
      (kind === "audio" ? this.noMicrophone : this.noCamera).value = got;
    }
  }

  /**
   * @param {MediaStreamConstraints} wanted
   * @returns {Promise<MediaStream | Trouble>}
   */
  async get(wanted) {
    if (!isSecure()) return "insecure";
    try {
      const got = await this.ask(wanted);
      if (!this.isClosed) return got;
      for (const track of got.getTracks()) track.stop();
      return "failed";
    } catch (error) {
      return TROUBLES[/** @type {Error} */ (error).name] ?? "failed";
    }
  }

  /**
   * What was chosen, or another one where that is not there: a mere preference Chromium does not always heed.
   * @param {MediaStreamConstraints} wanted
   */
  async ask(wanted) {
    const { mediaDevices } = navigator;
    try {
      return await mediaDevices.getUserMedia(wanted);
    } catch (error) {
      if (/** @type {Error} */ (error).name !== "OverconstrainedError") throw error;
      const some = Object.entries(wanted).map(([kind, { deviceId: _, ...rest }]) => [kind, rest]);
      return mediaDevices.getUserMedia(Object.fromEntries(some));
    }
  }

  /**
   * @param {Kind} kind
   * @returns {MediaTrackConstraints}
   */
  wish(kind) {
    const { audioinput, videoinput, thrifty } = this.chosen.peek();
    const device = kind === "audio" ? audioinput : videoinput;
    const which = device ? { deviceId: { exact: device } } : {};
    if (kind === "audio")
      return { echoCancellation: true, noiseSuppression: true, autoGainControl: true, ...which };
    return { ...(thrifty ? THRIFTY : PICTURE), ...which };
  }

  /**
   * @param {Kind} kind
   * @param {MediaStreamTrack | null} track
   */
  use(kind, track) {
    const isAudio = kind === "audio";
    const held = isAudio ? this.microphone : this.camera;
    const before = held.peek();
    if (before) {
      before.onended = null;
      before.stop();
      this.stream.removeTrack(before);
    }
    if (track) {
      track.onended = () => this.vanished(kind);
      if (isAudio) track.enabled = !this.isMuted.peek();
      this.stream.addTrack(track);
    }
    batch(() => {
      held.value = track;
      if (track) (isAudio ? this.noMicrophone : this.noCamera).value = null;
    });
    this.changed(kind, track);
  }

  /** The device was unplugged, or taken away: another one will do. @param {Kind} kind */
  async vanished(kind) {
    this.use(kind, null);
    if (!this.isClosed) await this.obtain(kind);
  }

  /** @param {boolean} muted */
  mute(muted) {
    const track = this.microphone.peek();
    if (track) track.enabled = !muted;
    this.isMuted.value = muted;
  }

  /** Off, the camera's light goes out. @param {boolean} on */
  async show(on) {
    this.wantsCamera = on;
    if (on === (this.camera.peek() !== null)) return;
    if (on) await this.obtain("video");
    else this.use("video", null);
  }

  async look() {
    if (!isSecure()) return;
    const all = await navigator.mediaDevices.enumerateDevices();
    this.devices.value = all.filter(({ deviceId }) => deviceId); // without a name until there is permission
  }

  /**
   * Another device, now and in calls to come; "" is what the system takes.
   * @param {DeviceKind} kind
   * @param {string} deviceId
   */
  async choose(kind, deviceId) {
    this.remember({ [kind]: deviceId || undefined });
    if (kind === "audioinput") await this.obtain("audio");
    if (kind === "videoinput" && this.camera.peek()) await this.obtain("video");
  }

  /** A small picture, for networks that are slow or cost money. @param {boolean} thrifty */
  async save(thrifty) {
    this.remember({ thrifty });
    if (this.camera.peek()) await this.obtain("video");
  }

  /** @param {object} change */
  remember(change) {
    this.chosen.value = { ...this.chosen.peek(), ...change };
    localStorage.setItem(CHOSEN, JSON.stringify(this.chosen.peek()));
  }

  /** Whether something is shared then: people may change their mind in the browser's dialog. */
  async share() {
    if (this.isSharing || this.screen.peek()) return false;
    this.isSharing = true;
    try {
      const screen = await navigator.mediaDevices.getDisplayMedia({ video: SCREEN });
      for (const track of screen.getVideoTracks()) {
        track.contentHint = "detail";
        track.onended = () => this.unshare();
      }
      if (this.isClosed) {
        for (const track of screen.getTracks()) track.stop();
        return false;
      }
      this.screen.value = screen;
      return true;
    } catch {
      return false;
    } finally {
      this.isSharing = false;
    }
  }

  unshare() {
    for (const track of this.screen.peek()?.getTracks() ?? []) track.stop();
    this.screen.value = null;
  }

  close() {
    this.isClosed = true;
    if (isSecure()) navigator.mediaDevices.removeEventListener("devicechange", this.onDevices);
    this.unshare();
    for (const kind of /** @type {Kind[]} */ (["audio", "video"])) this.use(kind, null);
  }
}

function chosen() {
  try {
    return JSON.parse(localStorage.getItem(CHOSEN) ?? "{}");
  } catch {
    return {};
  }
}
