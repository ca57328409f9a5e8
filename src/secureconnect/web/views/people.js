// What people are called, also those of whom nobody has told: who left a group is still the author of what they said.

import { app } from "../app.js";
import { t } from "../i18n/index.js";

const MOST_ASKED = 1_000; // in the life of the page

/** @type {Set<string>} */
const asked = new Set();

/**
 * Their name; it is asked for, once, if it is not known.
 * @param {string} userId
 */
export function known(userId) {
  const name = app.state.nameOf(userId);
  if (name) return name;
  if (userId) void ask(userId);
  return t("chat.somebody");
}

/** @param {string} userId */
async function ask(userId) {
  if (asked.has(userId) || asked.size >= MOST_ASKED) return;
  asked.add(userId);
  const { client, state } = app.mine;
  try {
    state.meet([await client.ask("GET", `/v1/users/${encodeURIComponent(userId)}`)]);
  } catch (error) {
    if (/** @type {{ status?: number }} */ (error).status === 404) {
      const nobody = {
        user_id: userId,
        username: "",
        display_name: t("chat.somebodyGone"),
        avatar_url: null,
      };
      state.meet([nobody]);
    } else asked.delete(userId); // not now: when it is next shown
  }
}
