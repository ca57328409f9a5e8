// One call that this device is in: who is there, what they send, and what is done in it. Views read its signals.

import { batch, signal } from "../store/signal.js";
import { Link } from "./link.js";
import { Quality } from "./quality.js";
import { Recording } from "./recording.js";
import { Signaling, keepCall } from "./socket.js";
import { stayAwake } from "./wake.js";

/** @import { CallShape, Frame, JoinedCall, PeerShape, Sealing } from "./types.js" */
/** @import { Media } from "./media.js" */
/** @import { Given as RecordingGiven } from "./recording.js" */

const MOST_EARLY = 64; // frames held of somebody who was not announced yet
const MOST_STRANGERS = 8; // of whom frames are held

/**
 * ask: of the REST client.  token: a good access token.  heldToken: the one there is.  sealing: null where the conversation is not encrypted.
 * @typedef {{ ask: RecordingGiven["ask"], token: () => Promise<string>,
 *   heldToken: () => string | null, joined: JoinedCall, media: Media,
 *   userId: string, sealing: Sealing | null, connecting?: RTCConfiguration,
 *   recording: Pick<RecordingGiven, "put" | "nameOf"> }} Given
 */

export class Call {
  /** @param {Given} given */
  constructor(given) {
    const { call, call_id, signaling_url, ice_servers } = given.joined;
    this.given = given;
    this.callId = call_id;
    this.conversationId = call.conversation_id;
    this.media = given.media;
    this.record = signal(call); // as the server last told it
    this.links = signal(/** @type {Link[]} */ ([]));
    this.isAttached = signal(false); // to the server; media does not need it
    this.hasBeenAttached = false;
    this.isOver = signal(false);
    this.end = signal(/** @type {string | null} */ (null)); // why it is over; "own": this device has left
    this.startedAt = Date.now();
    this.peerId = "";
    this.connecting = { iceServers: ice_servers, ...given.connecting };
    /** @type {Map<string, Frame[]>} */
    this.early = new Map();
    this.quality = new Quality(() => this.links.peek());
    this.sleep = () => {}; // lets the device sleep
    /** whether the browser plays no sound before somebody has clicked */
    this.isSilenced = signal(false);
    this.onPageHide = (/** @type {PageTransitionEvent} */ { persisted }) => persisted || this.sayGone();
    this.recording = new Recording({
      ...given.recording,
      ask: given.ask,
      userId: given.userId,
      sealing: given.sealing,
      call: this,
    });
    const there = new URL(signaling_url, location.href);
    this.signaling = new Signaling({
      // the page may have come from another name of the server than the one it knows itself by
      url: new URL(there.pathname + there.search, location.href.replace(/^http/, "ws")),
      callId: call_id,
      keep: (token) => this.keep(token),
      token: given.token,
      hear: (frame) => this.hear(frame),
      lost: () => (this.isAttached.value = false),
      isOn: (isReplaced) => this.isOn(isReplaced),
    });
    this.media.changed = (kind, track) => {
      for (const link of this.links.peek()) link.change(kind, track);
      if (!this.isOver.peek()) this.tell();
    };
  }

  begin() {
    this.sleep = stayAwake();
    addEventListener("pagehide", this.onPageHide);
    this.signaling.open();
  }

  /**
   * The tab is closed, or loaded anew: nobody can tell which. The worker lives on, and says `leave` if no page comes that
   * knows of the call.
   */
  sayGone() {
    const token = this.given.heldToken();
    const gone = { type: "gone", callId: this.callId, token };
    if (token) navigator.serviceWorker?.controller?.postMessage(gone);
  }

  // what is heard

  /** @param {Frame} frame */
  hear(frame) {
    const isNewEpoch = frame.epoch !== undefined && frame.epoch > (this.epoch ?? 0);
    if (isNewEpoch) this.epoch = frame.epoch;
    const peer = /** @type {PeerShape} */ (frame.peer);
    switch (frame.type) {
      case "peers":
      case "resumed":
        this.greeted(frame);
        break;
      case "join":
        this.recording.somebodyCame(peer.user_id);
        this.linkTo(peer).begin();
        this.tell();
        break;
      case "peer_reconnecting":
        this.find(frame.peer_id)?.detached();
        break;
      case "peer_resumed":
        this.linkTo(peer).comeBack(frame.restart_ice === true);
        this.tell();
        break;
      case "leave":
        this.unlink(frame.peer_id);
        break;
      case "call_ended":
        this.heardOf(/** @type {CallShape} */ (frame.call));
        break;
      case "error":
        this.refused(frame);
        break;
      default:
        if (frame.type.startsWith("recording_")) this.recording.hear(frame);
        else if (frame.sender_id) this.heardFrom(frame.sender_id, frame);
    }
    if (isNewEpoch) for (const link of this.links.peek()) link.resync();
  }

  /** @param {Frame} frame */
  greeted(frame) {
    const wasHere = this.peerId === frame.peer_id;
    this.peerId = frame.peer_id ?? "";
    const others = (frame.peers ?? []).filter(({ peer_id }) => peer_id !== this.peerId);
    for (const { user_id } of others) this.recording.somebodyCame(user_id); // while nothing was heard
    const present = new Set(others.map(({ peer_id }) => peer_id));
    for (const { peerId } of this.links.peek()) if (!wasHere || !present.has(peerId)) this.unlink(peerId);
    for (const peer of others) this.linkTo(peer).resync();
    batch(() => {
      this.isAttached.value = true;
      this.hasBeenAttached = true;
    });
    this.recording.lookAgain();
    this.tell();
  }

  /** @param {string} senderId @param {Frame} frame */
  heardFrom(senderId, frame) {
    const link = this.find(senderId);
    if (link) return link.hear(frame);
    // their offer may be here before the news of their coming
    const held = this.early.get(senderId) ?? [];
    if (held.length < MOST_EARLY && this.early.size < MOST_STRANGERS)
      this.early.set(senderId, [...held, frame]);
  }

  /** @param {Frame} frame */
  refused({ code, ref }) {
    // the ref of a description is the place of its link; see `say`
    const link = ref === undefined ? undefined : this.links.peek()[ref - 1];
    if (link && code === "UNAVAILABLE") link.sayAgain();
  }

  /** An event of the chat socket, or the last frame of the signaling one. @param {CallShape} record */
  heardOf(record) {
    if (record.call_id !== this.callId || this.isOver.peek()) return;
    this.record.value = record;
    if (record.ended_at) this.finish(record.end_reason ?? "ended");
  }

  /**
   * Whether this page may go on, asked when the server turned it away.
   * @param {boolean} isReplaced by another page on this device, if the call goes on at all
   */
  async isOn(isReplaced) {
    const { ask, userId } = this.given;
    try {
      const record = /** @type {CallShape} */ (await ask("GET", `/v1/calls/${this.callId}`));
      this.heardOf(record);
      if (this.isOver.peek()) return false;
      const isIn = record.participants.some((each) => each.user_id === userId && each.state === "joined");
      if (isReplaced) this.finish(isIn ? "elsewhere" : "lost");
      if (isIn || isReplaced) return !isReplaced;
      await ask("POST", `/v1/calls/${this.callId}/join`); // it was away for too long, and comes again
      return true;
    } catch (error) {
      const { status = 0 } = /** @type {{ status?: number }} */ (error);
      const isRefused = status >= 400 && status < 500 && status !== 401 && status !== 429;
      if (isRefused) this.finish("lost");
      return !isRefused;
    }
  }

  // who is there

  /** @param {string | undefined} peerId */
  find(peerId) {
    return this.links.peek().find((link) => link.peerId === peerId);
  }

  /**
   * A page that was loaded anew is another end: nothing of the old connection is of use with it.
   * @param {PeerShape} peer
   */
  linkTo(peer) {
    const known = this.find(peer.peer_id);
    if (known?.instanceId === peer.instance_id) {
      known.update(peer);
      return known;
    }
    const { media, sealing } = this.given;
    const { callId, peerId, connecting } = this;
    const send = (/** @type {Record<string, unknown>} */ frame) => this.say(peer.peer_id, frame);
    const link = new Link({ media, sealing, callId, peerId, connecting, send }, peer);
    known?.close();
    this.links.update((links) => [...links.filter((each) => each !== known), link]);
    for (const frame of this.early.get(peer.peer_id) ?? []) link.hear(frame);
    this.early.delete(peer.peer_id);
    return link;
  }

  /** @param {string | undefined} peerId */
  unlink(peerId) {
    this.find(peerId)?.close();
    this.links.update((links) => links.filter((link) => link.peerId !== peerId));
  }

  // what is said

  /**
   * What is refused of it is told by the place of its link, so that it is said again.
   * @param {string} peerId
   * @param {Record<string, unknown>} frame
   */
  say(peerId, frame) {
    const ref = this.links.peek().findIndex((link) => link.peerId === peerId) + 1;
    this.signaling.send(ref && frame.type !== "ice_candidate" ? { ...frame, ref } : frame);
  }

  /** What others should know of us; whoever comes, or comes back, may have missed it. */
  tell() {
    const { microphone, camera, isMuted, screen } = this.media;
    this.keep(this.signaling.resumeToken);
    this.signaling.send({ type: "mute_audio", muted: isMuted.peek() || microphone.peek() === null });
    this.signaling.send({ type: "mute_video", muted: camera.peek() === null });
    const shared = screen.peek();
    if (shared) this.signaling.send({ type: "screen_share_started", stream_id: shared.id });
  }

  /** For a reload. @param {string | null} token */
  keep(token) {
    const { callId, conversationId, media } = this;
    const [isMuted, withCamera] = [media.isMuted.peek(), media.camera.peek() !== null];
    keepCall({ callId, conversationId, token, isMuted, withCamera });
  }

  // what one does

  /** @param {boolean} muted */
  mute(muted) {
    this.media.mute(muted);
    this.tell();
  }

  /** @param {boolean} on */
  show(on) {
    return this.media.show(on);
  }

  async share() {
    if (!(await this.media.share())) return;
    const screen = this.media.screen.peek();
    if (!screen || this.isOver.peek()) return this.media.unshare();
    for (const track of screen.getTracks()) track.onended = () => this.unshare(); // by the browser's own button
    this.tell(); // before the offer, so that its stream is known for what it is
    for (const link of this.links.peek()) link.showScreen(screen);
  }

  unshare() {
    if (!this.media.screen.peek()) return;
    this.media.unshare();
    for (const link of this.links.peek()) link.showScreen(null);
    this.signaling.send({ type: "screen_share_stopped" });
  }

  /** For this device; of two, for both. */
  async leave() {
    if (this.isOver.peek()) return;
    const isSaid = this.isAttached.peek();
    if (isSaid) this.signaling.send({ type: "leave" });
    await this.finish("own");
    if (!isSaid) await this.given.ask("POST", `/v1/calls/${this.callId}/leave`).catch(() => {}); // or it is found to be away
  }

  /** For everybody. Throws what refuses it. */
  async endForAll() {
    const record = await this.given.ask("POST", `/v1/calls/${this.callId}/end`);
    this.heardOf(/** @type {CallShape} */ (record));
  }

  /**
   * The page forgets the call; what was recorded is kept, and sent.
   * @param {string} reason
   */
  async finish(reason) {
    if (this.isOver.peek()) return;
    batch(() => {
      this.end.value = reason;
      this.isOver.value = true;
    });
    removeEventListener("pagehide", this.onPageHide);
    this.sleep();
    this.quality.end();
    this.signaling.close();
    const kept = this.recording.close();
    for (const link of this.links.peek()) link.close();
    batch(() => {
      this.links.value = [];
      this.isAttached.value = false;
    });
    this.media.close(); // whatever becomes of what was recorded
    await kept.catch(() => {}); // without room, or signed out
  }
}
