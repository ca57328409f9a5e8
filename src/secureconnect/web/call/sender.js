// Brings the parts of recordings to the server, one after the other, until it has acknowledged all: also those that an
// earlier load of the page has made. One tab does it at a time.

import { Shelf } from "./shelf.js";

/** @import { Entry, Part } from "./shelf.js" */

const LOCK = "sc.recordings";
const FLAG = "sc.recordings.unsent"; // in localStorage, so that the page need not open a database to know
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10_000;
const CONSENT_WAIT_MS = 1_000;

/** A refusal that may be another one later: of an old token, of what took too long, or came too fast. */
const PASSING = new Set([401, 408, 429]);

/**
 * ask: of the REST client.  put: sends bytes.  Both throw what has a `code` when they are refused.
 * @typedef {{ ask: (method: string, path: string, options?: { body?: unknown }) => Promise<unknown>,
 *   put: (path: string, content: ArrayBuffer) => Promise<unknown>, userId: string }} Given
 */

export class Sender {
  /** @param {Given} given */
  constructor(given) {
    this.given = given;
    this.isOver = false;
    this.isHeld = false;
    this.wake = () => {};
  }

  /** What was recorded before this page was loaded; not while another tab records or sends. */
  async sendKept() {
    await navigator.locks.request(LOCK, { ifAvailable: true }, async (lock) => {
      if (!lock) return;
      const shelf = await Shelf.open();
      await shelf.tidy(this.given.userId);
      await this.run(shelf, false);
    });
  }

  /** While something is recorded, and until it is sent. @param {Shelf} shelf */
  async sendNow(shelf) {
    localStorage.setItem(FLAG, "1");
    await navigator.locks.request(LOCK, () => this.run(shelf, true));
  }

  /** While somebody has not answered the server takes nothing. @param {boolean} isHeld */
  hold(isHeld) {
    this.isHeld = isHeld;
    if (!isHeld) this.wake();
  }

  /** Something has come, or may go now. */
  poke() {
    this.wake();
  }

  /**
   * @param {Shelf} shelf
   * @param {boolean} isRecording whether what is not whole may go on
   */
  async run(shelf, isRecording) {
    let waitMs = FIRST_WAIT_MS;
    while (!this.isOver) {
      const next = await shelf.next();
      if (!next || (!next.part && !next.entry.isWhole && !isRecording)) break;
      const { entry, part } = next;
      if ((!part && !entry.isWhole) || (this.isHeld && !entry.isWhole)) {
        await this.rest(LONGEST_WAIT_MS);
        continue;
      }
      try {
        await (part ? this.send(shelf, entry, part) : this.complete(shelf, entry));
        waitMs = FIRST_WAIT_MS;
      } catch (error) {
        const { code, status = 0 } = /** @type {{ code?: string, status?: number }} */ (error);
        if (code === "CONSENT_MISSING") {
          await this.rest(CONSENT_WAIT_MS);
        } else if (status >= 400 && status < 500 && !PASSING.has(status)) {
          await shelf.drop(entry.recordingId); // however often it is sent
        } else {
          await this.rest(waitMs);
          waitMs = Math.min(2 * waitMs, LONGEST_WAIT_MS);
        }
      }
    }
    if (!(await shelf.next())) localStorage.removeItem(FLAG);
  }

  /**
   * @param {Shelf} shelf
   * @param {Entry} entry
   * @param {Part} part
   */
  async send(shelf, entry, part) {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", part.content));
    const sha256 = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    await this.given.put(`${pathOf(entry)}/parts/${part.number}?sha256=${sha256}`, part.content);
    await shelf.remove(part);
  }

  /**
   * @param {Shelf} shelf
   * @param {Entry} entry
   */
  async complete(shelf, entry) {
    if (entry.made)
      await this.given.ask("POST", `${pathOf(entry)}/complete`, { body: { parts: entry.made } });
    await shelf.drop(entry.recordingId);
  }

  /** @param {number} longestMs */
  rest(longestMs) {
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.wake(), longestMs);
      this.wake = () => {
        clearTimeout(timer);
        this.wake = () => {};
        resolve(undefined);
      };
    });
  }

  /** Somebody has signed out. */
  end() {
    this.isOver = true;
    this.wake();
  }
}

/** @param {Entry} entry */
function pathOf({ callId, recordingId }) {
  return `/v1/calls/${callId}/recordings/${recordingId}`;
}
