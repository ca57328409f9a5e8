// Whether somebody is here, or when they were.

import { app } from "../app.js";
import { ago, t } from "../i18n/index.js";

/** @param {string} userId */
export function seen(userId) {
  const presence = app.state.presence.get(userId);
  if (presence === undefined) return t("home.presence.offline");
  if (presence.status !== "offline" || presence.last_seen === null)
    return t(`home.presence.${presence.status}`);
  return t("home.lastSeen", { when: ago(presence.last_seen) });
}
