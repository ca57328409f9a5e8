// A picture of what a file is, and the letters its name ends in.

import { h } from "../../parts/dom.js";
import { icon } from "../../parts/icons.js";
import { kindOf } from "../../store/attachments.js";

const ICONS = { image: "picture", video: "film", audio: "sound", file: "file" };

/** @param {string | undefined} contentType */
export function fileIcon(contentType) {
  return h("span", { class: "file-icon" }, icon(ICONS[kindOf(contentType)]));
}
