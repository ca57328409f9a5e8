// Who is in a group, and what each is there.

import { app } from "../../../app.js";
import { refused, t } from "../../../i18n/index.js";
import { avatar } from "../../../parts/avatar.js";
import { confirm } from "../../../parts/dialog.js";
import { each, h, when } from "../../../parts/dom.js";
import { icon } from "../../../parts/icons.js";
import { openMenu } from "../../../parts/menu.js";
import { presenceMark } from "../../../parts/presence.js";
import { signal } from "../../../store/signal.js";
import { faceOf, known } from "../../people.js";
import { choosePeople } from "../../choose-people.js";
import { showPerson } from "../../person.js";
import { may } from "../talk.js";
import { mayRemove, rolesFor } from "./rights.js";

/**
 * @typedef {import("../../../store/types.js").Conversation} Conversation
 * @typedef {import("../../../store/types.js").Membership} Membership
 */

const AT_FIRST = 12; // shown; all of them on demand
const RANK = { owner: 0, admin: 1, member: 2 };

/** @param {() => Conversation} conversation */
export function members(conversation) {
  const error = signal("");
  const isWhole = signal(false);
  const all = () =>
    [...(conversation().participants ?? [])].sort(
      (one, other) =>
        RANK[one.role] - RANK[other.role] || known(one.user_id).localeCompare(known(other.user_id)),
    );
  return h(
    "section",
    { class: "details-part" },
    h(
      "header",
      null,
      h("h3", null, t("details.people")),
      when(
        () => may(conversation(), "add"),
        () => h("button", { onclick: () => void add(conversation(), error) }, icon("add"), t("details.add")),
      ),
    ),
    h("p", { class: "problem", role: "alert", hidden: () => !error.value }, () => error.value),
    h(
      "ul",
      { "aria-label": t("details.people") },
      each(
        () => (isWhole.value ? all() : all().slice(0, AT_FIRST)),
        (member) => member.user_id,
        (member) => row(conversation, member, error),
      ),
    ),
    when(
      () => !isWhole.value && all().length > AT_FIRST,
      () => h("button", { onclick: () => (isWhole.value = true) }, t("details.allPeople")),
    ),
  );
}

/**
 * @param {() => Conversation} conversation
 * @param {() => Membership} member
 * @param {import("../../../store/signal.js").Signal<string>} error
 */
function row(conversation, member, error) {
  const id = member().user_id;
  const me = app.session.userId;
  const status = () => (id === me ? app.mine.presences.shown : app.state.presence.get(id)?.status);
  return h(
    "li",
    { class: "member" },
    h(
      "button",
      { class: "member-who", onclick: () => showPerson(id) },
      h(
        "span",
        { class: "list-picture" },
        avatar(() => faceOf(id)),
        presenceMark(status),
      ),
      h(
        "span",
        { class: "member-name" },
        h("span", { dir: "auto" }, () => (id === me ? t("details.youToo", { name: known(id) }) : known(id))),
        h("small", null, () => (member().role === "member" ? "" : t(`details.role.${member().role}`))),
      ),
    ),
    when(
      () => choices(conversation(), member()).length > 0,
      () =>
        h(
          "button",
          {
            class: "icon-button",
            "aria-haspopup": "menu",
            "aria-label": () => t("details.roleOf", { name: known(id) }),
            onclick: (/** @type {MouseEvent} */ event) => {
              const runs = choices(conversation(), member()).map((choice) => ({
                ...choice,
                run: () => void attempt(error, choice.run),
              }));
              openMenu(/** @type {Element} */ (event.currentTarget), known(id), runs);
            },
          },
          icon("more"),
        ),
    ),
  );
}

/**
 * What one may do with somebody's membership.
 * @param {Conversation} conversation
 * @param {Membership} member
 */
function choices(conversation, { user_id: id, role }) {
  const path = `/v1/conversations/${conversation.conversation_id}/participants/${id}`;
  const mine = conversation.my_role;
  const isMe = id === app.session.userId;
  const roles = rolesFor(mine, role).map((next) => ({
    label: t(`details.make.${next}`),
    run: async () => {
      await app.client.ask("PATCH", path, { body: { role: next } });
    },
  }));
  if (isMe || !mayRemove(mine, role)) return roles;
  const removal = {
    label: t("details.remove"),
    icon: "trash",
    isDanger: true,
    run: async () => {
      const name = known(id);
      const what = { title: t("details.remove"), text: t("details.removeSays", { name }) };
      if (!(await confirm({ ...what, action: t("details.remove"), isDanger: true }))) return;
      await app.client.ask("DELETE", path);
    },
  };
  return [...roles, removal];
}

/**
 * @param {Conversation} conversation
 * @param {import("../../../store/signal.js").Signal<string>} error
 */
async function add(conversation, error) {
  const there = new Set(conversation.participants?.map((each) => each.user_id));
  const chosen = await choosePeople(t("details.add"), t("details.add"), there);
  const path = `/v1/conversations/${conversation.conversation_id}/participants`;
  for (const { user_id } of chosen ?? []) {
    await attempt(error, () => app.client.ask("POST", path, { body: { user_id } }));
    if (error.peek()) return;
  }
}

/**
 * Do it, and say what was refused.
 * @param {import("../../../store/signal.js").Signal<string>} error
 * @param {() => Promise<unknown>} work
 */
export async function attempt(error, work) {
  error.value = "";
  try {
    await work();
  } catch (problem) {
    error.value = refused(problem);
  }
}
