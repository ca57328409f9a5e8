// Who types now: what was heard is good for a few seconds.

import { app } from "../app.js";
import { signal } from "../store/signal.js";

const turn = signal(0);
let timer = 0;
let dueMs = Infinity;

/** @param {number} atMs when somebody is to be asked again */
function wakeAt(atMs) {
  if (atMs >= dueMs) return;
  clearTimeout(timer);
  dueMs = atMs;
  timer = setTimeout(
    () => {
      dueMs = Infinity;
      turn.update((count) => count + 1);
    },
    Math.max(0, atMs - Date.now()) + 1,
  );
}

/**
 * @param {string} conversationId
 * @returns {string[]} ids of people
 */
export function typingIn(conversationId) {
  const heard = app.state.typing.get(conversationId);
  if (heard === undefined) return [];
  void turn.value;
  const now = Date.now();
  const live = Object.entries(heard).filter(([, until]) => until > now);
  if (live.length) wakeAt(Math.min(...live.map(([, until]) => until)));
  return live.map(([id]) => id);
}
