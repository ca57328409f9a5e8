// What was said, found by its words: by the server in what it can read, by this browser in what only it can.

import { app } from "../../app.js";
import { shortMoment, t } from "../../i18n/index.js";
import { Again } from "../../crypto/again.js";
import { h } from "../../parts/dom.js";
import { icon } from "../../parts/icons.js";
import { Paged } from "../../parts/paged.js";
import { computed, effect, signal } from "../../store/signal.js";
import { known } from "../people.js";
import { titleOf } from "../titles.js";

/** @typedef {{ q: string, in: string, from: string, after: string, before: string }} Asked days as 2026-01-31; "": any */

/**
 * @typedef {object} Hit
 * @property {string} message_id
 * @property {string} conversation_id
 * @property {string | null} sender_id null: an encrypted one, of which the index knows the words alone
 * @property {string | null} sent_at
 * @property {string} text
 * @property {{ start: number, end: number }[]} ranges of the text that have the words, in code points
 */

export const SHORTEST = 2; // letters that are looked for
const PAGE = 20;
const AROUND = 160; // characters of an encrypted one that are shown

/** @param {() => Asked} asked */
export function messagesFor(asked) {
  return /** @type {Paged<Hit>} */ (
    new Paged(async (cursor) => {
      const { hits, next_cursor } = await onServer(asked(), cursor);
      return { items: hits, next_cursor };
    })
  );
}

/**
 * What this browser finds itself. It looks again whenever its index may hold something else: what was said and edited
 * while the page was away is opened only as the page begins.
 * @param {import("../../store/signal.js").Signal<Asked>} asked
 */
export function sealedFor(asked) {
  const { conversations } = app.state;
  const hits = signal(/** @type {readonly Hit[]} */ ([]));
  const isLooking = signal(false);
  const looking = new Again(async () => {
    const what = asked.peek();
    const found = await inSealed(what);
    if (what === asked.peek()) hits.value = found;
  });
  const isAny = computed(() =>
    conversations.ids.value.some((id) => conversations.get(id)?.settings.is_e2ee_enabled),
  );
  effect(() => {
    void asked.value;
    hits.value = [];
  });
  effect(() => {
    const { q, from, after, before } = asked.value;
    // the index knows neither who nor when
    if (q.length < SHORTEST || !isAny.value || from || after || before) return;
    void app.mine.secrecy.indexed.value;
    isLooking.value = true;
    void looking.run().finally(() => (isLooking.value = false));
  });
  return { hits, isLooking };
}

/**
 * @param {Asked} asked
 * @param {string | null} cursor
 * @returns {Promise<{ hits: Hit[], next_cursor: string | null }>}
 */
async function onServer({ q, in: within, from, after, before }, cursor) {
  const query = {
    ...{ q, limit: PAGE, cursor },
    conversation_id: within || null,
    sender_id: from || null,
    after: after ? startOf(after) : null,
    before: before ? startOf(before, 1) : null,
  };
  const { hits, next_cursor } = await app.client.ask("GET", "/v1/messages/search", { query });
  return { hits: hits.map(hitOf), next_cursor };
}

/**
 * The midnight a day begins with here.
 * @param {string} day
 * @param {number} [later] days
 */
function startOf(day, later = 0) {
  const [year, month, date] = day.split("-").map(Number);
  return new Date(year, month - 1, date + later).toISOString();
}

/** @param {{ message: import("../../store/types.js").Message, snippet: { text: string, ranges: Hit["ranges"] } }} hit */
function hitOf({ message, snippet }) {
  const { message_id, conversation_id, sender_id, sent_at } = message;
  return { message_id, conversation_id, sender_id, sent_at, ...snippet };
}

/**
 * Of encrypted conversations, by the index that this browser keeps.
 * @param {Asked} asked
 * @returns {Promise<Hit[]>}
 */
async function inSealed({ q, in: within }) {
  const { conversations } = app.state;
  try {
    const crypto = await app.mine.secrecy.crypto();
    const found = await crypto.index.search(q, within || null);
    return found
      .filter((each) => conversations.peek(each.conversation_id) !== undefined)
      .map(({ message_id, conversation_id, text }) => ({
        ...{ message_id, conversation_id, sender_id: null, sent_at: null, ranges: [] },
        text: text.slice(0, AROUND),
      }));
  } catch {
    return []; // without encryption there is nothing of it to be found
  }
}

/** @param {() => Hit} hit */
export function row(hit) {
  const { conversation_id: id, message_id, sender_id, sent_at } = hit();
  return h(
    "li",
    null,
    h(
      "a",
      { class: "hit", href: `/c/${id}/m/${message_id}` },
      h(
        "span",
        { class: "hit-where" },
        sender_id === null ? icon("lock") : null,
        h("strong", { dir: "auto" }, () => titleOf(app.state.conversations.get(id))),
        sender_id === null ? h("span", { class: "hidden" }, t("home.encrypted")) : null,
        sender_id === null ? null : h("span", { dir: "auto" }, () => known(sender_id)),
        sent_at === null ? null : h("time", null, shortMoment(sent_at)),
      ),
      h("span", { class: "hit-text", dir: "auto" }, () => marked(hit())),
    ),
  );
}

/**
 * The text with what was looked for marked.
 * @param {Hit} hit
 */
function marked({ text, ranges }) {
  const points = [...text];
  const parts = [];
  let at = 0;
  for (const { start, end } of ranges) {
    parts.push(points.slice(at, start).join(""), h("mark", null, points.slice(start, end).join("")));
    at = end;
  }
  parts.push(points.slice(at).join(""));
  return parts;
}
