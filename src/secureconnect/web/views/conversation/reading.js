// Telling the server how far one has read: what was in the window while the page had the focus, no more.

import { app } from "../../app.js";
import { listen } from "../../parts/dom.js";
import { effect, onEnd, signal } from "../../store/signal.js";

const PAUSE_MS = 250; // so that what only flies by is not read

export class Reading {
  /** the last message that was in the window */
  seen = signal(0);

  /** @param {string} conversationId */
  constructor(conversationId) {
    const hasFocus = signal(document.hasFocus());
    const look = () => (hasFocus.value = document.hasFocus() && document.visibilityState === "visible");
    for (const type of ["focus", "blur"]) listen(window, type, look);
    listen(document, "visibilitychange", look);
    const { socket } = app.mine;
    effect(() => {
      const seq = this.seen.value;
      const readTo = app.state.conversations.get(conversationId)?.last_read_seq ?? Infinity;
      if (!hasFocus.value || socket.link.value !== "online" || seq <= readTo) return;
      const timer = setTimeout(
        () => socket.say({ type: "read", conversation_id: conversationId, seq }),
        PAUSE_MS,
      );
      onEnd(() => clearTimeout(timer));
    });
  }

  /** @param {number} seq */
  sees(seq) {
    if (seq > this.seen.peek()) this.seen.value = seq;
  }
}
