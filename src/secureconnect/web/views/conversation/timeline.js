// What was said, the latest at the bottom: where one begins to read, what is loaded when one comes near it, and how keys
// move in it.

import { app } from "../../app.js";
import { refused, t } from "../../i18n/index.js";
import { h, Part, when } from "../../parts/dom.js";
import { icon } from "../../parts/icons.js";
import { Scroller } from "../../parts/scroller.js";
import { toast } from "../../parts/toast.js";
import { computed, effect, onEnd, signal, untracked } from "../../store/signal.js";
import { announcer } from "./announcing.js";
import { expiring } from "./expiry.js";
import { outgoingOf } from "./lingering.js";
import { messageRow } from "./message.js";
import { Paging, pagingRow } from "./paging.js";
import { pollRow, pollsOf } from "./polls.js";
import { Reading } from "./reading.js";
import { keyOf, rowsOf } from "./rows.js";
import { Talk } from "./talk.js";

/**
 * @typedef {import("./rows.js").Row} Row
 * @typedef {import("../../store/types.js").Message} Message
 */

const NEAR_PX = 1_200; // so near what is not loaded it is loaded
const FOUND_MS = 2_500; // a message one was brought to stands out
const READING_SHARE = 0.25; // of the window above where one begins to read

export class TimelineView extends Part {
  talk = new Talk("");
  /** @type {string | null} a message to begin at */
  begin = null;
  readTo = signal(/** @type {number | null} */ (null));
  rows = /** @type {{ readonly value: readonly Row[], peek(): readonly Row[] }} */ (signal([]));
  #isPlaced = false;
  #isDecided = false; // from where on it is new
  #isLed = false; // to a message: what is new is not gone to

  build() {
    const { talk } = this;
    const { id, timeline } = talk;
    const { sync, socket } = app.mine;
    this.#isLed = this.begin !== null;
    const outgoing = outgoingOf(id);
    const polls = pollsOf(id);
    this.rows = computed(() =>
      rowsOf({
        messages: timeline.messages.value,
        provisional: timeline.provisional.value,
        outgoing: outgoing(),
        polls: polls.value,
        me: app.session.userId,
        readTo: this.readTo.value,
        hasOlder: timeline.hasOlder.value,
        hasNewer: timeline.hasNewer.value,
      }),
    );
    this.first = new Paging(() => this.#load());
    this.older = new Paging(() => sync.older(id));
    this.newer = new Paging(() => sync.newer(id));
    this.reading = new Reading(id);
    const scroller = new Scroller(
      () => this.rows.value,
      (row) => this.#row(row),
      () => this.#moved(),
    );
    this.scroller = scroller;
    scroller.element.classList.add("timeline");
    scroller.element.setAttribute("role", "group");
    scroller.element.setAttribute("aria-label", t("chat.messages"));
    scroller.element.addEventListener("keydown", (event) => this.#key(event));
    talk.jump = (messageId) => void this.#jump(messageId);
    talk.toEnd = () => void this.#toEnd();
    expiring(timeline);
    effect(() => this.#decide());
    effect(() => {
      const isOnline = socket.link.value === "online";
      if (isOnline) for (const each of [this.first, this.older, this.newer]) each?.forgive();
      if (!timeline.isLoaded.value) untracked(() => void this.#begin());
    });
    effect(() => {
      if (timeline.isLoaded.value && this.rows.value.length) queueMicrotask(() => this.#place());
    });
    effect(() => {
      if (timeline.hasNewer.value) queueMicrotask(() => this.#moved());
    });
    return [scroller.element, this.#pill(scroller), announcer(timeline)];
  }

  settled() {
    this.scroller?.settle();
  }

  /** @param {() => Row} row */
  #row(row) {
    switch (row().kind) {
      case "message":
        return messageRow(row, this.talk);
      case "poll":
        return pollRow(row, this.talk);
      case "older":
        return pagingRow(() => [this.first, this.older]);
      case "newer":
        return pagingRow(() => [this.newer]);
      case "day":
        return h(
          "li",
          { class: "day" },
          h("span", null, () => row().text),
        );
      case "unread":
        return h("li", { class: "unread-mark" }, h("span", null, t("chat.newMessages")));
      default:
        return h("li", { class: "begin" }, () => this.#beginning());
    }
  }

  #beginning() {
    const isLate = (this.talk.conversation?.first_seq ?? 1) > 1;
    return isLate ? t("chat.beginLate") : t("chat.begins");
  }

  /** @param {Scroller<Row>} scroller */
  #pill(scroller) {
    const count = () => this.talk.conversation?.unread_count ?? 0;
    const label = () => (count() ? t("chat.toNew", { count: count() }) : t("chat.toEnd"));
    return when(
      () => !scroller.isAtEnd.value || this.talk.timeline.hasNewer.value,
      () =>
        h(
          "button",
          {
            type: "button",
            class: "pill",
            "aria-label": label,
            title: label,
            onclick: () => void this.#toEnd(),
          },
          () => (count() ? h("span", { class: "badge" }, String(count())) : null),
          icon("down"),
        ),
    );
  }

  /** What is new is decided once, when it is known: at once, or when the link is there. */
  #decide() {
    const conversation = this.talk.conversation;
    const isOnline = app.mine.socket.link.value === "online";
    if (this.#isDecided || conversation === undefined || !isOnline) return;
    this.#isDecided = true;
    if (conversation.unread_count === 0 || this.#isLed) {
      untracked(() => this.#moved());
      return;
    }
    this.readTo.value = conversation.last_read_seq ?? 0;
    const first = this.talk.timeline.messages.peek()[0]?.seq ?? Infinity;
    const isHeld = first <= (conversation.last_read_seq ?? 0) + 1 || !this.talk.timeline.hasOlder.peek();
    this.#isPlaced = false;
    if (this.talk.timeline.isLoaded.peek() && !isHeld) untracked(() => void this.#begin());
  }

  async #begin() {
    await this.first?.run();
    this.#place();
  }

  /** The messages to begin with. */
  async #load() {
    const { id } = this.talk;
    if (this.begin !== null && (await this.#around(this.begin))) return;
    const { conversations } = app.state;
    if (conversations.peek(id) === undefined) await app.mine.sync.conversation(id);
    await this.#read();
  }

  async #read() {
    const { id } = this.talk;
    const { sync } = app.mine;
    const readTo = this.readTo.peek();
    await (readTo === null ? sync.newest(id) : sync.around(id, readTo + 1));
  }

  /**
   * Returns whether there is such a message here.
   * @param {string} messageId
   */
  async #around(messageId) {
    const { id, timeline } = this.talk;
    if (timeline.find(messageId)) return true;
    try {
      const message = await app.client.ask("GET", `/v1/messages/${encodeURIComponent(messageId)}`);
      if (message.conversation_id !== id) throw { code: "NOT_FOUND", status: 404 };
      await app.mine.sync.around(id, message.seq);
      return true;
    } catch (error) {
      if (/** @type {{ status?: number }} */ (error).status !== 404) throw error;
      toast(t("chat.messageGone"));
      this.begin = null;
      this.#isLed = false;
      return false;
    }
  }

  /** Where one begins to read. */
  #place() {
    if (this.#isPlaced || !this.scroller || !this.talk.timeline.isLoaded.peek()) return;
    if (this.first?.isBusy.peek()) return;
    if (this.begin !== null) {
      if (!this.#show(this.begin)) return;
      this.begin = null;
    } else {
      this.scroller.toEnd();
      if (this.readTo.peek() !== null) this.scroller.to("unread", READING_SHARE);
    }
    this.#isPlaced = true;
    this.#moved();
  }

  /**
   * @param {string} messageId of one that is held
   * @returns {boolean} whether it is
   */
  #show(messageId) {
    const message = this.talk.timeline.find(messageId);
    if (message === null || !this.scroller) return false;
    const key = keyOf(message);
    const { talk, scroller } = this;
    scroller.to(key, READING_SHARE);
    talk.found.value = key;
    setTimeout(() => talk.found.peek() === key && (talk.found.value = ""), FOUND_MS);
    this.#focus(key);
    return true;
  }

  /** @param {string} messageId */
  async #jump(messageId) {
    if (this.#show(messageId)) return;
    try {
      if (await this.#around(messageId)) queueMicrotask(() => this.#show(messageId));
    } catch (error) {
      toast(refused(error));
    }
  }

  async #toEnd() {
    const { id, timeline } = this.talk;
    try {
      if (timeline.hasNewer.peek()) await app.mine.sync.newest(id);
    } catch (error) {
      toast(refused(error));
    }
    this.scroller?.toEnd();
  }

  #moved() {
    const { scroller, rows } = this;
    if (!scroller || !this.#isPlaced) return;
    const { timeline } = this.talk;
    const { scrollTop, scrollHeight, clientHeight } = scroller.element;
    if (timeline.hasOlder.peek() && scrollTop < NEAR_PX) this.#more(this.older);
    if (timeline.hasNewer.peek() && scrollHeight - scrollTop - clientHeight < NEAR_PX) this.#more(this.newer);
    if (!this.#isDecided) return; // one may be brought elsewhere yet
    const [, to] = scroller.inWindow();
    for (let place = to - 1; place >= 0; place--) {
      const seq = rows.peek()[place]?.message?.seq;
      if (!seq) continue;
      this.reading?.sees(seq);
      break;
    }
  }

  /** @param {Paging | undefined} paging */
  #more(paging) {
    void paging?.run().then((isDone) => isDone && this.#moved());
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const isPlain = !event.altKey && !event.ctrlKey && !event.metaKey && !event.shiftKey;
    if (!isPlain || (event.key !== "ArrowUp" && event.key !== "ArrowDown")) return;
    event.preventDefault();
    this.#step(event.key === "ArrowUp" ? -1 : 1);
  }

  /** @param {1 | -1} by */
  #step(by) {
    const { scroller, talk } = this;
    const rows = this.rows.peek();
    if (!scroller) return;
    let place = rows.findIndex(({ key }) => key === talk.active.peek());
    if (place < 0) place = scroller.inWindow()[1] + (by < 0 ? 0 : -2);
    do place += by;
    while (rows[place] && !isArticle(rows[place]));
    if (!rows[place]) return;
    scroller.to(rows[place].key);
    this.#focus(rows[place].key);
  }

  /** @param {string} key */
  #focus(key) {
    this.talk.active.value = key;
    this.scroller?.elementOf(key)?.querySelector("article")?.focus({ preventScroll: true });
  }
}

/** @param {Row} row */
function isArticle({ kind, message }) {
  return kind === "poll" || (kind === "message" && message?.message_type !== "system");
}

customElements.define("sc-timeline", TimelineView);
