// The connection with one other device: perfect negotiation, in which the smaller peer_id gives way.
// Source: W3C WebRTC 1.0, section 10.7.
//
// Of two devices the one that is told of the other's coming makes the first offer; the other waits for it. So offers
// cross only when both change something at once: where the first offers crossed, Chromium now and then gathered no
// candidates at all.

import { batch, signal } from "../store/signal.js";

/** @import { Frame, PeerShape, Sealing } from "./types.js" */
/** @import { Media } from "./media.js" */

const AGAIN_MS = 1_000; // after which a description that could not be sealed, or handed on, is said again
const PATIENCE_MS = 10_000; // in which two that have met are connected
const MOST_ATTEMPTS = 8; // to seal it: a device that has just been signed in publishes its keys a moment later
const SEALED = "sc.call.description"; // what a sealed event is called
const CAMERA_BPS = 1_000_000;
const SCREEN_BPS = 1_500_000;

/**
 * send: says a frame to the other device; lost while there is no connection to the server.
 * sealing: what describes media is said so that nobody but the other device reads or changes it.
 * @typedef {{ peerId: string, callId: string, media: Media, connecting: RTCConfiguration, sealing: Sealing | null,
 *   send: (frame: Record<string, unknown>) => void }} Given
 */

/** @typedef {"connecting" | "connected" | "lost" | "unsealable"} LinkState */

export class Link {
  /**
   * @param {Given} given
   * @param {PeerShape} peer
   */
  constructor(given, peer) {
    this.given = given;
    this.peerId = peer.peer_id;
    this.userId = peer.user_id;
    this.deviceId = peer.device_id;
    this.instanceId = peer.instance_id;
    this.hears = signal(peer.audio); // whether they send what their microphone hears
    this.shows = signal(peer.video);
    this.shares = signal(peer.screen);
    this.isAttached = signal(peer.is_connected); // to the server
    this.state = signal(/** @type {LinkState} */ ("connecting")); // of the media
    this.camera = signal(/** @type {MediaStream | null} */ (null)); // and microphone
    this.screen = signal(/** @type {MediaStream | null} */ (null));
    this.changes = signal(0); // of the tracks in these streams
    this.quality = signal(/** @type {"good" | "fair" | "poor" | null} */ (null));

    this.isPolite = given.peerId < peer.peer_id;
    this.hasBegun = false;
    this.isOffering = false;
    this.ignoresOffer = false;
    this.isClosed = false;
    /** @type {Map<string, MediaStream>} */
    this.streams = new Map();
    /** @type {string | null} */
    this.screenId = null;
    /** @type {Promise<void>} one frame after the other */
    this.hearing = Promise.resolve();
    /** @type {Promise<void>} the same */
    this.saying = Promise.resolve();
    /** @type {number | undefined} */
    this.again = undefined;

    const pc = (this.pc = new RTCPeerConnection(given.connecting));
    pc.onnegotiationneeded = () => this.offer();
    pc.onicecandidate = ({ candidate }) =>
      candidate && this.say("ice_candidate", async () => ({ candidate }));
    pc.ontrack = ({ track, streams }) => this.take(track, streams[0]);
    pc.oniceconnectionstatechange = () => this.watch();
    this.looking = setInterval(() => this.look(), PATIENCE_MS);
  }

  // what we send

  /** Send what we have: our offer follows, or it is in the answer to theirs. */
  begin() {
    if (this.hasBegun || this.isClosed) return;
    this.hasBegun = true;
    const { media } = this.given;
    for (const track of [media.microphone.peek(), media.camera.peek()])
      if (track) this.put(track, media.stream);
    const screen = media.screen.peek();
    if (screen) this.showScreen(screen);
    if (!this.pc.getTransceivers().length) this.pc.addTransceiver("audio", { direction: "recvonly" });
  }

  /**
   * Our microphone or camera is another one, or is off.
   * @param {"audio" | "video"} kind
   * @param {MediaStreamTrack | null} track
   */
  change(kind, track) {
    if (!this.hasBegun || this.isClosed) return;
    const sender = kind === "audio" ? this.audioSender : this.videoSender;
    if (sender) sender.replaceTrack(track).catch(() => this.failed());
    else if (track) this.put(track, this.given.media.stream);
  }

  /**
   * @param {MediaStreamTrack} track
   * @param {MediaStream} stream
   */
  put(track, stream) {
    const sender = this.pc.addTrack(track, stream);
    if (track.kind === "audio") this.audioSender = sender;
    else {
      this.videoSender = sender;
      limit(sender, CAMERA_BPS);
    }
  }

  /** @param {MediaStream | null} screen */
  showScreen(screen) {
    if (!this.hasBegun || this.isClosed) return;
    for (const sender of this.screenSenders ?? []) this.pc.removeTrack(sender);
    this.screenSenders = screen?.getTracks().map((track) => this.pc.addTrack(track, screen));
    for (const sender of this.screenSenders ?? []) limit(sender, SCREEN_BPS);
  }

  // what is said

  /**
   * In the order in which it is said, though sealing takes time.
   * @param {string} type
   * @param {() => Promise<Record<string, unknown>>} fields
   */
  say(type, fields) {
    this.saying = this.saying
      .then(async () => {
        const made = await fields();
        if (!this.isClosed) this.given.send({ type, target_id: this.peerId, ...made });
      })
      .catch(() => this.failed());
  }

  describe() {
    const description = this.pc.localDescription;
    if (!description) return;
    const { type, sdp } = description;
    this.say(type, async () => {
      const { sealing, callId } = this.given;
      if (!sealing) return { sdp };
      const content = { call_id: callId, peer_id: this.peerId, type, sdp };
      return { sealed: await this.seal(sealing, content) };
    });
  }

  /**
   * @param {Sealing} sealing
   * @param {object} content
   */
  async seal(sealing, content) {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await sealing.seal(this.userId, this.deviceId, SEALED, content);
      } catch (error) {
        if (attempt === MOST_ATTEMPTS) this.state.value = "unsealable";
        if (attempt === MOST_ATTEMPTS || this.isClosed) throw error;
        await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
      }
    }
  }

  async offer() {
    this.isOffering = true;
    try {
      await this.pc.setLocalDescription();
      this.describe();
    } catch {
      this.failed();
    } finally {
      this.isOffering = false;
    }
  }

  /** The signaling was away: an offer made meanwhile is lost. */
  resync() {
    if (this.pc.signalingState === "have-local-offer") this.describe();
  }

  /** @param {boolean} restartsIce */
  comeBack(restartsIce) {
    this.begin();
    this.resync();
    if (restartsIce) this.pc.restartIce();
  }

  /** What was last said did not come through, though both are there. */
  sayAgain() {
    clearTimeout(this.again);
    this.again = setTimeout(() => !this.isClosed && this.describe(), AGAIN_MS);
  }

  /**
   * Where no candidate has come through, or was found, the browser waits for ever: nothing has failed. So one of the
   * two begins anew.
   */
  look() {
    if (this.state.peek() !== "connecting" || !this.isAttached.peek()) return;
    this.resync();
    if (!this.isPolite && this.pc.signalingState === "stable" && this.pc.remoteDescription)
      this.pc.restartIce();
  }

  // what is heard

  /** @param {PeerShape} peer */
  update(peer) {
    batch(() => {
      this.hears.value = peer.audio;
      this.shows.value = peer.video;
      this.shares.value = peer.screen;
      this.isAttached.value = peer.is_connected;
    });
  }

  /** From the server: media goes on. */
  detached() {
    this.isAttached.value = false;
  }

  /** @param {Frame} frame */
  hear(frame) {
    switch (frame.type) {
      case "offer":
      case "answer":
        this.hearing = this.hearing.then(() => this.accept(frame)).catch(() => this.failed());
        break;
      case "ice_candidate":
        this.hearing = this.hearing.then(() => this.addCandidate(frame.candidate)).catch(() => this.failed());
        break;
      case "mute_audio":
        this.hears.value = frame.muted === false;
        break;
      case "mute_video":
        this.shows.value = frame.muted === false;
        break;
      case "screen_share_started":
      case "screen_share_stopped":
        this.shares.value = frame.type === "screen_share_started";
        this.screenId = (this.shares.value && frame.stream_id) || null;
        this.sort();
        break;
    }
  }

  /** @param {Frame} frame an offer or an answer */
  async accept(frame) {
    const type = /** @type {"offer" | "answer"} */ (frame.type);
    const sdp = await this.opened(frame);
    if (sdp === null || this.isClosed) return;
    if (this.state.peek() === "unsealable") this.state.value = "connecting"; // an earlier one was lost on the way
    const collides = type === "offer" && (this.isOffering || this.pc.signalingState !== "stable");
    this.ignoresOffer = collides && !this.isPolite;
    if (this.ignoresOffer) return;
    if (type === "answer" && this.pc.signalingState !== "have-local-offer") return; // of an offer said twice
    await this.pc.setRemoteDescription({ type, sdp }); // rolls our own offer back
    if (type === "offer") {
      this.begin();
      await this.pc.setLocalDescription();
      this.describe();
    }
  }

  /**
   * The description in a frame; null when it cannot be trusted to be theirs, of which the state tells.
   * @param {Frame} frame
   */
  async opened(frame) {
    const { sealing, callId, peerId } = this.given;
    if (!sealing) return frame.sdp ?? "";
    try {
      const { type, content, device } = await sealing.unseal(this.userId, frame.sealed);
      const isTheirs = type === SEALED && device === this.deviceId && content.type === frame.type;
      if (isTheirs && content.call_id === callId && content.peer_id === peerId) return String(content.sdp);
    } catch {
      // said below, whatever it was
    }
    // what is exchanged already is with whom it was agreed on
    if (this.state.peek() !== "connected") this.state.value = "unsealable";
    return null;
  }

  /** @param {RTCIceCandidateInit | undefined} candidate */
  async addCandidate(candidate) {
    if (this.isClosed || !this.pc.remoteDescription) return; // of an offer that was not taken
    try {
      await this.pc.addIceCandidate(candidate);
    } catch (error) {
      if (!this.ignoresOffer && !this.isClosed) throw error;
    }
  }

  /**
   * @param {MediaStreamTrack} track
   * @param {MediaStream} stream
   */
  take(track, stream) {
    if (!stream) return;
    this.streams.set(stream.id, stream);
    stream.onremovetrack = () => {
      if (!stream.getTracks().length) this.streams.delete(stream.id);
      this.sort();
    };
    track.onunmute = () => this.sort();
    this.sort();
  }

  /** Which stream is the camera, and which the screen. */
  sort() {
    const all = [...this.streams.values()];
    batch(() => {
      this.screen.value = all.find((stream) => stream.id === this.screenId) ?? null;
      this.camera.value = all.find((stream) => stream.id !== this.screenId) ?? null;
      this.changes.value += 1;
    });
  }

  watch() {
    const now = this.pc.iceConnectionState;
    if (now === "failed") this.pc.restartIce();
    if (this.isClosed || this.state.peek() === "unsealable") return;
    if (now === "connected" || now === "completed") this.state.value = "connected";
    else if (now === "failed" || now === "disconnected") this.state.value = "lost";
  }

  failed() {
    if (!this.isClosed && this.state.peek() !== "connected" && this.state.peek() !== "unsealable") {
      this.state.value = "lost";
    }
  }

  close() {
    this.isClosed = true;
    clearTimeout(this.again);
    clearInterval(this.looking);
    Object.assign(this.pc, { onnegotiationneeded: null, onicecandidate: null, ontrack: null });
    this.pc.close();
  }
}

/**
 * A mesh of four is three pictures upwards: each is kept to what a home connection can send.
 * @param {RTCRtpSender} sender
 * @param {number} bps
 */
function limit(sender, bps) {
  const parameters = sender.getParameters();
  for (const encoding of parameters.encodings ?? []) encoding.maxBitrate = bps;
  sender.setParameters(parameters).catch(() => {}); // it is a wish
}
