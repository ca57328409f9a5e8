// One machine for all tabs of a browser: its store has one writer.
//
// A lock says which tab leads; the others ask it over a channel, and whoever holds the lock next takes over what has
// not been answered. A tab that is closed or dies loses the lock at once. Chromium does not freeze a tab that holds
// one.

import { Problem } from "./problem.js";

/**
 * @typedef {object} Host what the leading tab has
 * @property {(method: string, args: unknown[]) => Promise<unknown>} call
 * @property {() => void} close
 *
 * @typedef {{resolve: (value: any) => void, reject: (problem: Problem) => void, method: string, args: unknown[],
 *   timer: ReturnType<typeof setTimeout>}} Asked
 */

const LIMIT_MS = 60_000; // for an answer; opening the machine and a slow network are in it
const AGAIN_MS = 5_000; // before a tab that could not lead tries to again
const MOST_ASKED = 2_000; // not answered yet

export class Tabs {
  /** @type {Map<string, Asked>} */
  #asked = new Map();
  /** @type {Host?} */
  #host = null;
  /** @type {Problem?} why this tab cannot lead */
  #failure = null;
  #failedMs = 0;
  #stop = new AbortController();
  /** @type {() => void} */
  #letGo = () => {};

  /**
   * @param {string} name of the account's store
   * @param {() => Promise<Host>} lead opens the machine
   * @param {(event: string, data: any) => void} hear what the leading tab tells all, itself too
   */
  constructor(name, lead, hear) {
    this.lead = lead;
    this.hear = hear;
    this.lockName = lockName(name);
    this.channel = new BroadcastChannel(channelName(name));
    this.channel.onmessage = ({ data }) => this.#take(data);
    this.#queue();
  }

  get isLeader() {
    return this.#host !== null;
  }

  /**
   * @param {string} method
   * @param {...unknown} args that can be cloned
   * @returns {Promise<any>}
   */
  call(method, ...args) {
    if (this.#failure && Date.now() - this.#failedMs < AGAIN_MS) return Promise.reject(this.#failure);
    if (this.#stop.signal.aborted) return Promise.reject(closed());
    if (this.#asked.size >= MOST_ASKED) {
      return Promise.reject(
        new Problem("CRYPTO_BUSY", "Too much is being encrypted at once.", { passes: true }),
      );
    }
    return new Promise((resolve, reject) => {
      const id = crypto.randomUUID();
      const timer = setTimeout(() => this.#settle(id, { problem: silent().told() }), LIMIT_MS);
      this.#asked.set(id, { resolve, reject, method, args, timer });
      if (this.#failure) this.#queue();
      this.#ask(id);
    });
  }

  /**
   * To all tabs, this one too.
   * @param {string} event
   * @param {unknown} data
   */
  tell(event, data) {
    this.channel.postMessage({ event, data });
    this.hear(event, data);
  }

  /** Another tab leads from then on. What was asked here is answered no more. */
  close() {
    this.#stop.abort();
    this.#letGo();
    for (const id of [...this.#asked.keys()]) this.#settle(id, { problem: closed().told() });
    this.channel.close();
  }

  #queue() {
    const { signal } = this.#stop;
    this.#failure = null;
    navigator.locks.request(this.lockName, { signal }, () => this.#leadWhileOpen()).catch(() => {}); // closed before it was our turn
  }

  async #leadWhileOpen() {
    const over = new Promise((resolve) => (this.#letGo = () => resolve(undefined)));
    let host;
    try {
      host = await this.lead();
    } catch (error) {
      this.#failure = Problem.of(error);
      this.#failedMs = Date.now();
      for (const id of [...this.#asked.keys()]) this.#settle(id, { problem: this.#failure.told() });
      this.hear("failed", this.#failure.told());
      return;
    }
    if (!this.#stop.signal.aborted) {
      this.#host = host;
      this.tell("leader", null);
      for (const id of this.#asked.keys()) this.#ask(id);
      await over;
    }
    this.#host = null;
    host.close();
  }

  /** @param {string} id */
  #ask(id) {
    const asked = this.#asked.get(id);
    if (!asked) return;
    const { method, args } = asked;
    if (this.#host) this.#answer(method, args).then((answer) => this.#settle(id, answer));
    else this.channel.postMessage({ ask: id, method, args });
  }

  /**
   * @param {string} method
   * @param {unknown[]} args
   */
  async #answer(method, args) {
    try {
      return { value: await /** @type {Host} */ (this.#host).call(method, args) };
    } catch (error) {
      return { problem: Problem.of(error).told() };
    }
  }

  /** @param {any} data of another tab */
  #take(data) {
    if (data.event) {
      if (data.event === "leader") for (const id of this.#asked.keys()) this.#ask(id);
      this.hear(data.event, data.data);
    } else if (data.answer) {
      this.#settle(data.answer, data);
    } else if (data.ask && this.#host) {
      this.#answer(data.method, data.args).then((answer) => {
        if (!this.#stop.signal.aborted) this.channel.postMessage({ answer: data.ask, ...answer });
      });
    }
  }

  /**
   * @param {string} id
   * @param {{value?: unknown, problem?: any}} answer
   */
  #settle(id, { value, problem }) {
    const asked = this.#asked.get(id);
    if (!asked) return;
    this.#asked.delete(id);
    clearTimeout(asked.timer);
    if (problem) asked.reject(new Problem(problem.code, problem.message, problem));
    else asked.resolve(value);
  }
}

/** @param {string} name of the account's store */
export function lockName(name) {
  return `${name}:machine`;
}

/** @param {string} name of the account's store */
export function channelName(name) {
  return `${name}:tabs`;
}

function silent() {
  return new Problem("CRYPTO_SILENT", "Another tab holds the keys and does not answer; close it.", {
    passes: true,
  });
}

function closed() {
  return new Problem("CRYPTO_CLOSED", "The keys are closed.");
}
