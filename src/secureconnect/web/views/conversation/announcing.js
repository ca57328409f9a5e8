// New messages, told in summary to whoever listens to the page.

import { app } from "../../app.js";
import { t } from "../../i18n/index.js";
import { h } from "../../parts/dom.js";
import { effect, onEnd, signal } from "../../store/signal.js";
import { known } from "../people.js";
import { excerptOf } from "./said.js";

const PAUSE_MS = 600; // those that come within it are told together

/** @param {import("../../store/timeline.js").Timeline} timeline */
export function announcer(timeline) {
  const text = signal("");
  let told = Infinity; // seq; nothing is new before the first look
  let timer = 0;
  effect(() => {
    const messages = timeline.messages.value;
    const last = messages.at(-1)?.seq ?? 0;
    if (told === Infinity || !timeline.isLoaded.value) told = timeline.isLoaded.value ? last : Infinity;
    if (last <= told || timer) return;
    timer = setTimeout(() => {
      timer = 0;
      const news = timeline.messages.peek().filter((each) => isNews(each, told));
      told = timeline.messages.peek().at(-1)?.seq ?? told;
      if (news.length === 1)
        text.value = t("chat.says", { who: known(news[0].sender_id), what: excerptOf(news[0]) });
      else if (news.length > 1) text.value = t("chat.newOnes", { count: news.length });
    }, PAUSE_MS);
  });
  onEnd(() => clearTimeout(timer));
  return h("p", { class: "hidden", role: "status" }, () => text.value);
}

/**
 * @param {import("../../store/types.js").Message} message
 * @param {number} told
 */
function isNews({ seq, sender_id, message_type }, told) {
  return (seq ?? 0) > told && sender_id !== app.session.userId && message_type !== "system";
}
