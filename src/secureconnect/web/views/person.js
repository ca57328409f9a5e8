// Somebody's card: who they are, and what one can do about them.

import { app } from "../app.js";
import { loadTexts, refused, t } from "../i18n/index.js";
import { avatar } from "../parts/avatar.js";
import { confirm, openDialog } from "../parts/dialog.js";
import { h, when } from "../parts/dom.js";
import { icon } from "../parts/icons.js";
import { signal } from "../store/signal.js";
import { sheet } from "../parts/sheet.js";
import { toast } from "../parts/toast.js";
import { showKeys } from "./encryption/door.js";
import { seen } from "./seen.js";
import { faceOf, known } from "./people.js";
import { report } from "./report.js";

/** What one is to somebody: asked for when the card opens. */
class Bond {
  friend = signal(/** @type {"none" | "accepted" | "incoming" | "outgoing"} */ ("none"));
  isKnown = signal(false);
  error = signal("");

  /** @param {string} userId */
  constructor(userId) {
    this.userId = userId;
    void this.attempt(() => this.#read());
  }

  async #read() {
    const states = /** @type {const} */ (["accepted", "incoming", "outgoing"]);
    const isIn = (/** @type {{ user_id: string }[]} */ all) =>
      all.some((each) => each.user_id === this.userId);
    const [, ...bonds] = await Promise.all([
      app.mine.blocks.read(),
      ...states.map((state) =>
        app.client.ask("GET", "/v1/users/me/friends", { query: { state, limit: 100 } }),
      ),
    ]);
    this.friend.value = states.find((_, place) => isIn(bonds[place].friends)) ?? "none";
    this.isKnown.value = true;
  }

  async befriend() {
    const id = this.userId;
    if (this.friend.peek() === "none") {
      const { state } = await app.client.ask("POST", `/v1/users/${id}/friend`);
      this.friend.value = state;
    } else if (this.friend.peek() === "incoming") {
      await app.client.ask("POST", `/v1/users/me/friends/${id}/accept`);
      this.friend.value = "accepted";
    } else {
      await app.client.ask("DELETE", `/v1/users/me/friends/${id}`);
      this.friend.value = "none";
    }
  }

  async block() {
    const id = this.userId;
    const { blocks } = app.mine;
    if (blocks.ids.peek().has(id)) {
      await blocks.unblock(id);
      return;
    }
    const what = { title: t("details.block"), text: t("details.blockSays", { name: known(id) }) };
    if (!(await confirm({ ...what, action: t("details.block"), isDanger: true }))) return;
    await blocks.block(id);
    this.friend.value = "none";
  }

  /** @param {() => Promise<unknown>} work */
  async attempt(work) {
    this.error.value = "";
    try {
      await work();
    } catch (error) {
      this.error.value = refused(error);
    }
  }
}

/**
 * What one can do about somebody, as buttons.
 * @param {string} userId
 */
export function bondButtons(userId) {
  const bond = new Bond(userId);
  const isBlocked = () => app.account.value?.blocks.ids.value.has(userId) ?? false;
  return [
    h("p", { class: "problem", role: "alert", hidden: () => !bond.error.value }, () => bond.error.value),
    when(
      () => bond.isKnown.value,
      () =>
        h(
          "div",
          { class: "bond" },
          h("button", { disabled: isBlocked, onclick: () => void bond.attempt(() => bond.befriend()) }, () =>
            t(`details.friend.${bond.friend.value}`),
          ),
          h("button", { onclick: () => void bond.attempt(() => bond.block()) }, () =>
            t(isBlocked() ? "details.unblock" : "details.block"),
          ),
          h("button", { onclick: () => void reportPerson(userId) }, t("details.report")),
        ),
    ),
  ];
}

/** @param {string} userId */
async function reportPerson(userId) {
  if (await report({ user_id: userId })) toast(t("details.reported"));
}

/** @param {string} userId */
export async function showPerson(userId) {
  await Promise.all([loadTexts("details", "form"), sheet("details")]);
  const isMe = userId === app.session.userId;
  if (!isMe) void app.mine.presences.want(userId);
  const path = await openDialog(
    known(userId),
    (/** @type {(path?: string) => void} */ close) => [
      h(
        "div",
        { class: "details-hero" },
        avatar(() => faceOf(userId)),
        h("p", null, () => `@${app.state.people.get(userId)?.username ?? ""}`),
        isMe ? null : h("p", null, () => seen(userId)),
      ),
      isMe
        ? h("button", { onclick: () => close("/settings/profile") }, t("details.ownProfile"))
        : [
            h("button", { class: "primary", onclick: () => void writeTo(userId, close) }, t("details.write")),
            h("button", { onclick: () => void showKeys(userId) }, icon("shield"), t("details.keys")),
            bondButtons(userId),
          ],
    ],
    { class: "person-card" },
  );
  if (path) app.router.go(path);
}

/**
 * @param {string} userId
 * @param {(path?: string) => void} close
 */
async function writeTo(userId, close) {
  try {
    close(await directWith(userId));
  } catch (error) {
    toast(refused(error));
  }
}

/**
 * The address of the direct conversation with somebody, which there is from now on; encrypted, if it is new and the
 * server wants new ones so.
 * @param {string} userId
 */
export async function directWith(userId) {
  await app.learnEncryption();
  const isEncrypted = app.canEncrypt.peek() && app.state.server.peek()?.e2ee_default_direct === true;
  const body = { type: "direct", participant_ids: [userId], is_e2ee_enabled: isEncrypted };
  const { conversation_id: id } = await app.client.ask("POST", "/v1/conversations", { body });
  await app.mine.sync.conversation(id);
  return `/c/${id}`;
}
