// Saying a message again in other conversations. The server does it where nothing is encrypted; else the page says it.

import { newId } from "../../../api/ids.js";
import { app } from "../../../app.js";
import { t } from "../../../i18n/index.js";
import { avatar } from "../../../parts/avatar.js";
import { openDialog } from "../../../parts/dialog.js";
import { each, focus, h, when } from "../../../parts/dom.js";
import { form } from "../../../parts/form.js";
import { icon } from "../../../parts/icons.js";
import { toast } from "../../../parts/toast.js";
import { fold, matches } from "../../../store/fold.js";
import { signal } from "../../../store/signal.js";
import { pictureOf, titleOf } from "../../titles.js";
import { excerptOf, said } from "../said.js";

/** @typedef {import("../../../store/types.js").Message} Message */

const MOST = 20; // conversations, as the server takes them
const SHOWN = 50;

/** @param {Message} message */
export async function forward(message) {
  const count = await openDialog(t("message.forward"), (/** @type {(count?: number) => void} */ close) => {
    const { conversations, order } = app.state;
    const words = signal("");
    const chosen = signal(/** @type {readonly string[]} */ ([]));
    const key = newId(); // pressed again it forwards nothing twice
    const found = () => {
      const fit = order.value.filter((id) =>
        matches(fold(titleOf(conversations.get(id))), fold(words.value)),
      );
      return [...new Set([...chosen.value, ...fit])].slice(0, SHOWN);
    };
    const toggle = (/** @type {string} */ id) => {
      const others = chosen.peek().filter((other) => other !== id);
      chosen.value = others.length < chosen.peek().length ? others : [...others, id].slice(-MOST);
    };
    return form(
      {
        action: t("message.forward"),
        run: async () => {
          if (chosen.peek().length === 0) return;
          await send(message, chosen.peek(), key);
          close(chosen.peek().length);
        },
      },
      h("p", { class: "excerpt", dir: "auto" }, excerptOf(message)),
      when(
        () => message.is_encrypted && chosen.value.some((id) => !isSealed(id)),
        () => h("p", { class: "with-icon", role: "alert" }, icon("warning"), t("message.forwardOpen")),
      ),
      h(
        "label",
        { class: "field" },
        h("span", null, t("message.where")),
        h("input", {
          type: "search",
          autocomplete: "off",
          ref: focus,
          oninput: (/** @type {any} */ event) => (words.value = event.target.value),
        }),
      ),
      h(
        "ul",
        { class: "choose-list", "aria-label": t("chat.conversations") },
        each(
          found,
          (id) => id,
          (id) => row(id(), () => chosen.value.includes(id()), toggle),
        ),
      ),
    );
  });
  if (count) toast(t("message.forwarded", { count }));
}

/**
 * @param {string} id
 * @param {() => boolean} isChosen
 * @param {(id: string) => void} toggle
 */
function row(id, isChosen, toggle) {
  const conversation = () => app.state.conversations.get(id);
  return h(
    "li",
    null,
    h(
      "label",
      { class: "person" },
      h("input", { type: "checkbox", checked: isChosen, onchange: () => toggle(id) }),
      avatar(() => pictureOf(conversation())),
      h("span", { dir: "auto" }, () => titleOf(conversation())),
    ),
  );
}

/** @param {string} id */
function isSealed(id) {
  return app.state.conversations.peek(id)?.settings.is_e2ee_enabled ?? true;
}

/**
 * @param {Message} message
 * @param {readonly string[]} conversations
 * @param {string} key
 */
async function send(message, conversations, key) {
  const again = message.is_encrypted ? conversations : conversations.filter(isSealed);
  const rest = conversations.filter((id) => !again.includes(id));
  if (again.length && said(message).files.length) throw { code: "FORWARD_SEALED_FILES" };
  if (rest.length) {
    const body = { conversation_ids: rest, client_message_id: key };
    await app.client.ask("POST", `/v1/messages/${message.message_id}/forward`, { body });
  }
  for (const conversation_id of again)
    await app.mine.outbox.add({
      conversation_id,
      content: said(message).body,
      metadata: { forwarded: true },
    });
}
