// What was said, the latest at the bottom.

import { app } from "../../app.js";
import { dayName, refused, t, timeOfDay } from "../../i18n/index.js";
import { each, h, Part, when } from "../../parts/dom.js";
import { icon } from "../../parts/icons.js";
import { computed, effect } from "../../store/signal.js";
import { attached } from "../files/attached.js";
import { sending } from "../files/sending.js";
import { noticeOf } from "./notice.js";
import { isGone, said } from "./said.js";

/**
 * @typedef {import("../../store/types.js").Message} Message
 * @typedef {import("../../store/types.js").Outgoing} Outgoing
 * @typedef {{ key: string, message?: Message, outgoing?: Outgoing, day?: string }} Line
 */

const NEAR_PX = 80;

export class TimelineView extends Part {
  conversationId = "";
  #isAtEnd = true;

  build() {
    const id = this.conversationId;
    const { state } = app;
    const { outbox, sync } = app.mine;
    const timeline = state.timeline(id);
    const lines = computed(() =>
      linesOf([...timeline.messages.value, ...timeline.provisional.value], outbox.of(id)),
    );
    const list = h(
      "ol",
      {
        class: "timeline",
        tabindex: "0",
        "aria-label": t("chat.messages"),
        onscroll: () => this.#scrolled(list, sync),
      },
      each(
        () => lines.value,
        (line) => line.key,
        (line) => lineOf(line),
      ),
    );
    effect(() => {
      void lines.value;
      queueMicrotask(() => this.#isAtEnd && (list.scrollTop = list.scrollHeight));
    });
    effect(() => this.#markRead(state.conversations.get(id)));
    return list;
  }

  /**
   * @param {HTMLElement} list
   * @param {import("../../api/sync.js").Sync} sync
   */
  #scrolled(list, sync) {
    this.#isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < NEAR_PX;
    const timeline = app.state.timeline(this.conversationId);
    if (list.scrollTop < NEAR_PX && timeline.isLoaded.peek() && timeline.hasOlder.peek()) {
      const height = list.scrollHeight;
      sync.older(this.conversationId).then(
        () => (list.scrollTop += list.scrollHeight - height),
        () => {},
      );
    }
  }

  /** @param {import("../../store/types.js").Conversation | undefined} conversation */
  #markRead(conversation) {
    if (!conversation?.unread_count || document.visibilityState !== "visible") return;
    const frame = { type: "read", conversation_id: conversation.conversation_id, seq: conversation.last_seq };
    app.mine.socket.say(frame);
  }
}

/**
 * @param {readonly Message[]} messages
 * @param {readonly Outgoing[]} outgoing
 * @returns {Line[]}
 */
function linesOf(messages, outgoing) {
  /** @type {Line[]} */
  const lines = [];
  const shown = new Set();
  let day = "";
  const dividedBy = (/** @type {string | number} */ at) => {
    const next = dayName(at);
    if (next !== day) lines.push({ key: `day ${next}`, day: next });
    day = next;
  };
  for (const message of messages) {
    dividedBy(message.sent_at);
    shown.add(message.client_message_id);
    lines.push({ key: `${message.sender_id} ${message.client_message_id}`, message });
  }
  const me = app.session.userId;
  for (const entry of outgoing) {
    if (shown.has(entry.client_message_id)) continue;
    dividedBy(entry.queued_at);
    lines.push({ key: `${me} ${entry.client_message_id}`, outgoing: entry });
  }
  return lines;
}

/** @param {() => Line} line */
function lineOf(line) {
  if (line().day)
    return h(
      "li",
      { class: "day", role: "separator" },
      h("span", null, () => line().day),
    );
  return h("li", { class: () => `line ${senderOf(line()) === app.session.userId ? "own" : ""}` }, () =>
    bubbleOf(line()),
  );
}

/** @param {Line} line */
function senderOf({ message }) {
  return message ? message.sender_id : app.session.userId;
}

/** @param {Line} line */
function bubbleOf({ message, outgoing }) {
  if (message?.message_type === "system") return h("p", { class: "notice" }, noticeOf(message));
  const text = textOf(/** @type {Message | Outgoing} */ (message ?? outgoing));
  const at = message?.sent_at ?? outgoing?.queued_at ?? 0;
  const author = app.state.nameOf(senderOf({ key: "", message, outgoing }));
  return h(
    "article",
    { class: "bubble", "aria-label": `${author}, ${timeOfDay(at)}` },
    h("span", { class: "author" }, author),
    message && !message.deleted_at ? attached(said(message).files) : null,
    outgoing?.files ? sending(outgoing.client_message_id) : null,
    text ? h("p", { class: "text", dir: "auto" }, text) : null,
    h("footer", null, h("time", null, timeOfDay(at)), outgoing ? stateOf(outgoing) : null),
  );
}

/** @param {Message | Outgoing} message */
function textOf(message) {
  if (isGone(message)) return t("chat.deleted");
  const { body, state } = said(message);
  return state === "plain" || state === "decrypted" ? body : t(`chat.sealed.${state}`);
}

/** @param {Outgoing} entry */
function stateOf(entry) {
  const { outbox } = app.mine;
  return h(
    "span",
    { class: `state state-${entry.state}` },
    icon(entry.state === "failed" ? "warning" : "clock"),
    h("span", { class: "hidden" }, t(`chat.state.${entry.state}`)),
    when(
      () => entry.state === "failed",
      () => [
        h("span", null, refused({ code: entry.code })),
        h("button", { onclick: () => outbox.retry(entry.client_message_id) }, t("chat.retry")),
        h("button", { onclick: () => outbox.discard(entry.client_message_id) }, t("chat.discard")),
      ],
    ),
  );
}

customElements.define("sc-timeline", TimelineView);
