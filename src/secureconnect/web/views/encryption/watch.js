// Over an encrypted conversation: whose devices or identity are others than they were when one last looked.

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
 * @typedef {{ userId: string, what: "changed" | "devices", deviceIds: string[] }} News
 */

const MOST_WATCHED = 50; // people of one conversation
const KEPT = "devices "; // before the id of a person, among the facts on the disk

export class TrustWatch extends Part {
  conversationId = "";
  news = signal(/** @type {readonly News[]} */ ([]));

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
      const found = await Promise.all(others.map((id) => newsOf(crypto, id)));
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
      h("span", null, () => t(`encryption.news.${one().what}`, { name: known(userId) })),
      h("button", { onclick: () => this.show(one()) }, t("encryption.look")),
      what === "changed" ? null : h("button", { onclick: () => this.dismiss(one()) }, t("encryption.fine")),
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
    if (what === "devices") await app.mine.disk.put("facts", KEPT + userId, deviceIds);
    this.news.value = this.news.peek().filter((each) => each.userId !== userId || each.what !== what);
  }
}

/**
 * The first look at somebody's devices is no news.
 * @param {Crypto} crypto
 * @param {string} userId
 * @returns {Promise<News | null>}
 */
async function newsOf(crypto, userId) {
  const { disk } = app.mine;
  const [trust, devices, seen] = await Promise.all([
    crypto.trust(userId),
    crypto.devices(userId),
    disk.get("facts", KEPT + userId),
  ]);
  const deviceIds = devices.map((device) => device.deviceId);
  if (trust === "changed") return { userId, what: "changed", deviceIds };
  if (seen === undefined) {
    if (deviceIds.length) await disk.put("facts", KEPT + userId, deviceIds);
    return null;
  }
  return deviceIds.some((id) => !seen.includes(id)) ? { userId, what: "devices", deviceIds } : null;
}

customElements.define("sc-trust-watch", TrustWatch);
