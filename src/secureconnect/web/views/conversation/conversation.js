// One conversation: who it is with, what was said, and where one says something.

import { app } from "../../app.js";
import { loadTexts, refused, t } from "../../i18n/index.js";
import { h, Part, part, when } from "../../parts/dom.js";
import { lazy } from "../../parts/lazy.js";
import { sheet } from "../../parts/sheet.js";
import { computed, effect, onEnd, signal, untracked } from "../../store/signal.js";
import { loadEncryption } from "../encryption/door.js";
import { Choice } from "../files/choice.js";
import { dropping } from "../files/tray.js";
import { Composer } from "./composer.js";
import { head } from "./head.js";
import { pinBar } from "./pins.js";
import { Talk } from "./talk.js";
import { TimelineView } from "./timeline.js";

const loadDetails = () =>
  Promise.all([
    import("./details/details.js"),
    sheet("details"),
    sheet("calldialogs"),
    loadTexts("details", "call", "form"),
  ]);

export class ConversationView extends Part {
  conversationId = "";
  error = signal("");
  /** it was there, and is not any more: one was removed, or it was deleted */
  isGone = signal(false);

  build() {
    const id = this.conversationId;
    const { state } = app;
    const { sync } = app.mine;
    const conversation = () => state.conversations.get(id);
    state.current.value = id;
    onEnd(() => {
      if (state.current.peek() === id) state.current.value = null;
      state.timeline(id).trim();
    });
    let wasThere = false;
    effect(() => {
      const isThere = conversation() !== undefined;
      this.isGone.value = wasThere && !isThere;
      wasThere ||= isThere;
    });
    const isOpen = () => app.router.place.value.params.panel === "details" && conversation() !== undefined;
    effect(() => void this.classList.toggle("with-panel", isOpen()));
    void this.#read(() => sync.conversation(id));
    return [
      when(
        () => this.isGone.value || (this.error.value && conversation() === undefined),
        () => this.missing(),
        () => this.content(id),
      ),
      when(isOpen, () => lazy(loadDetails, ([{ Details }]) => part(Details, { conversationId: id }))),
    ];
  }

  /** @param {string} id */
  content(id) {
    const talk = new Talk(id);
    const begin = app.router.place.peek().params.message ?? null;
    let shown = begin;
    effect(() => {
      const { params } = app.router.place.value;
      const message = params.conversation === id ? (params.message ?? null) : shown;
      if (message !== null && message !== shown) untracked(() => talk.jump(message));
      shown = message;
    });
    const watch = signal(/** @type {HTMLElement | null} */ (null));
    const isEncrypted = computed(() => app.state.conversations.get(id)?.settings.is_e2ee_enabled ?? false);
    effect(() => {
      if (isEncrypted.value) untracked(() => void watchOver(id, watch));
    });
    const choice = new Choice(id);
    onEnd(() => choice.clear());
    const section = h(
      "section",
      { class: "conversation" },
      head(id),
      pinBar(talk),
      h("div", { class: "conversation-notes" }, () => watch.value),
      part(TimelineView, { talk, begin }),
      part(Composer, { talk, choice }),
    );
    section.append(dropping(section, choice));
    return section;
  }

  missing() {
    return h(
      "div",
      { class: "blank" },
      h("h2", { tabindex: -1 }, t("home.missing")),
      h("p", { role: "alert" }, () => (this.isGone.value ? t("home.gone") : this.error.value)),
      h("a", { class: "button", href: "/" }, t("chat.back")),
    );
  }

  /** @param {() => Promise<void>} read */
  async #read(read) {
    try {
      await read();
    } catch (error) {
      if (!app.state.conversations.peek(this.conversationId)) this.error.value = refused(error);
    }
  }
}

/**
 * Where it is encrypted: whose keys have changed.
 * @param {string} conversationId
 * @param {import("../../store/signal.js").Signal<HTMLElement | null>} watch
 */
async function watchOver(conversationId, watch) {
  const loading = Promise.all([import("../encryption/watch.js"), loadEncryption()]);
  const [{ TrustWatch }] = await loading.catch(() => [{ TrustWatch: null }]); // no network: it is seen next time
  if (TrustWatch !== null) watch.value ??= part(TrustWatch, { conversationId });
}

customElements.define("sc-conversation", ConversationView);
