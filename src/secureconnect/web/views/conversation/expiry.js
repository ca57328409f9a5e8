// Messages that disappear are taken away at their end, not when the server comes to tell of it.

import { app } from "../../app.js";
import { apply } from "../../store/apply.js";
import { effect, onEnd, signal } from "../../store/signal.js";
import { hasExpired } from "./said.js";

const LONGEST_MS = 2 ** 31 - 1; // of a timer

/** @param {import("../../store/timeline.js").Timeline} timeline */
export function expiring(timeline) {
  const turn = signal(0);
  effect(() => {
    void turn.value;
    const ending = timeline.messages.value.filter((each) => each.expires_at && !each.deleted_at);
    if (ending.length === 0) return;
    const ends = ending.map((each) => Date.parse(/** @type {string} */ (each.expires_at)));
    const left = Math.max(0, Math.min(...ends) - Date.now());
    const timer = setTimeout(
      () => {
        for (const { conversation_id, message_id, expires_at } of ending.filter(hasExpired))
          apply(app.state, { type: "message_deleted", conversation_id, message_id, deleted_at: expires_at });
        turn.value += 1;
      },
      Math.min(left + 1, LONGEST_MS),
    );
    onEnd(() => clearTimeout(timer));
  });
}
