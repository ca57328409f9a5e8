// What one can do with a message: the menu of it.

import { app } from "../../app.js";
import { loadTexts, refused, t } from "../../i18n/index.js";
import { confirm } from "../../parts/dialog.js";
import { h } from "../../parts/dom.js";
import { openMenu } from "../../parts/menu.js";
import { sheet } from "../../parts/sheet.js";
import { toast } from "../../parts/toast.js";
import { chooseReaction, react, USUAL } from "./reactions.js";
import { isGone, said } from "./said.js";
import { may } from "./talk.js";

/**
 * @typedef {import("../../store/types.js").Message} Message
 * @typedef {import("./talk.js").Talk} Talk
 * @typedef {import("../../parts/menu.js").Choice} Choice
 */

/**
 * @param {Element | import("../../parts/menu.js").Point} where
 * @param {Message} message stored
 * @param {Talk} talk
 * @param {Element} article of it
 */
export function openActions(where, message, talk, article) {
  const choices = isGone(message) ? [] : choicesFor(message, talk);
  if (choices.length === 0) return;
  const top = h(
    "div",
    { class: "menu-reactions", role: "group", "aria-label": t("chat.react") },
    USUAL.map((emoji) => quick(emoji, () => void react(message, emoji, true))),
    quick("➕", () => void chooseReaction(article, message), t("chat.reactMore")),
  );
  const close = openMenu(where, t("chat.actions"), choices, top);

  /**
   * @param {string} emoji
   * @param {() => void} run
   * @param {string} [label]
   */
  function quick(emoji, run, label = emoji) {
    const onclick = () => {
      close();
      run();
    };
    return h("button", { type: "button", class: "emoji", "aria-label": label, onclick }, emoji);
  }
}

/**
 * @param {Message} message
 * @param {Talk} talk
 * @returns {Choice[]}
 */
function choicesFor(message, talk) {
  const { conversation } = talk;
  const { body, state, recording } = said(message);
  const isReadable = state === "plain" || state === "decrypted";
  const isText = isReadable && !recording; // the key of a recording is for those it was told to
  const isOwn = message.sender_id === app.session.userId;
  const isPinned = talk.pins.peek().some((each) => each.message.message_id === message.message_id);
  /** @type {(Choice | false)[]} */
  const all = [
    isReadable && choice("answer", "reply", () => talk.answer(message)),
    isText && isOwn && choice("edit", "edit", () => talk.edit(message)),
    body !== "" && choice("copy", "copy", () => copy(body)),
    choice("copyLink", "link", () => copy(`${location.origin}/c/${talk.id}/m/${message.message_id}`)),
    isText && choice("forward", "forward", async () => (await forwarding()).forward(message)),
    may(conversation, "pin") &&
      choice(isPinned ? "unpin" : "pin", "pin", () => pin(message, talk, !isPinned)),
    message.edited_at !== null &&
      choice("history", "history", async () => (await history()).showHistory(message)),
    isOwn &&
      talk.isGroup &&
      choice("readers", "eye", async () => (await readers()).showReaders(message, talk)),
    !isOwn && choice("report", "flag", () => reportIt(message)),
    (isOwn || may(conversation, "delete_others")) && {
      ...choice("delete", "trash", () => remove(message)),
      isDanger: true,
    },
  ];
  return all.filter((each) => each !== false);
}

/**
 * @param {string} name
 * @param {string} picture
 * @param {() => Promise<unknown> | void} run what it throws is said
 * @returns {Choice}
 */
function choice(name, picture, run) {
  const attempt = async () => {
    try {
      await run();
    } catch (error) {
      toast(refused(error));
    }
  };
  return { label: t(`chat.do.${name}`), icon: picture, run: () => void attempt() };
}

const texts = () => Promise.all([loadTexts("message", "form"), sheet("message")]);
const forwarding = async () => (await Promise.all([import("./dialogs/forward.js"), texts()]))[0];
const history = async () => (await Promise.all([import("./dialogs/history.js"), texts()]))[0];
const readers = async () => (await Promise.all([import("./dialogs/readers.js"), texts()]))[0];

/** @param {string} text */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast(t("chat.copied"));
  } catch {
    toast(t("chat.noClipboard")); // there is none without TLS, or it was forbidden
  }
}

/**
 * @param {Message} message
 * @param {Talk} talk
 * @param {boolean} on
 */
export async function pin({ message_id }, talk, on) {
  await app.client.ask(on ? "POST" : "DELETE", `/v1/conversations/${talk.id}/pins/${message_id}`);
}

/** @param {Message} message */
async function reportIt({ message_id }) {
  const [{ report }] = await Promise.all([import("../report.js"), loadTexts("details", "form")]);
  if (await report({ message_id })) toast(t("details.reported"));
}

/** @param {Message} message */
async function remove({ message_id }) {
  const what = { title: t("chat.deleteTitle"), text: t("chat.deleteText"), action: t("chat.do.delete") };
  if (await confirm({ ...what, isDanger: true })) await app.mine.socket.ask({ type: "delete", message_id });
}
