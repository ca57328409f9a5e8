// What one has sent stays in sight between the server's word that it is stored and the event that brings it back.

import { app } from "../../app.js";
import { effect, onEnd, signal } from "../../store/signal.js";

/** @typedef {import("../../store/types.js").Outgoing} Outgoing */

const LONGEST_MS = 3_000; // it is in what was missed, then, or in no part that is loaded

/**
 * What is on its way in a conversation, and what has just left the outbox; whoever shows it leaves out what came back.
 * @param {string} conversationId
 * @returns {() => readonly Outgoing[]}
 */
export function outgoingOf(conversationId) {
  const { outbox } = app.mine;
  /** @type {readonly Outgoing[]} */
  let before = [];
  const left = signal(/** @type {readonly Outgoing[]} */ ([]));
  /** @type {Set<number>} */
  const timers = new Set();
  effect(() => {
    const now = outbox.of(conversationId);
    const ids = new Set(now.map((each) => each.client_message_id));
    const gone = before.filter((each) => !ids.has(each.client_message_id) && wasSent(each));
    before = now;
    if (gone.length === 0) return;
    left.value = [...left.peek(), ...gone];
    const timer = setTimeout(() => {
      timers.delete(timer);
      left.value = left.peek().filter((each) => !gone.includes(each));
    }, LONGEST_MS);
    timers.add(timer);
  });
  onEnd(() => timers.forEach((each) => clearTimeout(each)));
  return () => [...left.value, ...outbox.of(conversationId)];
}

/** @param {Outgoing} entry what was discarded was not */
function wasSent({ state }) {
  return state === "waiting" || state === "accepted";
}
