// Pictures of what one does in a call. Each stands beside, or in, something that has a name.

import { svg } from "../../parts/dom.js";

const PATHS = {
  microphone: "M12 3a3 3 0 0 0-3 3v6a3 3 0 0 0 6 0V6a3 3 0 0 0-3-3ZM5 11a7 7 0 0 0 14 0M12 18v3M8 21h8",
  microphoneOff:
    "M9 9v3a3 3 0 0 0 4.5 2.6M15 11V6a3 3 0 0 0-5.7-1.3M5 11a7 7 0 0 0 10.8 5.9M19 11a7 7 0 0 1-.6 2.8M12 18v3M8 21h8M3 3l18 18",
  camera: "M3 7h12v10H3ZM15 11l6-4v10l-6-4",
  cameraOff: "M7 7h8v8M15 17H3V7M15 11l6-4v10l-4-2.6M3 3l18 18",
  screen: "M3 4h18v12H3ZM8 20h8M12 16v4M12 13V7M9 10l3-3 3 3",
  record: "M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16ZM12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6Z",
  devices: "M4 6h10M18 6h2M16 4v4M4 12h2M10 12h10M8 10v4M4 18h12M20 18h0M18 16v4",
  leave: "M3 14c5-5 13-5 18 0l-2.5 3-4-1.5V13a11 11 0 0 0-5 0v2.5l-4 1.5Z",
  phone: "M5 3h4l2 5-2.5 2a12 12 0 0 0 5.5 5.5l2-2.5 5 2v4a2 2 0 0 1-2 2A16 16 0 0 1 3 5a2 2 0 0 1 2-2Z",
  smaller: "M4 20h16M13 11h6M13 11V5M13 11l7-7M4 4h5M4 4v12",
  larger: "M14 4h6v6M20 4l-8 8M10 20H4v-6M4 20l8-8",
  sound: "M4 10v4h3l5 4V6l-5 4ZM16 9a4 4 0 0 1 0 6M18.5 6.5a8 8 0 0 1 0 11",
};

/** @typedef {keyof typeof PATHS} Picture */

/** @param {Picture} name */
export function icon(name) {
  const path = svg("path", {
    d: PATHS[name],
    fill: "none",
    stroke: "currentColor",
    "stroke-width": "2",
    "stroke-linecap": "round",
    "stroke-linejoin": "round",
  });
  return svg("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true" }, path);
}

/** One to three bars. @param {number} count */
export function bars(count) {
  const drawn = [0, 1, 2].map((place) =>
    svg("rect", {
      x: String(2 + place * 7),
      y: String(15 - place * 5),
      width: "5",
      height: String(6 + place * 5),
      fill: place < count ? "currentColor" : "none",
      stroke: "currentColor",
      "stroke-width": "1.5",
    }),
  );
  return svg("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true" }, ...drawn);
}
