// The conversations, the latest active first, and what narrows them down.

import { app } from "../../app.js";
import { t } from "../../i18n/index.js";
import { avatar } from "../../parts/avatar.js";
import { each, h, Part, when } from "../../parts/dom.js";
import { icon } from "../../parts/icons.js";
import { presenceMark } from "../../parts/presence.js";
import { fold, matches } from "../../store/fold.js";
import { computed, effect, onEnd, signal } from "../../store/signal.js";
import { titleOf } from "../titles.js";
import { showOwnPresence } from "./own-presence.js";
import { row } from "./row.js";

/**
 * @typedef {import("../../store/types.js").Conversation} Conversation
 * @typedef {"all" | "unread" | "groups"} Choice
 */

const CHOICES = /** @type {const} */ (["all", "unread", "groups"]);
const AT_FIRST = 60; // rows that are made; more as one scrolls to them
const MORE = 120;

export class ConversationList extends Part {
  choice = signal(/** @type {Choice} */ ("all"));
  words = signal("");
  made = signal(AT_FIRST);

  build() {
    const { state } = app;
    const chosen = computed(() => this.chosen());
    const shown = computed(() => {
      const here = chosen.value.indexOf(currentId());
      return chosen.value.slice(0, Math.max(this.made.value, here + AT_FIRST));
    });
    const more = h("li", { class: "list-more", "aria-hidden": "true" });
    const rows = h(
      "ul",
      { class: "list", "aria-label": t("chat.conversations") },
      each(
        () => shown.value,
        (id) => id,
        (id) => row(id()),
      ),
      more,
    );
    effect(() => {
      if (currentId() === "") return;
      queueMicrotask(() => rows.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" }));
    });
    this.watch(more, rows, () => shown.value.length < chosen.value.length);
    return [
      head(),
      this.filter(),
      rows,
      when(
        () => !state.isSynced.value && state.order.value.length === 0,
        () => skeleton(),
      ),
      when(
        () => state.isSynced.value && chosen.value.length === 0,
        () => h("div", { class: "blank" }, () => this.empty()),
      ),
    ];
  }

  /** Ids of those that are to be seen. */
  chosen() {
    const { state } = app;
    const words = fold(this.words.value.trim());
    const choice = this.choice.value;
    if (words === "" && choice === "all") return state.order.value;
    return state.order.value.filter((id) => {
      const conversation = /** @type {Conversation} */ (state.conversations.get(id));
      if (choice === "groups" && conversation.type !== "group") return false;
      // what one reads does not vanish from under one's eyes
      if (choice === "unread" && !conversation.unread_count && id !== currentId()) return false;
      return words === "" || matches(namesOf(conversation), words);
    });
  }

  /**
   * Make more rows before the end of those that are made comes into sight.
   * @param {Element} end
   * @param {Element} rows
   * @param {() => boolean} hasMore
   */
  watch(end, rows, hasMore) {
    const watcher = new IntersectionObserver(
      ([seen]) => {
        if (!seen.isIntersecting || !hasMore()) return;
        this.made.value += MORE;
        watcher.unobserve(end); // and look again: it may still be in sight
        watcher.observe(end);
      },
      { root: rows, rootMargin: "1200px" },
    );
    watcher.observe(end);
    onEnd(() => watcher.disconnect());
  }

  filter() {
    return h(
      "div",
      { class: "list-filter", role: "search", "aria-label": t("home.filter") },
      h("input", {
        type: "search",
        "aria-label": t("home.filter"),
        placeholder: t("home.filter"),
        oninput: (/** @type {any} */ event) => (this.words.value = event.target.value),
      }),
      h(
        "div",
        { class: "choices", role: "group", "aria-label": t("home.show") },
        CHOICES.map((choice) =>
          h(
            "button",
            {
              "aria-pressed": () => String(this.choice.value === choice),
              onclick: () => (this.choice.value = choice),
            },
            t(`home.choice.${choice}`),
          ),
        ),
      ),
    );
  }

  empty() {
    if (this.words.value.trim()) return h("p", null, t("home.noneFound"));
    if (this.choice.value === "unread") return h("p", null, t("home.allRead"));
    if (this.choice.value === "groups") return h("p", null, t("home.noGroups"));
    return [
      h("p", null, t("home.none")),
      h("a", { class: "button primary", href: "/new" }, t("home.findSomebody")),
    ];
  }
}

function currentId() {
  return app.router.place.value.params.conversation ?? "";
}

/** @param {Conversation} conversation */
function namesOf(conversation) {
  const people = conversation.participants ?? [];
  const names = people.map((each) => {
    const person = app.state.people.get(each.user_id) ?? each;
    return `${person.display_name} ${person.username}`;
  });
  return fold([titleOf(conversation), ...names].join(" "));
}

function head() {
  const { state } = app;
  const unread = () => state.unreadNotifications.value;
  return h(
    "header",
    { class: "list-head" },
    h(
      "button",
      { class: "icon-button own-picture", "aria-label": t("home.ownPresence"), onclick: showOwnPresence },
      avatar(() => ({
        name: state.me.value?.display_name ?? "",
        id: state.me.value?.user_id ?? "",
        url: state.me.value?.avatar_url,
      })),
      presenceMark(() => app.account.value?.presences.shown),
    ),
    h("h1", null, () => state.me.value?.display_name ?? ""),
    h(
      "a",
      {
        class: "icon-button bell",
        href: "/notifications",
        "aria-label": () => t("home.notifications", { count: unread() }),
      },
      icon("bell"),
      when(
        () => unread() > 0,
        () => h("span", { class: "badge", "aria-hidden": "true" }, () => (unread() > 99 ? "99+" : unread())),
      ),
    ),
    h("a", { class: "icon-button", href: "/search", "aria-label": t("home.search") }, icon("search")),
    h("a", { class: "icon-button", href: "/settings", "aria-label": t("chat.settings") }, icon("settings")),
    h("a", { class: "icon-button", href: "/new", "aria-label": t("chat.new") }, icon("plus")),
  );
}

function skeleton() {
  return h(
    "div",
    { class: "skeleton", role: "status" },
    h("span", { class: "hidden" }, t("home.loading")),
    Array.from({ length: 8 }, () => h("span", { class: "skeleton-row", "aria-hidden": "true" })),
  );
}

customElements.define("sc-list", ConversationList);
