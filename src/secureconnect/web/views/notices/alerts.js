// The system says what comes in while nobody looks at the page. Push is for pages that are closed: the server wakes
// nobody who is connected. What is told is what a push would tell: what has happened and where, not what was said.

import { app } from "../../app.js";
import { t } from "../../i18n/index.js";
import { isHeld } from "../../store/locks.js";
import { titleOf } from "../titles.js";
import { LOOKING } from "./looking.js";
import { placeOf, textOf } from "./notifications.js";

/**
 * @typedef {import("../../store/types.js").Event} Event
 * @typedef {import("../../store/types.js").Notification} Notification
 * @typedef {import("../settings/notifications.js").Preferences} Preferences
 */

const ANEW_MS = 60_000; // after which what one has chosen is asked for again
const LISTED_ONLY = new Set(["announcement", "added"]); // told in the page when one is back

/** @type {{ atMs: number, all: Promise<Preferences> } | null} */
let asked = null;
/** @type {import("../../app.js").Account | null} whose events are heard */
let heard = null;

/** From now on, for whoever is signed in. */
export function alertInBackground() {
  const account = app.account.peek();
  if (account === null || account === heard) return;
  heard = account;
  asked = null;
  account.socket.on("notification", (event) => void whenUnseen(() => notified(event)));
  account.socket.on("chat", (event) => void whenUnseen(() => said(event)));
}

/** @param {() => Promise<void>} tell */
async function whenUnseen(tell) {
  const isOn = app.device.alerts.peek() === "on" && document.visibilityState === "hidden";
  if (!isOn || (await isHeld(LOOKING))) return; // another tab is looked at
  try {
    await tell();
  } catch {
    // it cannot be known whether it is wanted: it is unread when one is back
  }
}

/** @param {Event} event */
async function notified({ type: _, ...event }) {
  const notification = /** @type {Notification} */ (/** @type {unknown} */ (event));
  const { kind, conversation_id, read_at, ref } = notification;
  if (read_at !== null || LISTED_ONLY.has(kind)) return;
  const { kinds, quiet_hours } = await preferences();
  if (kinds[kind] !== "push" || isQuiet(quiet_hours)) return;
  await app.device.alert(textOf(notification), conversation_id ?? ref, placeOf(notification));
}

/**
 * In a group: what is said there is not listed among the notifications.
 * @param {Event} event
 */
async function said({ conversation_id: id, sender_id, seq, message_type, deleted_at, message_id }) {
  const conversation = app.state.conversations.peek(id);
  if (conversation?.type !== "group" || conversation.is_muted || seq === null || deleted_at) return;
  if (sender_id === app.session.userId || message_type === "system") return;
  const [{ groups, quiet_hours }, { notify }] = await Promise.all([preferences(), levelOf(id)]);
  if ((notify ?? groups) !== "all" || isQuiet(quiet_hours)) return;
  await app.device.alert(t("home.alert", { name: titleOf(conversation) }), id, `/c/${id}/m/${message_id}`);
}

/** @type {Map<string, Promise<{ notify: string | null }>>} asked for once, however much is said meanwhile */
const levels = new Map();

/** @param {string} id */
function levelOf(id) {
  let level = levels.get(id);
  if (level === undefined) {
    level = app.mine.client.ask("GET", `/v1/conversations/${id}/notifications`);
    levels.set(id, level);
    void level.catch(() => {}).finally(() => levels.delete(id));
  }
  return level;
}

function preferences() {
  if (asked === null || Date.now() - asked.atMs > ANEW_MS) {
    const all = app.client.ask("GET", "/v1/notifications/preferences");
    all.catch(() => (asked = null));
    asked = { atMs: Date.now(), all };
  }
  return asked.all;
}

/** @param {Preferences["quiet_hours"]} hours */
function isQuiet(hours) {
  if (hours === null) return false;
  const { start, end, time_zone: timeZone } = hours;
  const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", timeZone });
  const now = clock.format(new Date());
  return start <= end ? now >= start && now < end : now >= start || now < end;
}
