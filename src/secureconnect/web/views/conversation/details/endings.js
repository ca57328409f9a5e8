// Ways out of a conversation: leaving a group or deleting it; of a direct one what one can do about the other.

import { app } from "../../../app.js";
import { t } from "../../../i18n/index.js";
import { confirm } from "../../../parts/dialog.js";
import { h, when } from "../../../parts/dom.js";
import { icon } from "../../../parts/icons.js";
import { signal } from "../../../store/signal.js";
import { bondButtons } from "../../person.js";
import { titleOf } from "../../titles.js";
import { attempt } from "./members.js";
import { may } from "../talk.js";

/** @typedef {import("../../../store/types.js").Conversation} Conversation */

/** @param {() => Conversation} conversation */
export function endings(conversation) {
  const { type, conversation_id: id } = conversation();
  if (type === "direct") {
    const other = app.state.otherOf(conversation());
    return other ? h("section", { class: "details-part" }, bondButtons(other.user_id)) : null;
  }
  const error = signal("");
  const leave = async () => {
    const text = t("details.leaveSays", { title: titleOf(conversation()) });
    if (!(await confirm({ title: t("details.leave"), text, action: t("details.leave"), isDanger: true })))
      return;
    await attempt(error, async () => {
      await app.client.ask("DELETE", `/v1/conversations/${id}/participants/${app.session.userId}`);
      app.router.go("/", { replace: true });
    });
  };
  const remove = async () => {
    const text = t("details.deleteSays", { title: titleOf(conversation()) });
    if (!(await confirm({ title: t("details.delete"), text, action: t("details.delete"), isDanger: true })))
      return;
    await attempt(error, async () => {
      await app.client.ask("DELETE", `/v1/conversations/${id}`);
      app.router.go("/", { replace: true });
    });
  };
  return h(
    "section",
    { class: "details-part" },
    h("p", { class: "problem", role: "alert", hidden: () => !error.value }, () => error.value),
    h(
      "div",
      { class: "bond" },
      h("button", { onclick: () => void leave() }, icon("leave"), t("details.leave")),
      when(
        () => may(conversation(), "delete_conversation"),
        () =>
          h("button", { class: "danger", onclick: () => void remove() }, icon("trash"), t("details.delete")),
      ),
    ),
  );
}
