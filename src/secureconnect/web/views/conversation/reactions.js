// How people react to a message: a chip for each emoji, and the ways to add one.

import { app } from "../../app.js";
import { refused, t } from "../../i18n/index.js";
import { each, h, when } from "../../parts/dom.js";
import { toast } from "../../parts/toast.js";

/**
 * @typedef {import("../../store/types.js").Message} Message
 * @typedef {import("../../store/types.js").Reaction} Reaction
 */

/** Those that are offered before any others are known. */
export const USUAL = ["👍", "❤️", "😂", "😮", "😢", "🙏"];

/**
 * @param {Message} message
 * @param {string} emoji
 * @param {boolean} on
 */
export async function react({ message_id }, emoji, on) {
  try {
    await app.mine.socket.ask({ type: "react", message_id, emoji, on });
  } catch (error) {
    toast(refused(error));
  }
}

/**
 * Choose one of many, beside the element that was pressed.
 * @param {Element} where
 * @param {Message} message
 */
export async function chooseReaction(where, message) {
  const { chooseEmoji } = await import("./emoji.js");
  const emoji = await chooseEmoji(where, t("chat.react"));
  if (emoji !== null) await react(message, emoji, true);
}

/** @param {() => Message | undefined} message stored, and not deleted */
export function reactions(message) {
  const all = () => message()?.reactions ?? [];
  return when(
    () => all().length > 0,
    () =>
      h(
        "ul",
        { class: "reactions", "aria-label": t("chat.reactions") },
        each(
          all,
          ({ emoji }) => emoji,
          (reaction) => h("li", null, chip(reaction, message)),
        ),
      ),
  );
}

/**
 * @param {() => Reaction} reaction
 * @param {() => Message | undefined} message
 */
function chip(reaction, message) {
  const { emoji } = reaction();
  const toggle = () => {
    const to = message();
    if (to) void react(to, emoji, !reaction().mine);
  };
  return h(
    "button",
    {
      type: "button",
      class: "reaction",
      "aria-pressed": () => String(reaction().mine ?? false),
      "aria-label": () => t("chat.reacted", { emoji, count: reaction().count }),
      onclick: toggle,
    },
    h("span", { "aria-hidden": "true" }, emoji),
    h("span", { "aria-hidden": "true" }, () => reaction().count),
  );
}
