// What is pinned: the latest in a bar above the messages, the others as one goes on pressing it.

import { app } from "../../app.js";
import { t } from "../../i18n/index.js";
import { h, when } from "../../parts/dom.js";
import { icon } from "../../parts/icons.js";
import { effect, onEnd, signal } from "../../store/signal.js";
import { known } from "../people.js";
import { excerptOf } from "./said.js";

/** @typedef {import("./talk.js").Talk} Talk */

/** @param {Talk} talk */
export function pinBar(talk) {
  const { pins, id } = talk;
  const { socket } = app.mine;
  const place = signal(0);
  const read = async () => {
    try {
      pins.value = (await app.client.ask("GET", `/v1/conversations/${id}/pins`)).pins;
      place.value = 0;
    } catch {
      // not now: when the link is next there
    }
  };
  for (const type of ["message_pinned", "message_unpinned", "message_deleted"])
    onEnd(
      socket.on(type, (event) => {
        const isPin = type !== "message_deleted" || pins.peek().some((each) => isOf(each, event.message_id));
        if (event.conversation_id === id && isPin) void read();
      }),
    );
  effect(() => {
    if (socket.link.value === "online") void read();
  });
  const shown = () => pins.value[place.value % Math.max(1, pins.value.length)];
  const go = () => {
    const { message } = shown();
    place.value += 1;
    talk.jump(message.message_id);
  };
  return when(shown, () =>
    h(
      "button",
      { type: "button", class: "pin-bar", onclick: go },
      icon("pin"),
      h("span", { class: "hidden" }, t("chat.pinned")),
      h("strong", { dir: "auto" }, () => (shown() ? known(shown().message.sender_id) : "")),
      h("span", { class: "pin-text", dir: "auto" }, () => excerptOf(shown()?.message)),
      () =>
        pins.value.length > 1 ? h("small", null, t("chat.pinnedAll", { count: pins.value.length })) : null,
    ),
  );
}

/**
 * @param {import("./talk.js").Pin} pin
 * @param {string} messageId
 */
function isOf({ message }, messageId) {
  return message.message_id === messageId;
}
