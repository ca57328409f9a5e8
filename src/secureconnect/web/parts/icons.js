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
  attach: [
    "M20 11l-8.500 8.500a5 5 0 0 1-7-7L13 4a3.400 3.400 0 0 1 4.800 4.800L9.300 17.300a1.700 1.700 0 0 1-2.400-2.400l7.800-7.800",
  ],
  file: ["M6 3h8l5 5v13H6z", "M14 3v5h5"],
  picture: ["M4 5h16v14H4z", "M4 16l5-5 4 4 2.500-2.500L20 17", "M15.500 9v.01"],
  film: ["M4 6h16v12H4z", "M10 9.500v5l4.500-2.500z"],
  sound: [
    "M9 18V6l10-2v12",
    "M9 18a2.500 2.500 0 1 1-5 0 2.500 2.500 0 0 1 5 0z",
    "M19 16a2.500 2.500 0 1 1-5 0 2.500 2.500 0 0 1 5 0z",
  ],
  download: ["M12 4v11", "M7 10.500l5 5 5-5", "M5 20h14"],
  pause: ["M9 6v12", "M15 6v12"],
  play: ["M8 5l11 7-11 7z"],
  next: ["M9 5l7 7-7 7"],
  "zoom-in": ["M11 4a7 7 0 1 1 0 14 7 7 0 0 1 0-14z", "M16 16l4.500 4.500", "M8 11h6", "M11 8v6"],
  "zoom-out": ["M11 4a7 7 0 1 1 0 14 7 7 0 0 1 0-14z", "M16 16l4.500 4.500", "M8 11h6"],
  trash: ["M5 7h14", "M10 7V4h4v3", "M7 7l1 13h8l1-13"],
  bell: ["M6 16V11a6 6 0 0 1 12 0v5l1.500 2h-15z", "M10 20.500h4"],
  lock: ["M6 11h12v9H6z", "M8.500 11V8a3.500 3.500 0 0 1 7 0v3"],
  muted: ["M5 9.500h3l4-3.500v12l-4-3.500H5z", "M16 9.500l5 5", "M21 9.500l-5 5"],
  info: ["M12 4a8 8 0 1 1 0 16 8 8 0 0 1 0-16z", "M12 11v5", "M12 8v.01"],
  pin: ["M9 4h6l-1 6 3 3H7l3-3z", "M12 13v7"],
  edit: ["M5 19l1-4L16 5l3 3L9 18z"],
  leave: ["M10 5H5v14h5", "M14 8l4 4-4 4", "M18 12H9"],
  add: [
    "M10 5a3.500 3.500 0 1 1 0 7 3.500 3.500 0 0 1 0-7z",
    "M3.500 20c0-3.500 3-5 6.500-5 1.500 0 3 .300 4 1",
    "M18 14v6",
    "M15 17h6",
  ],
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
