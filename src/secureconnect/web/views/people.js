// What people are called, also those of whom nobody has told: who left a group is still the author of what they said.

import { app } from "../app.js";
import { t } from "../i18n/index.js";

const MOST_ASKED = 1_000; // while one is signed in

/** @type {WeakMap<object, Set<string>>} by account */
const askedBy = new WeakMap();

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

/**
 * What their picture is made of.
 * @param {string} userId
 */
export function faceOf(userId) {
  return { name: known(userId), id: userId, url: app.state.people.get(userId)?.avatar_url ?? null };
}

/** @param {string} userId */
async function ask(userId) {
  const { client, state } = app.mine;
  const asked = askedBy.get(app.mine) ?? new Set();
  askedBy.set(app.mine, asked);
  if (asked.has(userId) || asked.size >= MOST_ASKED) return;
  asked.add(userId);
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
