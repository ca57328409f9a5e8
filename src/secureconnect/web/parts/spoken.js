// What screen readers say of something that changes with every key: how it is once nothing has changed for a moment.

import { effect, onEnd, signal } from "../store/signal.js";
import { h } from "./dom.js";

const PAUSE_MS = 1_000;

/** @param {() => string} text "": nothing */
export function spoken(text) {
  const said = signal("");
  effect(() => {
    const now = text();
    const timer = setTimeout(() => (said.value = now), PAUSE_MS);
    onEnd(() => clearTimeout(timer));
  });
  return h("p", { class: "hidden", role: "status" }, () => said.value);
}
