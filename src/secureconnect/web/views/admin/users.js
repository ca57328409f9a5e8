// Everybody, and what an administrator can do for or against them.

import { app } from "../../app.js";
import { ago, moment, refused, t } from "../../i18n/index.js";
import { avatar } from "../../parts/avatar.js";
import { confirm, openDialog } from "../../parts/dialog.js";
import { each, h, Part, when } from "../../parts/dom.js";
import { footOf, Paged } from "../../parts/paged.js";
import { signal } from "../../store/signal.js";

/**
 * @typedef {import("../../store/types.js").User} User
 * @typedef {{ user: User, ban: { reason: string, until: string | null } | null, last_seen_at: string | null }} Account
 */

const PAUSE_MS = 250;
const HOURS = [1, 24, 168, 720];

export class Users extends Part {
  query = signal("");
  filter = signal("all");
  said = signal("");
  #timer = 0;
  /** @type {Paged<Account>} */
  accounts = new Paged(async (cursor) => {
    const filter = this.filter.peek();
    const query = {
      q: this.query.peek() || null,
      role: filter === "admins" ? "admin" : null,
      banned: filter === "banned" ? true : null,
      cursor,
    };
    const { users, next_cursor } = await app.client.ask("GET", "/v1/admin/users", { query });
    return { items: users, next_cursor };
  });

  build() {
    void this.accounts.load();
    return [
      h(
        "form",
        {
          class: "filters",
          role: "search",
          onsubmit: (/** @type {Event} */ event) => event.preventDefault(),
        },
        h(
          "label",
          { class: "field" },
          h("span", null, t("admin.findUsers")),
          h("input", {
            type: "search",
            maxlength: 100,
            oninput: (/** @type {any} */ event) => this.look(event.target.value),
          }),
        ),
        h(
          "label",
          { class: "field" },
          h("span", null, t("admin.show")),
          h(
            "select",
            { onchange: (/** @type {any} */ event) => this.choose(event.target.value) },
            ["all", "admins", "banned"].map((name) =>
              h("option", { value: name }, t(`admin.filter.${name}`)),
            ),
          ),
        ),
      ),
      h("p", { class: "notice", role: "status", hidden: () => !this.said.value }, () => this.said.value),
      h(
        "ul",
        { class: "rows" },
        each(
          () => this.accounts.items.value,
          (account) => account.user.user_id,
          (account) => this.row(account),
        ),
      ),
      footOf(this.accounts, t("admin.nobody")),
    ];
  }

  /** @param {string} text */
  look(text) {
    this.query.value = text.trim();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.accounts.load(), PAUSE_MS);
  }

  /** @param {string} filter */
  choose(filter) {
    this.filter.value = filter;
    void this.accounts.load();
  }

  /** @param {() => Account} account */
  row(account) {
    const { user } = account();
    const isMe = user.user_id === app.session.userId;
    return h(
      "li",
      { class: "row" },
      avatar(() => ({ name: user.display_name, id: user.user_id, url: user.avatar_url })),
      h(
        "div",
        { class: "row-text" },
        h("strong", null, user.display_name),
        h("span", null, `@${user.username} · ${user.email}`),
        h("small", null, () => this.lineOf(account())),
      ),
      isMe
        ? h("small", null, t("admin.you"))
        : h(
            "div",
            { class: "row-actions" },
            when(
              () => account().ban,
              () => h("button", { onclick: () => this.act(account(), "POST", "unban") }, t("admin.unban")),
              () => h("button", { onclick: () => this.ban(account()) }, t("admin.ban")),
            ),
            h("button", { onclick: () => this.act(account(), "POST", "unlock") }, t("admin.unlock")),
            h("button", { onclick: () => this.confirm(account(), "totp") }, t("admin.removeTotp")),
            h(
              "button",
              { class: "danger", onclick: () => this.confirm(account(), "") },
              t("admin.deleteUser"),
            ),
          ),
    );
  }

  /** @param {Account} account */
  lineOf({ user, ban, last_seen_at }) {
    const parts = [t(user.role === "admin" ? "admin.isAdmin" : "admin.isUser")];
    if (ban) {
      parts.push(ban.until ? t("admin.bannedUntil", { when: moment(ban.until) }) : t("admin.bannedForGood"));
      if (ban.reason) parts.push(ban.reason);
    }
    parts.push(last_seen_at ? t("admin.lastSeen", { when: ago(last_seen_at) }) : t("admin.neverSeen"));
    return parts.join(" · ");
  }

  /** @param {Account} account */
  async ban(account) {
    const reason = signal("");
    const hours = signal("0");
    const agreed = await openDialog(t("admin.banTitle", { name: account.user.display_name }), (close) =>
      h(
        "form",
        {
          onsubmit: (/** @type {Event} */ event) => {
            event.preventDefault();
            close(true);
          },
        },
        h("p", null, t("admin.banExplained")),
        h(
          "label",
          { class: "field" },
          h("span", null, t("admin.reason")),
          h("input", {
            maxlength: 500,
            oninput: (/** @type {any} */ event) => (reason.value = event.target.value),
          }),
        ),
        h(
          "label",
          { class: "field" },
          h("span", null, t("admin.forHowLong")),
          h(
            "select",
            { onchange: (/** @type {any} */ event) => (hours.value = event.target.value) },
            h("option", { value: "0" }, t("admin.forGood")),
            HOURS.map((count) => h("option", { value: String(count) }, t("admin.hours", { count }))),
          ),
        ),
        h("button", { class: "danger" }, t("admin.ban")),
      ),
    );
    if (!agreed) return;
    const until = Number(hours.peek())
      ? new Date(Date.now() + Number(hours.peek()) * 3_600_000).toISOString()
      : null;
    await this.act(account, "POST", "ban", { reason: reason.peek(), until });
  }

  /**
   * @param {Account} account
   * @param {"" | "totp"} what "": the whole account
   */
  async confirm(account, what) {
    const [title, text] = what
      ? [t("admin.removeTotp"), t("admin.removeTotpExplained", { name: account.user.display_name })]
      : [t("admin.deleteUser"), t("admin.deleteUserExplained", { name: account.user.display_name })];
    if (await confirm({ title, text, action: title, isDanger: true }))
      await this.act(account, "DELETE", what);
  }

  /**
   * @param {Account} account
   * @param {string} method
   * @param {string} what
   * @param {any} [body]
   */
  async act({ user }, method, what, body) {
    const path = ["/v1/admin/users", user.user_id, what].filter(Boolean).join("/");
    try {
      await app.client.ask(method, path, body ? { body } : {});
      this.said.value = t("admin.done", { name: user.display_name });
      await this.accounts.load();
    } catch (error) {
      this.said.value = refused(error);
    }
  }
}

customElements.define("sc-admin-users", Users);
