// Messages that could not be opened, until their keys come.

/**
 * @typedef {import("./rooms.js").Sealed} Sealed
 * @typedef {import("./rooms.js").Opened} Opened
 * @typedef {import("./rooms.js").Unopened} Unopened
 */

const MOST = 2_000; // the ones asked for longest ago go
const TRIES = 3; // of one message, when keys come while it is being opened
const HOPEFUL = new Set(["waiting_for_key", "withheld", "before_you"]);

export class Waiting {
  /** @type {Map<string, {message: Sealed, session: string?}>} */
  #messages = new Map();
  #comings = 0; // of keys

  /**
   * @param {(message: Sealed) => Promise<Opened | Unopened>} open
   * @param {(message: Sealed, opened: Opened) => void} tell
   */
  constructor(open, tell) {
    this.open = open;
    this.tell = tell;
  }

  /**
   * @param {Sealed} message
   * @returns {Promise<Opened | Unopened>}
   */
  async decrypt(message) {
    let answer;
    let before;
    let tries = 0;
    do {
      before = this.#comings;
      answer = await this.open(message);
    } while (isHopeful(answer) && before !== this.#comings && ++tries < TRIES);
    this.#messages.delete(message.message_id);
    if (isHopeful(answer)) this.#keep(message, answer.session);
    return answer;
  }

  /**
   * @param {Sealed} message
   * @param {string?} session
   */
  #keep(message, session) {
    this.#messages.set(message.message_id, { message, session });
    if (this.#messages.size > MOST) this.#messages.delete([...this.#messages.keys()][0]);
  }

  /** @param {string} messageId of one that nobody is to read any more */
  forget(messageId) {
    this.#messages.delete(messageId);
  }

  /** @param {string[]?} sessions whose keys have come; null: any may have */
  async tryAgain(sessions) {
    this.#comings += 1;
    const some = [...this.#messages.values()].filter(
      ({ session }) => sessions === null || (session !== null && sessions.includes(session)),
    );
    for (const { message } of some) {
      if (!this.#messages.has(message.message_id)) continue; // deleted meanwhile
      try {
        const answer = await this.decrypt(message);
        if ("payload" in answer) this.tell(message, answer);
      } catch {
        return; // closed, or broken: `leader` or `restarted` follows
      }
    }
  }
}

/**
 * @param {Opened | Unopened} answer
 * @returns {answer is Unopened}
 */
export function isHopeful(answer) {
  return "reason" in answer && HOPEFUL.has(answer.reason);
}
