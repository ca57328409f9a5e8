// Who is writing: telling the others so, and hearing it of them.

import { app } from "../../app.js";
import { t } from "../../i18n/index.js";
import { onEnd } from "../../store/signal.js";
import { known } from "../people.js";

const EVERY_MS = 3_000; // one `typing` is good for twice as long
const STOPS_MS = 5_000; // after which one who does not go on has stopped

/** Tells that one writes. */
export class Typing {
  #saidMs = 0;
  #timer = 0;

  /** @param {string} conversationId */
  constructor(conversationId) {
    this.id = conversationId;
    onEnd(() => this.stops());
  }

  goesOn() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.stops(), STOPS_MS);
    if (Date.now() - this.#saidMs < EVERY_MS) return;
    this.#saidMs = Date.now();
    this.#say(true);
  }

  stops() {
    clearTimeout(this.#timer);
    if (this.#saidMs === 0) return;
    this.#saidMs = 0;
    this.#say(false);
  }

  /** @param {boolean} isTyping */
  #say(isTyping) {
    const { socket } = app.account.peek() ?? {};
    socket?.say({ type: "typing", conversation_id: this.id, is_typing: isTyping });
  }
}

/** @param {string[]} who */
export function typingText(who) {
  if (who.length === 0) return "";
  if (who.length > 2) return t("chat.typing.several");
  const [one, other] = who.map(known);
  return other === undefined ? t("chat.typing.one", { one }) : t("chat.typing.two", { one, other });
}
