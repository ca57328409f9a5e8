// What everybody should know of a conversation, in the reader's language: who did it, and to whom.

import { app } from "../../app.js";
import { duration, t } from "../../i18n/index.js";
import { known } from "../people.js";

/** @typedef {import("../../store/types.js").Message} Message */

/** @param {Message} message of type system */
export function noticeOf({ sender_id, metadata, content }) {
  const me = app.session.userId;
  const whom = String(metadata?.user_id ?? "");
  const names = { who: known(sender_id), whom: known(whom) };
  const by = sender_id === me ? "Me" : "";
  switch (metadata?.event) {
    case "member_added":
    case "member_removed":
      if (whom === me) return t(`chat.notice.${metadata.event}.me`, names);
      return t(`chat.notice.${metadata.event}${by}`, names);
    case "member_left":
    case "title_changed":
    case "encryption_enabled":
      return t(`chat.notice.${metadata.event}${by}`, names);
    case "disappearing_changed":
      return disappearing(Number(metadata.disappear_after_s), by, names);
    case "call":
      return call(metadata);
    default:
      return content;
  }
}

/**
 * @param {number} seconds
 * @param {string} by
 * @param {Record<string, string>} names
 */
function disappearing(seconds, by, names) {
  if (!(seconds > 0)) return t(`chat.notice.disappearing_off${by}`, names);
  return t(`chat.notice.disappearing_changed${by}`, { ...names, after: span(seconds) });
}

const SPANS = /** @type {[number, string][]} */ ([
  [604_800, "weeks"],
  [86_400, "days"],
  [3_600, "hours"],
  [60, "minutes"],
]);

/**
 * "7 days": the largest unit it is a whole number of.
 * @param {number} seconds
 */
export function span(seconds) {
  for (const [size, unit] of SPANS) {
    if (seconds >= size && seconds % size === 0) return t(`chat.span.${unit}`, { count: seconds / size });
  }
  return t("chat.span.seconds", { count: seconds });
}

/** @param {Record<string, any>} metadata */
function call({ call_type, status, duration_s }) {
  const kind = call_type === "video" ? "video" : "audio";
  if (status === "ended") return t(`chat.notice.call.${kind}`, { duration: duration(duration_s) });
  return t(`chat.notice.call.${kind}Missed`);
}
