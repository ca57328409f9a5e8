// The message that another one answers, in a line or two. One that is not held is asked for, once.

import { app } from "../../app.js";
import { t } from "../../i18n/index.js";
import { h } from "../../parts/dom.js";
import { signal } from "../../store/signal.js";
import { known } from "../people.js";
import { excerptOf } from "./said.js";

/**
 * @typedef {import("../../store/types.js").Message} Message
 * @typedef {import("./talk.js").Talk} Talk
 */

const MOST_ASKED = 300;

/**
 * @param {string} messageId
 * @param {Talk} talk
 */
export function quote(messageId, talk) {
  const original = () => held(messageId, talk) ?? elsewhere(messageId, talk.quoted).value;
  return h(
    "button",
    { type: "button", class: "quote", onclick: () => talk.jump(messageId) },
    h("strong", { dir: "auto" }, () => {
      const message = original();
      return message === null || message === "gone" ? "" : known(message.sender_id);
    }),
    h("span", { dir: "auto" }, () => {
      const message = original();
      return message === "gone" ? t("chat.quoteGone") : excerptOf(message);
    }),
  );
}

/**
 * @param {string} messageId
 * @param {Talk} talk
 */
function held(messageId, talk) {
  return talk.timeline.messages.value.find((each) => each.message_id === messageId) ?? null;
}

/**
 * @param {string} messageId
 * @param {Talk["quoted"]} asked
 */
function elsewhere(messageId, asked) {
  let found = asked.get(messageId);
  if (found === undefined) {
    found = signal(/** @type {Message | "gone" | null} */ (null));
    asked.set(messageId, found);
    if (asked.size > MOST_ASKED) asked.delete([...asked.keys()][0]);
    void ask(messageId, asked, found);
  }
  return found;
}

/**
 * @param {string} messageId
 * @param {Talk["quoted"]} asked
 * @param {import("../../store/signal.js").Signal<Message | "gone" | null>} into
 */
async function ask(messageId, asked, into) {
  try {
    into.value = await app.client.ask("GET", `/v1/messages/${encodeURIComponent(messageId)}`);
  } catch (error) {
    if (/** @type {{ status?: number }} */ (error).status === 404) into.value = "gone";
    else asked.delete(messageId); // not now: when it is next shown
  }
}
