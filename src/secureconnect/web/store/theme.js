// Whether the page is light or dark: as the system is, unless chosen otherwise. `theme.js` does it before the first paint.

import { signal } from "./signal.js";

export const THEMES = /** @type {const} */ (["system", "light", "dark"]);
const KEPT = "sc.theme";

export const theme = signal(localStorage.getItem(KEPT) ?? "system");

addEventListener("storage", ({ key, newValue }) => key === KEPT && show(newValue ?? "system")); // another tab

/** @param {string} wanted */
export function chooseTheme(wanted) {
  if (wanted === "system") localStorage.removeItem(KEPT);
  else localStorage.setItem(KEPT, wanted);
  show(wanted);
}

/** @param {string} wanted */
function show(wanted) {
  document.documentElement.dataset.theme = wanted;
  theme.value = wanted;
}
