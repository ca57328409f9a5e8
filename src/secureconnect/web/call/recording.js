// What is recorded in a call, and who has agreed to it. Whoever records keeps parts until they are acknowledged.

import { signal } from "../store/signal.js";
import { Recorder, mediaType } from "./recorder.js";
import { Sender } from "./sender.js";
import { Shelf } from "./shelf.js";

/** @import { Call } from "./call.js" */
/** @import { Frame, RecordingShape, Sealing } from "./types.js" */
/** @import { Given as SenderGiven } from "./sender.js" */

/**
 * nameOf: null is oneself.  sealing: null where the conversation is not encrypted.
 * @typedef {SenderGiven & { call: Call, nameOf: (userId: string | null) => string, sealing: Sealing | null }} Given
 */

/** @typedef {{ id: string, by: string, isOn: boolean }} Underway isOn: all have agreed */

const UNWANTED = new Set(["refused", "withdrawn", "silent"]); // after which the server takes nothing that was recorded

export class Recording {
  /** @param {Given} given */
  constructor(given) {
    this.given = given;
    this.now = signal(/** @type {Underway | null} */ (null));
    this.mustAnswer = signal(false); // this person is asked
    this.hasAgreed = signal(false);
    this.ended = signal(/** @type {string | null} */ (null)); // why the last one is over
    /** @type {Set<string>} user ids */
    this.agreed = new Set();
    /** @type {Recorder | null} */
    this.recorder = null;
    this.isClosed = false;
    /** @type {string | null} the one that this load of the page has asked for: what another began it cannot go on with */
    this.asked = null;
    this.withPicture = true; // what it asked for
    this.isStarting = false;
    /** @type {Sender | null} */
    this.sender = null;
  }

  get isMine() {
    return this.now.value?.by === this.given.userId;
  }

  /** @param {Frame} frame */
  hear(frame) {
    const id = frame.recording_id ?? "";
    const isSame = this.now.peek()?.id === id;
    switch (frame.type) {
      case "recording_requested":
        if (!isSame) this.begin(id, frame.by ?? "");
        this.wait(); // somebody is there who has not answered
        this.now.value = { id, by: frame.by ?? "", isOn: false };
        if (!this.hasAgreed.peek()) this.mustAnswer.value = frame.by !== this.given.userId;
        break;
      case "recording_consent":
        if (isSame) this.answered(frame.user_id ?? "", frame.consent === true);
        break;
      case "recording_started":
        if (!isSame) this.begin(id, frame.by ?? "");
        this.now.value = { id, by: frame.by ?? "", isOn: true };
        this.hasAgreed.value = true; // all have
        this.mustAnswer.value = false;
        for (const { userId } of this.given.call.links.peek()) this.agreed.add(userId);
        if (frame.by === this.given.userId) this.record(id);
        break;
      case "recording_stopped":
        if (isSame) this.over(frame.reason ?? "stopped");
        break;
    }
  }

  /**
   * @param {string} id
   * @param {string} by
   */
  begin(id, by) {
    this.now.value = { id, by, isOn: false };
    this.hasAgreed.value = false;
    this.ended.value = null;
    this.agreed = new Set([by]);
  }

  /**
   * @param {string} userId
   * @param {boolean} agrees
   */
  answered(userId, agrees) {
    if (agrees) this.agreed.add(userId);
    else this.agreed.delete(userId);
    if (userId !== this.given.userId) return;
    this.hasAgreed.value = agrees; // on whichever of their devices
    this.mustAnswer.value = false;
  }

  /** @param {string} userId */
  somebodyCame(userId) {
    if (!this.agreed.has(userId)) this.wait();
  }

  /** The connection is new: that a recording has ended may not have been heard. */
  async lookAgain() {
    const now = this.now.peek();
    if (!now) return;
    const path = `/v1/calls/${this.given.call.callId}/recordings`;
    const answer = await this.given.ask("GET", path).catch(() => null); // then it is heard with the next connection
    const { recordings = [] } = /** @type {{ recordings?: RecordingShape[] } | null} */ (answer) ?? {};
    const found = recordings.find(({ recording_id }) => recording_id === now.id);
    const isOpen = !found || found.state === "asking" || found.state === "recording";
    if (!isOpen && this.now.peek()?.id === now.id) this.over(found.end_reason ?? "stopped");
  }

  /** Nothing is recorded, and the server takes nothing, until all who are there have agreed. */
  wait() {
    this.recorder?.pause();
    this.sender?.hold(true);
  }

  /** @param {string} reason */
  over(reason) {
    const isUnwanted = UNWANTED.has(reason) || this.now.peek()?.isOn === false;
    this.now.value = null;
    this.mustAnswer.value = false;
    this.hasAgreed.value = false;
    this.ended.value = reason;
    this.stopRecorder(isUnwanted);
  }

  // what one does; each throws what refuses it

  /** Ask everybody. */
  async ask() {
    const { call, ask, sealing } = this.given;
    this.withPicture = this.hasPicture();
    const body = { media_type: mediaType(this.withPicture), is_encrypted: sealing !== null };
    const made = /** @type {RecordingShape} */ (
      await ask("POST", `/v1/calls/${call.callId}/recording/start`, { body })
    );
    this.asked = made.recording_id;
    const now = this.now.peek();
    if (now?.id === made.recording_id) return now.isOn ? this.record(now.id) : undefined; // told before it was answered
    this.begin(made.recording_id, this.given.userId);
    this.hasAgreed.value = true;
  }

  hasPicture() {
    const { call } = this.given;
    const isShown = call.media.camera.peek() !== null || call.links.peek().some((link) => link.shows.peek());
    return isShown || call.record.peek().call_type === "video";
  }

  /** Agree, or not; or take back what one has agreed to. @param {boolean} consent */
  async answer(consent) {
    const now = this.now.peek();
    if (!now) return;
    const body = { recording_id: now.id, consent };
    await this.given.ask("POST", `/v1/calls/${this.given.call.callId}/recording/consent`, { body });
    this.answered(this.given.userId, consent);
  }

  async stop() {
    const now = this.now.peek();
    if (!now) return;
    this.asked = null; // it is not to go on, whoever agrees meanwhile
    await this.stopRecorder(); // what was recorded until now is kept
    const body = { recording_id: now.id };
    await this.given.ask("POST", `/v1/calls/${this.given.call.callId}/recording/stop`, { body });
  }

  // recording

  /** @param {string} id */
  async record(id) {
    if (this.recorder) {
      this.sender?.hold(false);
      return this.recorder.go();
    }
    if (this.isStarting || this.isClosed || this.asked !== id) return;
    this.isStarting = true;
    /** @type {Shelf | null} */
    let shelf = null;
    try {
      const { call, nameOf, userId } = this.given;
      shelf = await Shelf.open();
      await shelf.tidy(userId);
      const sealer = await this.seal(id);
      await shelf.begin({ recordingId: id, callId: call.callId, userId });
      if (this.now.peek()?.id !== id || this.isClosed) return shelf.drop(id);
      const sender = (this.sender = new Sender(this.given));
      sender.sendNow(shelf).catch(() => this.failed());
      this.recorder = new Recorder({
        recordingId: id,
        links: () => call.links.value,
        media: call.media,
        agreed: this.agreed,
        withPicture: this.withPicture,
        failed: () => this.failed(),
        nameOf,
        shelf,
        sender,
        sealer,
      });
      if (this.now.peek()?.isOn) this.recorder.go();
    } catch {
      await shelf?.drop(id).catch(() => {});
      this.sender?.poke();
      this.failed();
    } finally {
      this.isStarting = false;
    }
  }

  /**
   * The key is told to everybody before anything is recorded: what nobody else could open would be of no use to them.
   * @param {string} id
   */
  async seal(id) {
    const { call, sealing } = this.given;
    if (!sealing) return null;
    const recording = { recording_id: id, call_id: call.callId, media_type: mediaType(this.withPicture) };
    try {
      return await sealing.recordingKey(call.conversationId, recording);
    } catch (error) {
      this.failed("unsealed");
      throw error;
    }
  }

  /**
   * This device cannot go on: nobody should think that it does.
   * @param {string} why
   */
  failed(why = "failed") {
    if (this.now.peek() === null) return;
    this.stop().catch(() => {}); // or it ends by its silence
    this.over(why);
  }

  /** @param {boolean} isUnwanted what was recorded and not sent yet is not to be sent */
  async stopRecorder(isUnwanted = false) {
    const { recorder, sender } = this;
    this.recorder = null;
    await recorder?.end(isUnwanted);
    sender?.hold(false);
  }

  /** The call is over. Resolves when the last part is kept. */
  async close() {
    const isUnwanted = this.now.peek()?.isOn === false;
    this.isClosed = true;
    this.now.value = null;
    this.mustAnswer.value = false;
    await this.stopRecorder(isUnwanted);
  }
}
