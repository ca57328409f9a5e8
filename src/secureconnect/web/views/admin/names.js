// What people are called whom one may not know: administrators meet everybody.

import { app } from "../../app.js";

/** @type {Set<string>} */
const asked = new Set();
const MOST_ASKED = 5_000;

/**
 * Their name, or their id until it is known. To be read in an effect.
 * @param {string | null} userId
 */
export function nameOf(userId) {
  if (userId === null) return "";
  const known = app.state.people.get(userId);
  if (known) return known.display_name;
  if (!asked.has(userId) && asked.size < MOST_ASKED) {
    asked.add(userId);
    app.client.ask("GET", `/v1/users/${userId}`).then(
      (user) => app.state.meet([user]),
      () => {}, // nobody of that id any more
    );
  }
  return userId;
}
