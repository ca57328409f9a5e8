// Where one says something. Enter sends, Shift and Enter begin a line; on a screen that is touched Enter begins a line.

import { app } from "../../app.js";
import { loadTexts, refused, t } from "../../i18n/index.js";
import { h, Part, when } from "../../parts/dom.js";
import { icon } from "../../parts/icons.js";
import { sheet } from "../../parts/sheet.js";
import { spoken } from "../../parts/spoken.js";
import { toast } from "../../parts/toast.js";
import { effect, onEnd, signal, untracked } from "../../store/signal.js";
import { Choice } from "../files/choice.js";
import { attachButton, tray } from "../files/tray.js";
import { known } from "../people.js";
import { Mentioning, namedIn } from "./mentioning.js";
import { excerptOf, isGone, said } from "./said.js";
import { shutNotice, whyShut } from "./shut.js";
import { Talk } from "./talk.js";
import { Typing } from "./typing.js";

/** @typedef {import("../../store/types.js").Message} Message */

const TOLD_WITHIN = 500; // characters of the most there may be: from then on one sees how many are left
const isTouched = matchMedia("(hover: none) and (pointer: coarse)");

export class Composer extends Part {
  talk = new Talk("");
  choice = new Choice("");
  error = signal("");
  text = signal("");
  isSaving = false; // what was edited

  build() {
    const { talk } = this;
    const why = whyShut(talk);
    const input = this.#input();
    this.input = input;
    this.typing = new Typing(talk.id);
    this.mentioning = new Mentioning(input, talk);
    talk.write = () => input.focus();
    this.#restore();
    effect(() => {
      const { value: editing } = talk.editing;
      if (editing === null) return;
      untracked(() => this.#fill(said(editing).body));
      onEnd(() => this.#fill(app.account.peek()?.drafts.peek(talk.id)?.text ?? ""));
    });
    effect(() => {
      if (talk.editing.value !== null) return;
      app.mine.drafts.keep(talk.id, this.text.value, talk.answering.value?.message_id ?? null);
    });
    return h(
      "form",
      {
        class: "composer",
        onsubmit: (/** @type {SubmitEvent} */ event) => {
          event.preventDefault();
          void this.#send();
        },
        onkeydown: (/** @type {KeyboardEvent} */ event) => this.#leave(event),
      },
      when(
        why,
        () => shutNotice(talk, why),
        () => this.#fields(input),
      ),
    );
  }

  /** @param {HTMLTextAreaElement} input */
  #fields(input) {
    const { talk } = this;
    return [
      h("p", { class: "problem", role: "alert", hidden: () => !this.error.value }, () => this.error.value),
      this.#bar(),
      tray(this.choice),
      this.mentioning?.list(),
      h(
        "div",
        { class: "composer-row" },
        when(
          () => talk.editing.value === null,
          () => attachButton(this.choice),
        ),
        when(
          () => !talk.editing.value && !talk.conversation?.settings.is_e2ee_enabled,
          () => this.#tool("poll", t("chat.poll.new"), () => void askPoll(talk.id)),
        ),
        input,
        isTouched.matches ? null : this.#tool("smile", t("chat.emoji"), (button) => void this.#emoji(button)),
        h(
          "button",
          {
            class: "icon-button primary send",
            "aria-label": () => (talk.editing.value ? t("common.save") : t("chat.send")),
          },
          when(
            () => talk.editing.value,
            () => icon("check"),
            () => icon("send"),
          ),
        ),
      ),
      h("p", { class: "left", hidden: () => !this.#told() }, () => this.#told()),
      spoken(() => this.#told()),
    ];
  }

  /**
   * @param {string} picture
   * @param {string} label
   * @param {(button: Element) => void} run
   */
  #tool(picture, label, run) {
    const onclick = (/** @type {MouseEvent} */ { currentTarget }) =>
      run(/** @type {Element} */ (currentTarget));
    return h(
      "button",
      { type: "button", class: "icon-button", "aria-label": label, title: label, onclick },
      icon(picture),
    );
  }

  /** @param {Element} button */
  async #emoji(button) {
    const { chooseEmoji } = await import("./emoji.js");
    const emoji = await chooseEmoji(button, t("chat.emoji"));
    const { input } = this;
    if (emoji === null || !input) return;
    input.setRangeText(emoji, input.selectionStart, input.selectionEnd, "end");
    this.#typed();
    input.focus();
  }

  #input() {
    const input = h("textarea", {
      rows: 1,
      dir: "auto",
      "aria-label": t("chat.write"),
      placeholder: t("chat.write"),
      enterkeyhint: isTouched.matches ? "enter" : "send",
      oninput: () => this.#typed(),
      onclick: () => this.mentioning?.look(),
      onblur: () => this.mentioning?.close(),
      onkeydown: (/** @type {KeyboardEvent} */ event) => this.#key(event),
    });
    return input;
  }

  /** What one answers or edits, and the way out of it. */
  #bar() {
    const { talk } = this;
    const about = () => talk.editing.value ?? talk.answering.value;
    const label = () =>
      talk.editing.value ? t("chat.editing") : t("chat.answering", { who: known(about()?.sender_id ?? "") });
    return when(about, () =>
      h(
        "div",
        { class: "composer-bar" },
        h(
          "p",
          null,
          h("strong", null, label),
          h("span", { dir: "auto" }, () => excerptOf(about())),
        ),
        h(
          "button",
          {
            type: "button",
            class: "icon-button",
            "aria-label": () => (talk.editing.value ? t("chat.editCancel") : t("chat.answerCancel")),
            onclick: () => this.#cancel(),
          },
          icon("close"),
        ),
      ),
    );
  }

  #restore() {
    const { talk } = this;
    const begun = app.mine.drafts.peek(talk.id);
    if (!begun) return;
    this.#fill(begun.text);
    if (begun.reply_to) talk.answering.value = talk.timeline.find(begun.reply_to);
  }

  /** @param {string} text */
  #fill(text) {
    const { input } = this;
    if (!input) return;
    input.value = text;
    input.setSelectionRange(text.length, text.length);
    this.#grown();
  }

  #grown() {
    const { input } = this;
    if (!input) return;
    this.text.value = input.value;
    if (CSS.supports("field-sizing", "content")) return;
    input.style.height = "auto";
    input.style.height = `${input.scrollHeight + input.offsetHeight - input.clientHeight}px`;
  }

  #typed() {
    this.#grown();
    this.mentioning?.look();
    if (this.talk.editing.peek()) return;
    if (this.text.peek().trim()) this.typing?.goesOn();
    else this.typing?.stops();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.isComposing || this.mentioning?.key(event)) return;
    const isPlain = !event.shiftKey && !event.ctrlKey && !event.altKey && !event.metaKey;
    if (event.key === "Enter" && isPlain && !isTouched.matches) {
      event.preventDefault();
      void this.#send();
    } else if (event.key === "ArrowUp" && isPlain && !this.text.peek() && !this.talk.editing.peek()) {
      const last = this.#lastOwn();
      if (last === undefined) return;
      event.preventDefault();
      this.talk.edit(last);
    }
  }

  #lastOwn() {
    const me = app.session.userId;
    return this.talk.timeline.messages
      .peek()
      .findLast((each) => each.sender_id === me && !isGone(each) && said(each).kind !== "system");
  }

  /** @param {KeyboardEvent} event */
  #leave(event) {
    const { talk } = this;
    if (event.key !== "Escape" || !(talk.editing.peek() ?? talk.answering.peek())) return;
    event.stopPropagation();
    this.#cancel();
  }

  #cancel() {
    const { talk } = this;
    talk.editing.value = null;
    talk.answering.value = null;
    this.error.value = "";
    this.input?.focus();
  }

  /** How many characters are left, when they become few. */
  #told() {
    const most = app.state.server.value?.limits.message_chars ?? Infinity;
    const left = most - charactersOf(this.text.value);
    if (left > TOLD_WITHIN) return "";
    return left < 0 ? t("chat.tooLong", { count: -left }) : t("chat.charactersLeft", { count: left });
  }

  async #send() {
    const { talk, input } = this;
    const content = input?.value.trim() ?? "";
    const most = app.state.server.peek()?.limits.message_chars ?? Infinity;
    if (!input || charactersOf(content) > most) return;
    const editing = talk.editing.peek();
    this.error.value = "";
    try {
      if (editing) await this.#sayOtherwise(editing, content);
      else await this.#say(content, input);
    } catch (error) {
      this.error.value = refused(error);
    }
  }

  /**
   * The field is empty at once, for the next one: who writes fast does not wait until the last is on the disk.
   * @param {string} content
   * @param {HTMLTextAreaElement} input
   */
  async #say(content, input) {
    const { talk, choice } = this;
    if (!content && choice.isEmpty) return;
    const answered = talk.answering.peek();
    const mentions = namedIn(content, talk);
    this.#fill("");
    talk.answering.value = null;
    this.typing?.stops();
    const { draft, blobs, putBack } = await choice.take();
    if (!content && !draft.files) return; // none of the files could be taken
    try {
      await app.mine.outbox.add(
        {
          conversation_id: talk.id,
          content,
          ...(answered ? { reply_to: answered.message_id } : {}),
          ...(mentions.length ? { metadata: { mentions } } : {}),
          ...draft,
        },
        blobs,
      );
      talk.toEnd();
    } catch (error) {
      this.#fill([content, input.value].filter(Boolean).join("\n"));
      talk.answering.value ??= answered;
      putBack();
      throw error;
    }
  }

  /**
   * @param {Message} message
   * @param {string} content
   */
  async #sayOtherwise(message, content) {
    const { talk } = this;
    const { body, files } = said(message);
    if (this.isSaving) return;
    if (!content && !files.length) {
      this.error.value = t("chat.editEmpty");
      return;
    }
    if (content !== body) {
      const mentions = namedIn(content, talk);
      this.isSaving = true;
      await app.edit(message, content, mentions).finally(() => (this.isSaving = false));
    }
    talk.editing.value = null;
    this.input?.focus();
  }
}

/** @param {string} conversationId */
async function askPoll(conversationId) {
  try {
    const load = [import("./dialogs/poll.js"), loadTexts("message", "form"), sheet("message")];
    const [{ newPoll }] = /** @type {[typeof import("./dialogs/poll.js")]} */ (await Promise.all(load));
    await newPoll(conversationId);
  } catch (error) {
    toast(refused(error));
  }
}

/** @param {string} text as the server counts it */
function charactersOf(text) {
  let count = text.length;
  for (let at = 0; at < text.length; at++) if ((text.charCodeAt(at) & 0xfc00) === 0xdc00) count -= 1;
  return count;
}

customElements.define("sc-composer", Composer);
