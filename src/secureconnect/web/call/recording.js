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
    this.isStarting = false;
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
        this.recorder?.pause(); // somebody is there who has not answered
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
    if (!this.agreed.has(userId)) this.recorder?.pause();
  }

  /** @param {string} reason */
  over(reason) {
    this.now.value = null;
    this.mustAnswer.value = false;
    this.hasAgreed.value = false;
    this.ended.value = reason;
    this.stopRecorder();
  }

  // what one does; each throws what refuses it

  /** Ask everybody. */
  async ask() {
    const { call, ask, sealing } = this.given;
    const body = { media_type: mediaType(this.hasPicture()), is_encrypted: sealing !== null };
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
    await this.stopRecorder(); // what was recorded until now is kept
    const body = { recording_id: now.id };
    await this.given.ask("POST", `/v1/calls/${this.given.call.callId}/recording/stop`, { body });
  }

  // recording

  /** @param {string} id */
  async record(id) {
    if (this.recorder) return this.recorder.go();
    if (this.isStarting || this.isClosed || this.asked !== id) return;
    this.isStarting = true;
    try {
      const { call, sealing, nameOf, userId } = this.given;
      const shelf = await Shelf.open();
      await shelf.tidy(userId);
      const seal = sealing ? await sealing.recordingKey(call.callId, id) : null;
      await shelf.begin({ recordingId: id, callId: call.callId, userId });
      if (this.now.peek()?.id !== id || this.isClosed) return shelf.drop(id);
      const sender = new Sender(this.given);
      sender.sendNow(shelf).catch(() => this.failed());
      this.recorder = new Recorder({
        recordingId: id,
        links: () => call.links.value,
        media: call.media,
        agreed: this.agreed,
        withPicture: this.hasPicture(),
        failed: () => this.failed(),
        nameOf,
        shelf,
        sender,
        seal,
      });
      if (this.now.peek()?.isOn) this.recorder.go();
    } catch {
      this.failed();
    } finally {
      this.isStarting = false;
    }
  }

  /** This device cannot go on: nobody should think that it does. */
  failed() {
    this.stop().catch(() => {}); // or it ends by its silence
    this.ended.value = "failed";
  }

  async stopRecorder() {
    const recorder = this.recorder;
    this.recorder = null;
    await recorder?.end();
  }

  /** The call is over. Resolves when the last part is kept. */
  async close() {
    this.isClosed = true;
    this.now.value = null;
    this.mustAnswer.value = false;
    await this.stopRecorder();
  }
}
