// What one has when one is signed in: the conversations, and beside them the one that is open or another screen; on a
// narrow screen one or the other.

import { app } from "../../app.js";
import { closeDialogs } from "../../parts/dialog.js";
import { h, Part, part } from "../../parts/dom.js";
import { lazy, warm } from "../../parts/lazy.js";
import { sheet } from "../../parts/sheet.js";
import { computed, effect, onEnd, untracked } from "../../store/signal.js";
import { loadTexts, t } from "../../i18n/index.js";
import { onKeys } from "../keys.js";
import { watchWhetherSeen } from "../notices/looking.js";
import { titleOf } from "../titles.js";
import { Banner } from "./banner.js";
import { ConversationList } from "./list.js";
import { homeKeys } from "./moves.js";

const NARROW = matchMedia("(max-width: 43.75rem)");

const WARM_AFTER_MS = 300;

const loadConversation = () =>
  Promise.all([
    import("../conversation/conversation.js"),
    ...["conversation", "message", "files"].map(sheet),
  ]);

/** @type {Record<string, () => import("../../parts/dom.js").Child>} screens that are fetched when entered */
const LATER = {
  new: () =>
    lazy(
      () => import("./new.js"),
      ({ NewConversation }) => new NewConversation(),
    ),
  search: () =>
    lazy(
      () => Promise.all([import("../search/search.js"), sheet("search")]),
      ([{ Search }]) => new Search(),
    ),
  notifications: () =>
    lazy(
      () => Promise.all([import("../notices/notifications.js"), sheet("search")]),
      ([{ Notifications }]) => new Notifications(),
    ),
  admin: () =>
    lazy(
      () => Promise.all([import("../admin/admin.js"), sheet("admin"), loadTexts("admin")]),
      ([{ Admin }]) => new Admin(),
    ),
  settings: () =>
    lazy(
      () =>
        Promise.all([
          import("../settings/settings.js"),
          sheet("form"),
          sheet("settings"),
          loadTexts("form", "signin", "settings"),
        ]),
      ([{ Settings }]) => new Settings(),
    ),
};

export class Home extends Part {
  build() {
    const { place } = app.router;
    // not the message or the panel: the conversation stays when those change
    const screen = computed(() => {
      const { name, params } = place.value;
      return name === "conversation" ? `conversation ${params.conversation}` : name;
    });
    const main = h("div", { class: "main", id: "main", tabindex: -1 }, () => {
      const [name, id] = screen.value.split(" ");
      return untracked(() => screenOf(name, id));
    });
    const list = h(
      "nav",
      { class: "sidebar", "aria-label": t("chat.conversations") },
      new ConversationList(),
    );
    onKeys(...homeKeys());
    watchWhetherSeen();
    setTimeout(warm, WARM_AFTER_MS, loadConversation); // while one looks at the list
    this.follow(list, main);
    return h(
      "main",
      { class: () => `home ${place.value.name === "home" ? "at-list" : "at-main"}` },
      h("button", { class: "skip", onclick: () => main.focus() }, t("home.skip")),
      h("h1", { class: "hidden" }, "SecureConnect"),
      new Banner(),
      list,
      main,
    );
  }

  /**
   * What changes of the page itself when one goes elsewhere.
   * @param {HTMLElement} list
   * @param {HTMLElement} main
   */
  follow(list, main) {
    const { state, router } = app;
    effect(() => {
      const { name, params } = router.place.value;
      const count = state.unread.value;
      const here = name === "conversation" ? titleOf(state.conversations.get(params.conversation)) : "";
      document.title = [count ? `(${count})` : "", here, here ? "–" : "", "SecureConnect"]
        .filter(Boolean)
        .join(" ");
      showUnread(count);
    });
    onEnd(() => {
      document.title = "SecureConnect";
      showUnread(0);
    });
    let was = /** @type {string | null} */ (null);
    effect(() => {
      const { name, params } = router.place.value;
      const now = `${name} ${params.conversation ?? params.page ?? ""} ${params.panel ?? ""}`;
      const isElsewhere = was !== null && was !== now;
      was = now;
      if (!isElsewhere) return;
      closeDialogs();
      // where only one column is seen, who has no eyes for it hears where they are
      if (NARROW.matches) queueMicrotask(() => focusHeading(name === "home" ? list : main));
    });
  }
}

/**
 * @param {string} name
 * @param {string} id
 */
function screenOf(name, id) {
  if (name === "conversation")
    return lazy(loadConversation, ([{ ConversationView }]) => part(ConversationView, { conversationId: id }));
  const later = LATER[name];
  return later ? later() : h("p", { class: "blank" }, t("chat.choose"));
}

const PATIENCE_MS = 3_000; // for a screen that is being fetched

/**
 * Give the focus to the heading there, once there is one, unless something there has it already.
 * @param {HTMLElement} within
 * @param {number} [untilMs]
 */
function focusHeading(within, untilMs = performance.now() + PATIENCE_MS) {
  const { activeElement } = document;
  if (activeElement !== within && within.contains(activeElement)) return;
  const heading = headingIn(within);
  if (heading) heading.focus();
  else if (performance.now() < untilMs) requestAnimationFrame(() => focusHeading(within, untilMs));
}

/** @param {HTMLElement} within */
function headingIn(within) {
  const headings = /** @type {HTMLElement[]} */ ([...within.querySelectorAll("h1, h2")]);
  const heading = headings.find((each) => each.checkVisibility()) ?? null;
  if (heading && !heading.hasAttribute("tabindex")) heading.tabIndex = -1;
  return heading;
}

/**
 * On the icon of the tab; that of an installed page is the device’s.
 * @param {number} count of conversations with something unread
 */
function showUnread(count) {
  const icon = /** @type {HTMLLinkElement | null} */ (document.querySelector('link[rel="icon"]'));
  const wanted = new URL(`../../icons/${count ? "icon-unread" : "icon"}.svg`, import.meta.url).href;
  if (icon && icon.href !== wanted) icon.href = wanted;
}

customElements.define("sc-home", Home);
