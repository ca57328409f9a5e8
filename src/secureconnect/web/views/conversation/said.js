// What a message says. Everything that shows one reads it here, so that what is encrypted is put in at one place.

import { app } from "../../app.js";
import { t } from "../../i18n/index.js";
import { attachmentsOf, recordedIn, sealedAttachments } from "../../store/attachments.js";
import { noticeOf } from "./notice.js";

/**
 * @typedef {import("../../store/types.js").Message} Message
 * @typedef {import("../../store/types.js").Outgoing} Outgoing
 */

/**
 * @typedef {object} Said
 * @property {string} body
 * @property {readonly string[]} mentions people it names
 * @property {readonly import("../../store/types.js").Attachment[]} files
 * @property {import("../../store/attachments.js").Recorded | null} [recording] of a call
 * @property {string | null} replyTo the message it answers
 * @property {Message["message_type"]} kind
 * @property {"plain" | "decrypted" | "waiting" | "withheld" | "before" | "broken" | "newer" | "closed"} state all but the first two have no body
 */

/**
 * Follows the key that is still to come. One's own messages on their way are plain: they are encrypted as they are sent.
 * @param {Message | Outgoing} message
 * @returns {Said}
 */
export function said(message) {
  if ("is_encrypted" in message && message.is_encrypted && !message.deleted_at) return unsealed(message);
  return {
    body: message.content,
    mentions: mentionsOf(message.metadata),
    files: attachmentsOf(message.file_ids ?? [], message.metadata?.files),
    replyTo: message.reply_to ?? null,
    kind: message.message_type ?? "text",
    state: "plain",
  };
}

const STATES = /** @type {const} */ ({
  waiting_for_key: "waiting",
  withheld: "withheld",
  before_you: "before",
  broken: "broken",
  too_new: "newer",
});

/**
 * @param {Message} message
 * @returns {Said}
 */
function unsealed(message) {
  const secrecy = app.account.value?.secrecy;
  const answer = secrecy?.read(message);
  const kind = message.message_type ?? "text";
  const nothing = { body: "", mentions: [], files: [], replyTo: message.reply_to, kind };
  // nothing for the moment that it takes; where there is no encryption it is said at once
  if (!answer) return { ...nothing, state: secrecy?.failure.value ? "closed" : "decrypted" };
  if ("reason" in answer) return { ...nothing, state: STATES[answer.reason] };
  const { body, reply_to, files, mentions, recording } = /** @type {Record<string, unknown>} */ (
    answer.payload
  );
  return {
    body: typeof body === "string" ? body : "",
    mentions: mentionsOf({ mentions }),
    files: sealedAttachments(files),
    recording: recordedIn(recording),
    replyTo: typeof reply_to === "string" ? reply_to : null,
    kind,
    state: "decrypted",
  };
}

/**
 * Why one should not take it for granted that its author alone has written it, and its readers alone can read it, where
 * that is what an encrypted conversation promises.
 * @param {Message | Outgoing | undefined} message
 * @returns {"plain" | "unknown" | "changed" | "unsigned" | null}
 */
export function doubtOf(message) {
  if (!message || !("sent_at" in message) || message.message_type === "system") return null;
  if (!message.is_encrypted) {
    const conversation = app.state.conversations.get(message.conversation_id);
    return conversation?.settings.is_e2ee_enabled ? "plain" : null;
  }
  const answer = app.account.value?.secrecy.read(message);
  if (!answer || "reason" in answer) return null;
  return answer.trust === "verified" || answer.trust === "unverified" ? null : answer.trust;
}

/** @param {Record<string, any> | null | undefined} metadata as somebody else's client made it */
function mentionsOf(metadata) {
  const named = metadata?.mentions;
  return Array.isArray(named) ? named.filter((each) => typeof each === "string") : [];
}

const LONGEST = 200;
const KINDS = new Set(["image", "video", "audio", "file"]);

/**
 * One line of it, for lists, quotes and notifications.
 * @param {Message | Outgoing | null | undefined} message
 */
export function excerptOf(message) {
  if (!message) return "";
  if (isGone(message)) return t("chat.deleted");
  const { body, files, kind, state, recording } = said(message);
  if (kind === "system") return noticeOf(/** @type {Message} */ (message));
  if (state !== "plain" && state !== "decrypted") return t(`chat.sealed.${state}`);
  const line = body
    .slice(0, 2 * LONGEST)
    .replaceAll(/\s+/g, " ")
    .trim();
  if (line) return line.length > LONGEST ? `${line.slice(0, LONGEST)}…` : line;
  if (recording) return t("ring.recording");
  if (KINDS.has(kind)) return t(`chat.kind.${kind}`);
  return files.length ? t("chat.kind.file") : "";
}

/**
 * Deleted, or over: a message that disappears is not waited for.
 * @param {Message | Outgoing} message
 */
export function isGone(message) {
  if (!("deleted_at" in message)) return false;
  return message.deleted_at !== null || hasExpired(message);
}

/** @param {Message} message */
export function hasExpired({ expires_at }) {
  return Boolean(expires_at) && Date.parse(/** @type {string} */ (expires_at)) <= Date.now();
}
