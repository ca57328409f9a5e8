// What somebody's role lets them do with the roles of others: the table of docs/conversations.md.

/** @typedef {import("../../../store/types.js").Role} Role */

/**
 * Roles one may give somebody, other than theirs.
 * @param {Role} mine
 * @param {Role} theirs
 * @returns {Role[]}
 */
export function rolesFor(mine, theirs) {
  if (mine === "owner")
    return /** @type {Role[]} */ (["owner", "admin", "member"]).filter((each) => each !== theirs);
  return mine === "admin" && theirs === "member" ? ["admin"] : [];
}

/**
 * @param {Role} mine
 * @param {Role} theirs
 */
export function mayRemove(mine, theirs) {
  return mine === "owner" || (mine === "admin" && theirs === "member");
}
