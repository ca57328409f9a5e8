// The picture of a person or a group; the first letters of the name on a colour of its own, where there is none.

import { h } from "./dom.js";

const HUES = 18; // of a colour wheel, so that neighbours are told apart

/**
 * @param {() => { name: string, id: string, url?: string | null }} whose
 */
export function avatar(whose) {
  return h(
    "span",
    { class: "avatar", style: () => ({ "--hue": hueOf(whose().id) }), "aria-hidden": "true" },
    () => {
      const { name, url } = whose();
      // pictures elsewhere are not asked for: who looks at a name would tell that server so
      if (url?.startsWith("/")) return h("img", { src: url, alt: "", loading: "lazy" });
      return initialsOf(name);
    },
  );
}

/** @param {string} id */
function hueOf(id) {
  let sum = 0;
  for (const char of id) sum = (sum * 31 + (char.codePointAt(0) ?? 0)) % 9973;
  return String((sum % HUES) * (360 / HUES));
}

/** @param {string} name */
function initialsOf(name) {
  const words = name.trim().split(/\s+/);
  const letters = words.length > 1 ? [words[0], words.at(-1) ?? ""] : [words[0]];
  return letters
    .map((word) => [...word][0] ?? "")
    .join("")
    .toUpperCase();
}
