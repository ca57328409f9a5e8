// Polls among the messages: what is asked, what people say, and one's own vote.

import { app } from "../../app.js";
import { moment, number, refused, t, timeOfDay } from "../../i18n/index.js";
import { confirm } from "../../parts/dialog.js";
import { each, h, when } from "../../parts/dom.js";
import { icon } from "../../parts/icons.js";
import { openMenu } from "../../parts/menu.js";
import { toast } from "../../parts/toast.js";
import { computed, effect, onEnd, signal } from "../../store/signal.js";
import { known } from "../people.js";
import { may } from "./talk.js";

/**
 * @typedef {import("../../store/types.js").Poll} Poll
 * @typedef {import("../../store/types.js").PollOption} PollOption
 * @typedef {import("./rows.js").Row} Row
 * @typedef {import("./talk.js").Talk} Talk
 */

const PAGE = 100;
const MOST_PAGES = 5;
const LONGEST_MS = 2 ** 31 - 1; // of a timer

/**
 * Those of a conversation, the oldest first. They are read whenever the link is new: votes are not counted here.
 * @param {string} conversationId
 * @returns {{ readonly value: readonly Poll[] }}
 */
export function pollsOf(conversationId) {
  const { state } = app;
  effect(() => {
    if (app.mine.socket.link.value === "online") void read(conversationId);
  });
  return computed(() => {
    const all = state.polls.ids.value.map((id) => /** @type {Poll} */ (state.polls.get(id)));
    return all
      .filter((poll) => poll?.conversation_id === conversationId)
      .sort((one, other) => (one.created_at < other.created_at ? -1 : 1));
  });
}

/** @param {string} conversationId */
async function read(conversationId) {
  let cursor = null;
  try {
    for (let page = 0; page < MOST_PAGES && (page === 0 || cursor !== null); page++) {
      const query = { conversation_id: conversationId, limit: PAGE, cursor };
      const { polls, next_cursor } = await app.client.ask("GET", "/v1/polls", { query });
      for (const poll of polls) app.state.polls.set(poll.poll_id, poll);
      cursor = next_cursor;
    }
  } catch {
    // not now: when the link is next new, or what happens to one tells of it
  }
}

/**
 * @param {() => Row} row
 * @param {Talk} talk
 */
export function pollRow(row, talk) {
  const id = row().key;
  const first = /** @type {Poll} */ (row().poll);
  let last = first;
  const poll = () => (last = app.state.polls.get(id) ?? last); // a moment longer than it is there
  const isOwn = first.created_by === app.session.userId;
  const isOver = closing(poll);
  return h(
    "li",
    { class: { row: true, first: true, own: isOwn } },
    h(
      "article",
      {
        class: "bubble poll",
        tabindex: "-1",
        "data-key": id,
        "aria-label": () =>
          `${t("chat.poll")}: ${poll().question}. ${known(first.created_by)}, ${timeOfDay(first.created_at)}`,
        onfocusin: () => (talk.active.value = id),
      },
      h("p", { class: "author", dir: "auto" }, icon("poll"), () => known(first.created_by)),
      part(poll, isOver),
      h(
        "footer",
        null,
        h("span", null, () => summary(poll(), isOver())),
        h("time", null, timeOfDay(first.created_at)),
      ),
      menuButton(poll, isOver, isOwn, talk, () => talk.active.value === id),
    ),
  );
}

/**
 * Whether no vote counts any more; followed.
 * @param {() => Poll} poll
 */
function closing(poll) {
  const now = signal(Date.now());
  const endsMs = () => Date.parse(poll().expires_at ?? "") || Infinity;
  effect(() => {
    const left = endsMs() - now.value;
    if (left <= 0 || left === Infinity) return;
    const timer = setTimeout(() => (now.value = Date.now()), Math.min(left + 1, LONGEST_MS));
    onEnd(() => clearTimeout(timer));
  });
  return () => poll().closed_at !== null || endsMs() <= now.value;
}

/**
 * @param {() => Poll} poll
 * @param {() => boolean} isOver
 */
function part(poll, isOver) {
  const { poll_id: id, poll_type, allow_vote_change } = poll();
  const isBusy = signal(false);
  const hasVoted = () => (poll().my_option_ids ?? []).length > 0;
  const isFinal = () => isOver() || (hasVoted() && !allow_vote_change);
  /** chosen and not sent: only where a vote cannot be changed, or is of several parts */
  const chosen = signal(/** @type {readonly string[] | null} */ (null));
  const mine = () => chosen.value ?? poll().my_option_ids ?? [];
  const send = async (/** @type {readonly string[]} */ options) => {
    isBusy.value = true;
    await vote(id, options);
    isBusy.value = false;
    chosen.value = null;
  };
  const choose = (/** @type {string} */ option) => {
    const others = mine().filter((one) => one !== option);
    const next =
      others.length < mine().length ? others : poll_type === "multi" ? [...others, option] : [option];
    if (allow_vote_change && poll_type === "single") void send(next);
    chosen.value = next;
  };
  return [
    h(
      "fieldset",
      { class: "poll-options", disabled: () => isBusy.value || isFinal() },
      h("legend", { dir: "auto" }, () => poll().question),
      each(
        () => poll().options,
        (option) => option.option_id,
        (option) => optionRow(option, poll, () => mine().includes(option().option_id), choose),
      ),
    ),
    when(
      () => chosen.value !== null && !isBusy.value && !isFinal(),
      () =>
        h(
          "button",
          { type: "button", class: "primary", onclick: () => void send(mine()) },
          t("chat.poll.vote"),
        ),
    ),
  ];
}

/**
 * @param {() => PollOption} option
 * @param {() => Poll} poll
 * @param {() => boolean} isMine
 * @param {(option: string) => void} choose
 */
function optionRow(option, poll, isMine, choose) {
  const { poll_id: id, poll_type } = poll();
  const share = () => (poll().voter_count ? option().vote_count / poll().voter_count : 0);
  return h(
    "label",
    { class: () => ({ "poll-option": true, mine: isMine() }) },
    h("input", {
      type: poll_type === "multi" ? "checkbox" : "radio",
      name: `poll-${id}`,
      checked: isMine,
      onchange: () => choose(option().option_id),
    }),
    h("span", { class: "poll-text", dir: "auto" }, () => option().text),
    h("span", { class: "poll-count" }, () =>
      t("chat.poll.count", { count: option().vote_count, share: percent(share()) }),
    ),
    h("span", { class: "poll-bar", "aria-hidden": "true", style: () => ({ "--share": String(share()) }) }),
  );
}

/** @param {number} share */
function percent(share) {
  return `${number(Math.round(100 * share))} %`;
}

/**
 * @param {string} id
 * @param {readonly string[]} option_ids
 */
async function vote(id, option_ids) {
  try {
    const poll = await app.client.ask("POST", `/v1/polls/${id}/vote`, { body: { option_ids } });
    app.state.polls.set(id, poll);
  } catch (error) {
    toast(refused(error));
    const held = app.state.polls.peek(id);
    if (held) app.state.polls.set(id, { ...held }); // shows again what counts
  }
}

/**
 * @param {Poll} poll
 * @param {boolean} isOver
 */
function summary({ voter_count, expires_at, poll_type }, isOver) {
  const votes = t("chat.poll.voters", { count: voter_count });
  if (isOver) return `${votes} · ${t("chat.poll.over")}`;
  if (expires_at) return `${votes} · ${t("chat.poll.until", { when: moment(expires_at) })}`;
  return poll_type === "multi" ? `${votes} · ${t("chat.poll.several")}` : votes;
}

/**
 * @param {() => Poll} poll
 * @param {() => boolean} isOver
 * @param {boolean} isOwn
 * @param {Talk} talk
 * @param {() => boolean} isActive
 */
function menuButton(poll, isOver, isOwn, talk, isActive) {
  const { poll_id: id, allow_vote_change } = poll();
  const isMine = () => isOwn || may(talk.conversation, "end_polls");
  const choices = () => [
    allow_vote_change &&
      !isOver() &&
      (poll().my_option_ids ?? []).length > 0 && {
        label: t("chat.poll.takeBack"),
        run: () => void vote(id, []),
      },
    isMine() && !isOver() && { label: t("chat.poll.close"), icon: "check", run: () => void close(id) },
    isMine() && { label: t("chat.do.delete"), icon: "trash", isDanger: true, run: () => void remove(id) },
  ];
  const open = (/** @type {MouseEvent} */ { currentTarget }) =>
    openMenu(/** @type {Element} */ (currentTarget), t("chat.actions"), choices());
  return when(
    () => choices().some(Boolean),
    () =>
      h(
        "button",
        {
          type: "button",
          class: "icon-button tools",
          "aria-label": t("chat.actions"),
          "aria-haspopup": "menu",
          tabindex: () => (isActive() ? 0 : -1),
          onclick: open,
        },
        icon("more"),
      ),
  );
}

/** @param {string} id */
async function close(id) {
  try {
    app.state.polls.set(id, await app.client.ask("POST", `/v1/polls/${id}/close`));
  } catch (error) {
    toast(refused(error));
  }
}

/** @param {string} id */
async function remove(id) {
  const what = { title: t("chat.poll.deleteTitle"), text: t("chat.poll.deleteText") };
  if (!(await confirm({ ...what, action: t("chat.do.delete"), isDanger: true }))) return;
  try {
    await app.client.ask("DELETE", `/v1/polls/${id}`);
    app.state.polls.delete(id);
  } catch (error) {
    toast(refused(error));
  }
}
