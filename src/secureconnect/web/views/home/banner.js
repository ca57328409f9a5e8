// Lines above everything that say what is not as it should be: no network, a server that restarts, or what it does
// without; and what everybody, or this person, should know.

import { app } from "../../app.js";
import { moment, refused, t } from "../../i18n/index.js";
import { h, listen, Part, when } from "../../parts/dom.js";
import { icon } from "../../parts/icons.js";
import { toast } from "../../parts/toast.js";
import { beginAnew } from "../encryption/door.js";
import { effect, onEnd, signal } from "../../store/signal.js";

/** @typedef {import("../../parts/dom.js").Child} Child */

const PATIENCE_MS = 2_000; // a link that is back by then was never missed
const UNCONFIRMED = "unconfirmed";

export class Banner extends Part {
  isOffline = signal(!navigator.onLine);
  isLong = signal(false);
  error = signal("");

  build() {
    this.role = "status";
    listen(window, "offline", () => (this.isOffline.value = true));
    listen(window, "online", () => (this.isOffline.value = false));
    effect(() => {
      if (app.mine.socket.lostMs.value === null) {
        this.isLong.value = false;
        return;
      }
      const timer = setTimeout(() => (this.isLong.value = true), PATIENCE_MS);
      onEnd(() => clearTimeout(timer));
    });
    return [
      when(
        () => this.link(),
        () => line("warning", [() => this.link()]),
      ),
      when(
        () => app.mine.edition.isOld.value,
        () =>
          line(
            "info",
            [t("home.updated")],
            action(t("common.reload"), () => location.reload()),
          ),
      ),
      when(
        () => app.mine.secrecy.failure.value?.code === "KEYS_LOST",
        () =>
          line(
            "warning",
            [t("home.keysLost")],
            action(t("home.beginAnew"), () => this.run(beginAnew)),
          ),
      ),
      this.goingAccount(),
      this.unconfirmed(),
      this.announcement(),
      when(
        () => this.error.value,
        () => line("warning", [() => this.error.value]),
      ),
    ];
  }

  /** What is wrong with the link, or with what is at its end. */
  link() {
    if (this.isOffline.value) return t("chat.offline");
    if (this.isLong.value) return t("chat.reconnecting");
    const affected = [...new Set(Object.values(app.state.degraded.value).flat())];
    return affected.length ? t("chat.degraded", { what: affected.map(named).join(", ") }) : "";
  }

  goingAccount() {
    const at = () => app.state.me.value?.delete_at;
    return when(at, () =>
      line(
        "warning",
        [() => t("home.accountGoes", { at: moment(at() ?? 0) })],
        action(t("home.keepAccount"), () =>
          this.run(async () => app.keepMe(await app.client.ask("POST", "/v1/users/me/restore"))),
        ),
      ),
    );
  }

  /** Who could not set a new password by mail, were this one forgotten. Not a word where nothing can be done about it. */
  unconfirmed() {
    const { me, server } = app.state;
    const { notices } = app.mine;
    const isOpen = () =>
      me.value?.email_verified === false &&
      server.value?.sends_mail === true &&
      !notices.isDismissed(UNCONFIRMED);
    const send = async () => {
      const body = { email: me.peek()?.email };
      await app.client.ask("POST", "/v1/auth/email/verify/request", { body, anonymous: true });
      notices.dismiss(UNCONFIRMED);
      toast(t("home.confirmSent", { email: body.email ?? "" }));
    };
    return when(isOpen, () =>
      line(
        "info",
        [() => t("home.unconfirmed", { email: me.value?.email ?? "" })],
        action(t("home.confirm"), () => this.run(send)),
        close(() => notices.dismiss(UNCONFIRMED)),
      ),
    );
  }

  announcement() {
    const { notices } = app.mine;
    return when(
      () => notices.announcement.value,
      () =>
        line(
          "info",
          [
            h("span", { class: "hidden" }, t("home.announcement")),
            () => notices.announcement.value?.text ?? "",
          ],
          close(() => notices.dismiss(notices.announcement.peek()?.announcement_id ?? "")),
        ),
    );
  }

  /** @param {() => Promise<void>} work */
  async run(work) {
    this.error.value = "";
    try {
      await work();
    } catch (error) {
      this.error.value = refused(error);
    }
  }
}

/**
 * @param {"info" | "warning"} kind
 * @param {Child[]} text
 * @param {...HTMLButtonElement} buttons
 */
function line(kind, text, ...buttons) {
  return h("div", { class: `banner banner-${kind}` }, icon(kind), h("p", null, ...text), ...buttons);
}

/**
 * @param {string} text
 * @param {() => void} onclick
 */
function action(text, onclick) {
  return h("button", { class: "banner-action", onclick }, text);
}

/** @param {() => void} onclick */
function close(onclick) {
  return h("button", { class: "icon-button", "aria-label": t("home.dismiss"), onclick }, icon("close"));
}

const NAMED = new Set([
  "sign_in",
  "messages",
  "history",
  "settings",
  "presence",
  "typing",
  "delivery_between_nodes",
  "uploads",
  "downloads",
  "mail",
  "push",
]);

/** @param {string} affected a function of the server */
function named(affected) {
  return NAMED.has(affected) ? t(`chat.affected.${affected}`) : affected;
}

customElements.define("sc-banner", Banner);
