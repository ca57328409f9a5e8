// Whether the server has another edition of this page by now. What an old page fetches later is no longer there.

import { signal } from "../store/signal.js";

const OWN = new URL(import.meta.url).pathname.split("/")[2];
const EVERY_MS = 60_000; // at most

export class Edition {
  isOld = signal(false);
  #askedMs = 0;

  /** @param {import("./socket.js").ChatSocket} socket a link that is new may be to a server that is new */
  constructor(socket) {
    socket.on("hello", () => void this.#look());
  }

  async #look() {
    if (this.isOld.peek() || Date.now() - this.#askedMs < EVERY_MS) return;
    this.#askedMs = Date.now();
    try {
      const page = await (await fetch("/", { cache: "no-store" })).text();
      const [, now] = /\/app\/([^/"]+)\/main\.js/.exec(page) ?? [];
      if (now !== undefined && now !== OWN) this.isOld.value = true;
    } catch {
      this.#askedMs = 0; // with the next link
    }
  }
}
