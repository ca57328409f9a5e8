// What has happened that one should know of, the newest first.

import { app } from "../../app.js";
import { ago, refused, t } from "../../i18n/index.js";
import { avatar } from "../../parts/avatar.js";
import { each, h, Part, when } from "../../parts/dom.js";
import { icon } from "../../parts/icons.js";
import { signal } from "../../store/signal.js";
import { faceOf, known } from "../people.js";
import { titleOf } from "../titles.js";

/** @typedef {import("../../store/types.js").Notification} Notification */

const KINDS = new Set(["message", "mention", "reply", "reaction", "added", "announcement", "missed_call"]);
const OF_MESSAGES = new Set(["message", "mention", "reply", "reaction"]);

export class Notifications extends Part {
  error = signal("");

  build() {
    const { state } = app;
    void app.mine.notices.read();
    return h(
      "section",
      { class: "page" },
      h(
        "header",
        { class: "page-head" },
        h("a", { class: "icon-button back", href: "/", "aria-label": t("chat.back") }, icon("back")),
        h("h2", { tabindex: -1 }, t("home.notificationsTitle")),
        when(
          () => state.unreadNotifications.value > 0,
          () => h("button", { onclick: () => void this.readAll() }, t("home.readAll")),
        ),
      ),
      h("p", { class: "problem", role: "alert", hidden: () => !this.error.value }, () => this.error.value),
      when(
        () => state.notifications.value.length === 0,
        () => h("p", { class: "blank" }, t("home.noNotifications")),
      ),
      h(
        "ul",
        { class: "notifications", "aria-label": t("home.notificationsTitle") },
        each(
          () => state.notifications.value,
          ({ notification_id }) => notification_id,
          (notification) => h("li", null, row(notification)),
        ),
      ),
      h("a", { href: "/settings/notifications" }, t("home.chooseNotifications")),
    );
  }

  async readAll() {
    this.error.value = "";
    try {
      await app.mine.notices.markAllRead();
    } catch (error) {
      this.error.value = refused(error);
    }
  }
}

/** @param {() => Notification} notification */
function row(notification) {
  const { notification_id: id, actor_id, created_at } = notification();
  const isUnread = () => notification().read_at === null;
  return h(
    "a",
    {
      href: placeOf(notification()),
      class: () => `notification ${isUnread() ? "is-unread" : ""}`,
      onclick: () => void app.mine.notices.markRead(id).catch(() => {}), // it stays unread then, and can be pressed again
    },
    actor_id === null
      ? h("span", { class: "notification-icon" }, icon("info"))
      : avatar(() => faceOf(actor_id)),
    h(
      "span",
      null,
      when(isUnread, () => h("span", { class: "hidden" }, t("home.isUnread"))),
      h("span", { dir: "auto" }, () => textOf(notification())),
      h("small", null, ago(created_at)),
    ),
  );
}

/** @param {Notification} notification */
export function textOf({ kind, actor_id, conversation_id, ref }) {
  if (kind === "announcement") {
    const said = app.state.announcements.value.find((each) => each.announcement_id === ref);
    return t("home.notified.announcement", { text: said?.text ?? "…" });
  }
  const conversation = conversation_id === null ? undefined : app.state.conversations.get(conversation_id);
  const name = known(actor_id ?? "");
  const isIn = conversation?.type === "group";
  const key = KINDS.has(kind) ? kind : "other";
  const text = t(`home.notified.${key}`, { name });
  return isIn ? t("home.notifiedIn", { text, title: titleOf(conversation) }) : text;
}

/** @param {Notification} notification */
export function placeOf({ kind, conversation_id, ref }) {
  if (conversation_id === null) return "/notifications";
  return OF_MESSAGES.has(kind) ? `/c/${conversation_id}/m/${ref}` : `/c/${conversation_id}`;
}

customElements.define("sc-notifications", Notifications);
