// Asking a conversation a question.

import { newId } from "../../../api/ids.js";
import { app } from "../../../app.js";
import { t } from "../../../i18n/index.js";
import { openDialog } from "../../../parts/dialog.js";
import { each, focus, h, when } from "../../../parts/dom.js";
import { field, form, switchField } from "../../../parts/form.js";
import { signal } from "../../../store/signal.js";

const FEWEST = 2;
const MOST = 10; // options, as the server takes them
const QUESTION = 500; // characters
const OPTION = 200;

/** @param {string} conversationId */
export function newPoll(conversationId) {
  return openDialog(t("message.poll.new"), (/** @type {(asked?: boolean) => void} */ close) => {
    const count = signal(3);
    const idempotencyKey = newId(); // pressed again it asks nothing twice
    return form(
      {
        action: t("message.poll.ask"),
        run: async (given, element) => {
          const options = [...element.querySelectorAll("input[name=option]")]
            .map((input) => /** @type {HTMLInputElement} */ (input).value.trim())
            .filter(Boolean);
          const body = {
            conversation_id: conversationId,
            question: given.question.trim(),
            options,
            poll_type: given.several ? "multi" : "single",
            allow_vote_change: Boolean(given.change),
            expires_at: given.until ? new Date(given.until).toISOString() : null,
          };
          const poll = await app.client.ask("POST", "/v1/polls", { body, idempotencyKey });
          app.state.polls.set(poll.poll_id, poll);
          close(true);
        },
      },
      field(t("message.poll.question"), {
        name: "question",
        required: true,
        maxlength: QUESTION,
        ref: focus,
      }),
      each(
        () => [...Array(count.value).keys()],
        String,
        (place) => option(place() + 1),
      ),
      when(
        () => count.value < MOST,
        () => h("button", { type: "button", onclick: () => (count.value += 1) }, t("message.poll.more")),
      ),
      switchField(t("message.poll.several"), { name: "several" }),
      switchField(t("message.poll.change"), { name: "change", checked: true }),
      field(t("message.poll.until"), { name: "until", type: "datetime-local" }, t("message.poll.untilHint")),
    );
  });
}

/** @param {number} place from 1 */
function option(place) {
  const label = t("message.poll.option", { count: place });
  return field(label, { name: "option", required: place <= FEWEST, maxlength: OPTION });
}
