// Why one cannot write in a conversation, and what one can do about it.

import { app } from "../../app.js";
import { refused, t } from "../../i18n/index.js";
import { h, when } from "../../parts/dom.js";
import { toast } from "../../parts/toast.js";
import { computed, effect } from "../../store/signal.js";
import { known } from "../people.js";

/**
 * @typedef {import("./talk.js").Talk} Talk
 * @typedef {"" | "gone" | "nobody" | "blocked" | "refused"} Why "": one can
 */

/**
 * Followed.
 * @param {Talk} talk
 * @returns {() => Why}
 */
export function whyShut(talk) {
  effect(() => {
    const isDirect = talk.conversation?.type === "direct";
    if (isDirect && app.mine.socket.link.value === "online") void app.mine.blocks.want();
  });
  const why = computed(() => reason(talk));
  return () => why.value;
}

/**
 * @param {Talk} talk
 * @returns {Why}
 */
function reason(talk) {
  const { conversation } = talk;
  const { blocks } = app.account.value ?? {};
  if (conversation === undefined) return "gone";
  if (conversation.type !== "direct" || !conversation.participants) return "";
  const other = app.state.otherOf(conversation);
  if (!other) return "nobody";
  if (blocks?.ids.value.has(other.user_id)) return "blocked";
  return blocks?.isRefused(talk.id) ? "refused" : "";
}

/**
 * @param {Talk} talk
 * @param {() => Why} why
 */
export function shutNotice(talk, why) {
  const other = () => (talk.conversation ? app.state.otherOf(talk.conversation)?.user_id : null) ?? "";
  const deeds = {
    blocked: { text: t("chat.unblock"), run: () => app.mine.blocks.unblock(other()) },
    refused: { text: t("chat.retry"), run: () => app.mine.blocks.tryAgain(talk.id) },
  };
  /** @param {keyof typeof deeds} name */
  const button = (name) => {
    const { text, run } = deeds[name];
    const onclick = async () => {
      try {
        await run();
        talk.write();
      } catch (error) {
        toast(refused(error));
      }
    };
    return h("button", { type: "button", onclick }, text);
  };
  return h(
    "div",
    { class: "notice cannot-write" },
    h("p", { role: "status" }, () => (why() ? t(`chat.cannotWrite.${why()}`, { name: known(other()) }) : "")),
    when(
      () => why() === "blocked",
      () => button("blocked"),
    ),
    when(
      () => why() === "refused",
      () => button("refused"),
    ),
  );
}
