// Whom one calls in a group that has more members than a call has room.

import { app } from "../../app.js";
import { each, h, when } from "../../parts/dom.js";
import { t } from "../../i18n/index.js";
import { computed, signal } from "../../store/signal.js";
import { nameOf } from "./names.js";

/** @import { Child } from "../../parts/dom.js" */

/**
 * ids: null where all are called; of those one could choose, the ones who are.
 * @typedef {{ ids: () => string[] | null, field: Child }} Callees
 */

/** @param {import("../../call/calls.js").Wanted} wanted @returns {Callees} */
export function calleesOf({ conversationId, callId }) {
  const chosen = signal(/** @type {readonly string[]} */ ([]));
  const conversation = () => app.state.conversations.get(conversationId);
  if (callId === null && !app.state.conversations.peek(conversationId)?.participants)
    void app.mine.sync.conversation(conversationId).catch(() => {}); // then the server says whether there is room
  const others = computed(() =>
    (conversation()?.participants ?? [])
      .map(({ user_id }) => user_id)
      .filter((id) => id !== app.session.userId)
      .sort((one, other) => nameOf(one).localeCompare(nameOf(other))),
  );
  const most = () => (app.state.server.value?.limits?.call_participants ?? Infinity) - 1;
  const isChoice = () => callId === null && others.value.length > most();
  const toggle = (/** @type {string} */ id) => {
    const rest = chosen.peek().filter((one) => one !== id);
    chosen.value = rest.length < chosen.peek().length ? rest : [...rest, id];
  };
  const one = (/** @type {string} */ id) => {
    const isChosen = () => chosen.value.includes(id);
    const disabled = () => !isChosen() && chosen.value.length >= most();
    return h(
      "label",
      { class: "call-check" },
      h("input", { type: "checkbox", checked: isChosen, disabled, onchange: () => toggle(id) }),
      h("span", { dir: "auto" }, () => nameOf(id)),
    );
  };
  const field = when(isChoice, () =>
    h(
      "fieldset",
      { class: "call-callees" },
      h("legend", null, () => t("call.whom", { count: most() })),
      each(
        () => others.value,
        (id) => id,
        (id) => one(id()),
      ),
    ),
  );
  return { ids: () => (isChoice() ? [...chosen.value] : null), field };
}
