// Over an encrypted conversation: who has come, whose devices or identity are others than they were when one last looked,
// and who has no keys.

import { app } from "../../app.js";
import { t } from "../../i18n/index.js";
import { openDialog } from "../../parts/dialog.js";
import { each, h, Part, part } from "../../parts/dom.js";
import { icon } from "../../parts/icons.js";
import { effect, signal } from "../../store/signal.js";
import { known } from "../people.js";
import { PersonKeys } from "./person.js";

/**
 * @typedef {import("../../crypto/index.js").Crypto} Crypto
 * @typedef {{ userId: string, what: "changed" | "devices" | "members" | "keyless" | "waits", deviceIds: string[],
 *   people: string[] }} News people: whom it is about
 */

const MOST_WATCHED = 50; // people of one conversation
const KEPT = "devices "; // before the id of a person, among the facts on the disk
const MEMBERS = "members "; // before that of a conversation
const MOST_NAMED = 3;
const LOOKED_AT = new Set(["changed", "devices"]); // there are keys to look at
const LASTING = new Set(["changed", "keyless", "waits"]); // until it is otherwise

export class TrustWatch extends Part {
  conversationId = "";
  news = signal(/** @type {readonly News[]} */ ([]));
  /** @type {Set<string>} people without devices whom the server was asked for */
  #asked = new Set();

  build() {
    effect(() => {
      void app.mine.secrecy.changes.value;
      const people = app.state.conversations.get(this.conversationId)?.participants ?? [];
      void this.look(people.map(({ user_id }) => user_id));
    });
    return each(
      () => this.news.value,
      ({ userId, what }) => `${userId} ${what}`,
      (one) => this.line(one),
    );
  }

  /** @param {string[]} people */
  async look(people) {
    try {
      const crypto = await app.mine.secrecy.crypto();
      const others = people.filter((id) => id !== app.session.userId).slice(0, MOST_WATCHED);
      const found = await Promise.all([this.joined(people), ...others.map((id) => this.newsOf(crypto, id))]);
      this.news.value = found.filter((each) => each !== null);
    } catch {
      // without keys there is nothing to tell; that there are none is said elsewhere
    }
  }

  /** @param {() => News} one */
  line(one) {
    const { userId, what } = one();
    return h(
      "div",
      { class: () => `watch watch-${one().what}`, role: "status" },
      icon(what === "changed" ? "warning" : "lock"),
      h("span", null, () => t(`encryption.news.${one().what}`, { name: namesOf(one().people) })),
      LOOKED_AT.has(what) ? h("button", { onclick: () => this.show(one()) }, t("encryption.look")) : null,
      LASTING.has(what) ? null : h("button", { onclick: () => this.dismiss(one()) }, t("encryption.fine")),
    );
  }

  /** @param {News} one */
  async show(one) {
    const crypto = await app.mine.secrecy.crypto();
    await openDialog(known(one.userId), () => part(PersonKeys, { crypto, userId: one.userId }));
    await this.dismiss(one);
  }

  /** @param {News} one */
  async dismiss({ userId, what, deviceIds }) {
    const { disk } = app.mine;
    if (what === "devices") await disk.put("facts", KEPT + userId, deviceIds);
    if (what === "members") await disk.put("facts", MEMBERS + this.conversationId, this.members());
    this.news.value = this.news.peek().filter((each) => each.userId !== userId || each.what !== what);
  }

  members() {
    return (app.state.conversations.peek(this.conversationId)?.participants ?? []).map(
      (each) => each.user_id,
    );
  }

  /**
   * Those who have come since one looked: the server says who is in it, and not always aloud.
   * @param {string[]} people
   * @returns {Promise<News | null>}
   */
  async joined(people) {
    const { disk } = app.mine;
    const key = MEMBERS + this.conversationId;
    /** @type {string[] | undefined} */
    const seen = await disk.get("facts", key);
    const still = seen?.filter((id) => people.includes(id)) ?? people; // who comes back has come
    if (people.length && still.length !== seen?.length) await disk.put("facts", key, still);
    const come = people.filter((id) => !still.includes(id) && id !== app.session.userId);
    return come.length ? { userId: "", what: "members", deviceIds: [], people: come } : null;
  }

  /**
   * The first look at somebody's devices is no news.
   * @param {Crypto} crypto
   * @param {string} userId
   * @returns {Promise<News | null>}
   */
  async newsOf(crypto, userId) {
    const { disk } = app.mine;
    const [trust, devices, seen] = await Promise.all([
      crypto.trust(userId),
      this.devices(crypto, userId),
      disk.get("facts", KEPT + userId),
    ]);
    const deviceIds = devices.map((device) => device.deviceId);
    const about = { userId, deviceIds, people: [userId] };
    if (trust === "changed") return { ...about, what: "changed" };
    if (deviceIds.length === 0) {
      const isDirect = app.state.conversations.peek(this.conversationId)?.type === "direct";
      return { ...about, what: isDirect ? "waits" : "keyless" };
    }
    if (seen === undefined) {
      await disk.put("facts", KEPT + userId, deviceIds);
      return null;
    }
    return deviceIds.some((id) => !seen.includes(id)) ? { ...about, what: "devices" } : null;
  }

  /**
   * As far as they are known; of whom none is, the server is asked once.
   * @param {Crypto} crypto
   * @param {string} userId
   */
  async devices(crypto, userId) {
    const found = await crypto.devices(userId);
    if (found.length > 0 || this.#asked.has(userId)) return found;
    this.#asked.add(userId);
    return (await crypto.look(userId)).devices;
  }
}

/** @param {string[]} people */
function namesOf(people) {
  const names = people.slice(0, MOST_NAMED).map(known);
  return people.length > MOST_NAMED ? `${names.join(", ")} …` : names.join(", ");
}

customElements.define("sc-trust-watch", TrustWatch);
