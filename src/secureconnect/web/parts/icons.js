// Pictures of the buttons: 24 by 24, drawn in lines of the text's colour. They say nothing to a screen reader; what
// holds them has a name.

import { svg } from "./dom.js";

/** @type {Record<string, string[]>} paths, by name */
const PATHS = {
  logo: ["M5 5h14a2 2 0 0 1 2 2v8a2 2 0 0 1-2 2h-7l-5 4v-4H5a2 2 0 0 1-2-2V7a2 2 0 0 1 2-2z"],
  send: ["M4 12l16-8-5 16-3.5-6.5z", "M11.5 13.5L20 4"],
  back: ["M15 5l-7 7 7 7"],
  plus: ["M12 5v14", "M5 12h14"],
  close: ["M6 6l12 12", "M18 6L6 18"],
  more: ["M12 5.5v.01", "M12 12v.01", "M12 18.5v.01"],
  search: ["M11 4a7 7 0 1 1 0 14 7 7 0 0 1 0-14z", "M16 16l4.5 4.5"],
  settings: ["M4 7h9", "M17 7h3", "M15 5v4", "M4 17h3", "M11 17h9", "M9 15v4", "M4 12h16"],
  check: ["M5 12.5l4.5 4.5L19 7.5"],
  clock: ["M12 4a8 8 0 1 1 0 16 8 8 0 0 1 0-16z", "M12 8v4.5l3 2"],
  warning: ["M12 4l9 16H3z", "M12 10v4.5", "M12 17.5v.01"],
  people: [
    "M9 5a3.2 3.2 0 1 1 0 6.4A3.2 3.2 0 0 1 9 5z",
    "M3 19c0-3.3 2.7-5 6-5s6 1.700 6 5",
    "M16 6a3 3 0 0 1 0 5.500",
    "M17.500 14.300c2 .600 3.500 2.100 3.500 4.700",
  ],
  eye: [
    "M2.500 12c2.500-4.300 5.700-6.500 9.500-6.500s7 2.200 9.500 6.500c-2.500 4.300-5.700 6.500-9.500 6.500s-7-2.200-9.500-6.500z",
    "M12 9a3 3 0 1 1 0 6 3 3 0 0 1 0-6z",
  ],
  down: ["M6 9l6 6 6-6"],
};

/**
 * @param {string} name
 * @returns {SVGElement}
 */
export function icon(name) {
  const paths = PATHS[name];
  if (paths === undefined) throw new Error(`no icon ${name}`);
  const box = {
    class: `icon icon-${name}`,
    viewBox: "0 0 24 24",
    fill: "none",
    stroke: "currentColor",
    "stroke-width": "2",
    "stroke-linecap": "round",
    "stroke-linejoin": "round",
    "aria-hidden": "true",
  };
  return /** @type {SVGElement} */ (svg("svg", box, ...paths.map((d) => svg("path", { d }))));
}
