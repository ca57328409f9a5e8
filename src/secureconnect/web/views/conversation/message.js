// One message, or one of one's own on its way.

import { app } from "../../app.js";
import { moment, refused, t, timeOfDay } from "../../i18n/index.js";
import { avatar } from "../../parts/avatar.js";
import { h, when } from "../../parts/dom.js";
import { icon } from "../../parts/icons.js";
import { textNodes } from "../../parts/text.js";
import { computed, effect, untracked } from "../../store/signal.js";
import { callBack, recordedCall } from "../call/buttons.js";
import { attached } from "../files/attached.js";
import { sending } from "../files/sending.js";
import { known } from "../people.js";
import { openActions } from "./actions.js";
import { noticeOf } from "./notice.js";
import { quote } from "./quote.js";
import { reactions } from "./reactions.js";
import { doubtOf, isGone, said } from "./said.js";

/**
 * @typedef {import("../../store/types.js").Message} Message
 * @typedef {import("../../store/types.js").Outgoing} Outgoing
 * @typedef {import("./rows.js").Row} Row
 * @typedef {import("./talk.js").Talk} Talk
 */

const LONG_MS = 500; // a touch that is meant for the menu

/**
 * @param {() => Row} row
 * @param {Talk} talk
 */
export function messageRow(row, talk) {
  const message = () => /** @type {Message | Outgoing} */ (row().message ?? row().outgoing);
  if (message().message_type === "system") return noticeRow(/** @type {() => Message} */ (message));
  const author = row().message?.sender_id ?? app.session.userId ?? "";
  const isOwn = author === app.session.userId;
  return h(
    "li",
    {
      class: () => ({ row: true, own: isOwn, first: row().isFirst, found: talk.found.value === row().key }),
    },
    isOwn || !talk.isGroup ? null : portrait(author, row),
    h(
      "article",
      {
        class: () => ({ bubble: true, gone: isGone(message()) }),
        tabindex: "-1",
        "data-key": row().key,
        "aria-label": () => `${known(author)}, ${timeOfDay(timeOf(message()))}`,
        onfocusin: () => (talk.active.value = row().key),
        ...menuOf(row, talk),
      },
      isOwn || !talk.isGroup ? null : authorOf(author, row),
      when(
        () => isForwarded(row().message),
        () => h("p", { class: "forwarded" }, icon("forward"), t("chat.forwarded")),
      ),
      quoteOf(message, talk),
      filesOf(row),
      recordingOf(row),
      body(message),
      footer(row, message, isOwn, talk),
      reactions(() => stored(row())),
      tools(row, talk),
    ),
  );
}

/** @param {() => Message} message */
function noticeRow(message) {
  return h(
    "li",
    { class: "row notice-row" },
    h("p", null, () => noticeOf(message())),
    message().metadata?.event === "call" ? callBack(message()) : null,
  );
}

/**
 * Beside the first of several messages in a row.
 * @param {string} author
 * @param {() => Row} row
 */
function portrait(author, row) {
  const whose = () => ({ name: known(author), id: author, url: app.state.people.get(author)?.avatar_url });
  return h(
    "span",
    { class: "portrait" },
    when(
      () => row().isFirst,
      () => avatar(whose),
    ),
  );
}

/**
 * @param {string} author
 * @param {() => Row} row
 */
function authorOf(author, row) {
  return when(
    () => row().isFirst,
    () => h("p", { class: "author", dir: "auto" }, () => known(author)),
  );
}

/**
 * What actions are about: not deleted, and the server's.
 * @param {Row} row
 */
function stored({ message }) {
  return message && message.seq !== null && !isGone(message) ? message : undefined;
}

/** @param {Message | undefined} message */
function isForwarded(message) {
  return message !== undefined && !isGone(message) && message.metadata?.forwarded === true;
}

/**
 * The menu of actions: by the other mouse button, the menu key, or a long touch.
 * @param {() => Row} row
 * @param {Talk} talk
 */
function menuOf(row, talk) {
  let timer = 0;
  let isLong = false; // the touch has opened the menu
  const open = (/** @type {Element | { x: number, y: number }} */ where, /** @type {Event} */ event) => {
    const message = stored(row());
    const article = /** @type {Element} */ (event.currentTarget);
    if (message) openActions(where, message, talk, article);
    return message !== undefined;
  };
  const cancel = () => clearTimeout(timer);
  return {
    oncontextmenu: (/** @type {MouseEvent} */ event) => {
      const isText = String(getSelection()) !== "" || event.target instanceof HTMLAnchorElement;
      if (!isText && open({ x: event.clientX, y: event.clientY }, event)) event.preventDefault();
    },
    onkeydown: (/** @type {KeyboardEvent} */ event) => {
      const isMenu = event.key === "ContextMenu" || (event.key === "F10" && event.shiftKey);
      const isEnter = event.key === "Enter" && event.target === event.currentTarget;
      if ((isMenu || isEnter) && open(/** @type {Element} */ (event.currentTarget), event))
        event.preventDefault();
    },
    ontouchstart: (/** @type {TouchEvent} */ { touches, currentTarget }) => {
      cancel();
      isLong = false;
      const { clientX: x, clientY: y } = touches[0];
      const event = /** @type {Event} */ (/** @type {unknown} */ ({ currentTarget }));
      if (touches.length === 1) timer = setTimeout(() => (isLong = open({ x, y }, event)), LONG_MS);
    },
    ontouchmove: cancel,
    ontouchend: (/** @type {TouchEvent} */ event) => {
      cancel();
      if (isLong) event.preventDefault(); // or lifting the finger would be a press beside the menu
    },
    ontouchcancel: cancel,
  };
}

/**
 * @param {() => Row} row
 * @param {Talk} talk
 */
function tools(row, talk) {
  const open = (/** @type {MouseEvent} */ event) => {
    const button = /** @type {Element} */ (event.currentTarget);
    const message = stored(row());
    if (message) openActions(button, message, talk, /** @type {Element} */ (button.closest("article")));
  };
  return when(
    () => stored(row()),
    () =>
      h(
        "button",
        {
          type: "button",
          class: "icon-button tools",
          "aria-label": t("chat.actions"),
          "aria-haspopup": "menu",
          tabindex: () => (talk.active.value === row().key ? 0 : -1),
          onclick: open,
        },
        icon("more"),
      ),
  );
}

/**
 * @param {() => Message | Outgoing} message
 * @param {Talk} talk
 */
function quoteOf(message, talk) {
  const original = computed(() => (isGone(message()) ? null : said(message()).replyTo));
  return () => (original.value === null ? null : quote(original.value, talk));
}

/** @param {() => Row} row */
function filesOf(row) {
  const held = computed(() => {
    const { message } = row();
    return message && !isGone(message) ? JSON.stringify(said(message).files) : "[]";
  });
  const sent = computed(() => (row().outgoing?.files ? row().outgoing?.client_message_id : undefined));
  return () => (sent.value === undefined ? attached(JSON.parse(held.value)) : sending(sent.value));
}

/** @param {() => Row} row */
function recordingOf(row) {
  const held = computed(() => {
    const { message } = row();
    return JSON.stringify((message && !isGone(message) && said(message).recording) || null);
  });
  return () => {
    const recorded = JSON.parse(held.value);
    return recorded && recordedCall(recorded, row().message?.sender_id ?? "");
  };
}

/** @param {() => Message | Outgoing} message */
function body(message) {
  effect(() => {
    const row = /** @type {Message} */ (message());
    if (row.is_encrypted && row.deleted_at) untracked(() => app.mine.secrecy.forget(row.message_id));
  });
  const isReadable = computed(() => {
    const { state } = said(message());
    return !isGone(message()) && (state === "plain" || state === "decrypted");
  });
  const text = computed(() => {
    if (isGone(message())) return t("chat.deleted");
    const { body: words, state } = said(message());
    return isReadable.value ? words : t(`chat.sealed.${state}`);
  });
  const mentions = computed(() => (isReadable.value ? said(message()).mentions.join() : ""));
  return () => {
    if (!text.value) return null;
    const meant = mentions.value ? meaning(mentions.value.split(",")) : undefined;
    const kind = isReadable.value ? "text" : "text soft";
    return h("p", { class: kind, dir: "auto" }, textNodes(text.value, meant));
  };
}

/**
 * @param {string[]} mentions ids of people
 * @returns {(username: string) => import("../../parts/text.js").Meant | null}
 */
function meaning(mentions) {
  const names = new Map(mentions.map((id) => [app.state.people.get(id)?.username.toLowerCase(), id]));
  return (username) => {
    const id = names.get(username);
    return id === undefined ? null : { name: known(id), isMe: id === app.session.userId };
  };
}

/**
 * @param {() => Row} row
 * @param {() => Message | Outgoing} message
 * @param {boolean} isOwn
 * @param {Talk} talk
 */
function footer(row, message, isOwn, talk) {
  const isEdited = () => Boolean(row().message?.edited_at) && !isGone(message());
  const doubted = computed(() => (isGone(message()) ? null : doubtOf(row().message)));
  return h(
    "footer",
    null,
    when(
      () => row().message?.expires_at && !isGone(message()),
      () =>
        h(
          "span",
          { class: "mark", title: t("chat.disappears") },
          icon("timer"),
          hidden(t("chat.disappears")),
        ),
    ),
    when(isEdited, () => h("span", { class: "mark" }, t("chat.edited"))),
    () => doubt(doubted.value),
    h(
      "time",
      {
        onpointerenter: (/** @type {any} */ { target }) => (target.title = moment(timeOf(message()))),
      },
      () => timeOfDay(timeOf(message())),
    ),
    isOwn
      ? () => stateOf(row(), talk)
      : when(
          () => row().message?.provisional,
          () => mark("accepted", "clock"),
        ),
  );
}

/** @param {Message | Outgoing} message */
function timeOf(message) {
  return "sent_at" in message ? message.sent_at : message.queued_at;
}

/**
 * @param {string} state
 * @param {string} picture
 * @param {Record<string, number>} [values]
 */
function mark(state, picture, values) {
  const text = t(`chat.state.${state}`, values);
  return h("span", { class: `state state-${state}`, title: text }, icon(picture), hidden(text));
}

/** @param {ReturnType<typeof doubtOf>} kind */
function doubt(kind) {
  if (kind === null) return null;
  const text = t(`chat.doubt.${kind}`);
  return h("span", { class: "mark doubt", title: text }, icon("warning"), hidden(text));
}

/** @param {string} text */
function hidden(text) {
  return h("span", { class: "hidden" }, text);
}

/**
 * How far one's own message has come.
 * @param {Row} row
 * @param {Talk} talk
 */
function stateOf({ message, outgoing }, talk) {
  if (outgoing?.state === "failed") return failure(outgoing);
  if (!message) return mark(outgoing?.state ?? "waiting", "clock");
  if (message.seq === null) return mark("accepted", "clock");
  if (message.deleted_at) return null;
  const readers = readersOf(message.seq, talk);
  if (readers.length === 0) return mark("stored", "check");
  return talk.isGroup ? mark("readBy", "checks", { count: readers.length }) : mark("read", "checks");
}

/**
 * Ids of the others who have read up to it.
 * @param {number} seq
 * @param {Talk} talk
 */
export function readersOf(seq, talk) {
  const others = (talk.conversation?.participants ?? []).filter(
    (each) => each.user_id !== app.session.userId,
  );
  return others.filter((each) => each.last_read_seq >= seq).map((each) => each.user_id);
}

/** @param {Outgoing} entry */
function failure(entry) {
  const { outbox } = app.mine;
  return h(
    "span",
    { class: "state state-failed" },
    icon("warning"),
    h("span", null, `${t("chat.state.failed")}. ${refused({ code: entry.code })}`),
    h("button", { type: "button", onclick: () => outbox.retry(entry.client_message_id) }, t("chat.retry")),
    h(
      "button",
      { type: "button", onclick: () => outbox.discard(entry.client_message_id) },
      t("chat.discard"),
    ),
  );
}
