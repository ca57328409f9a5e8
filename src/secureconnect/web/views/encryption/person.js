// What is known of the keys of a person: whether one has compared with them, and their devices.

import { app } from "../../app.js";
import { moment, refused, t } from "../../i18n/index.js";
import { each, h, Part, when } from "../../parts/dom.js";
import { icon } from "../../parts/icons.js";
import { onEnd, signal } from "../../store/signal.js";
import { verify } from "./verify.js";

/**
 * @typedef {import("../../crypto/index.js").Crypto} Crypto
 * @typedef {import("../../crypto/index.js").Trusted} Trusted
 * @typedef {import("../../crypto/index.js").Device} Device
 */

export class PersonKeys extends Part {
  userId = "";
  /** @type {Crypto | null} */
  crypto = null;
  trust = signal(/** @type {Trusted} */ ("unknown"));
  devices = signal(/** @type {readonly Device[]} */ ([]));
  error = signal("");

  build() {
    const crypto = /** @type {Crypto} */ (this.crypto);
    const isSelf = this.userId === app.session.userId;
    const read = () => this.read(crypto);
    void read();
    onEnd(crypto.on("trust", ({ userId }) => userId === this.userId && void read()));
    return h(
      "section",
      { class: "keys", "aria-label": t("encryption.keys") },
      isSelf ? null : trustLine(() => this.trust.value),
      when(
        () => !isSelf && this.trust.value === "changed",
        () =>
          h(
            "div",
            { class: "notice" },
            h("p", null, t("encryption.changedExplained")),
            h("button", { onclick: () => this.act(crypto.approve(this.userId)) }, t("encryption.approve")),
          ),
      ),
      h("p", { class: "problem", role: "alert", hidden: () => !this.error.value }, () => this.error.value),
      when(
        () => !isSelf && this.devices.value.length > 0,
        () =>
          h(
            "button",
            { onclick: () => this.act(verify(crypto, this.userId)) },
            icon("shield"),
            t("encryption.verify"),
          ),
      ),
      h(
        "ul",
        { class: "rows" },
        each(
          () => this.devices.value,
          (device) => device.deviceId,
          (device) => this.row(device, crypto, isSelf),
        ),
      ),
    );
  }

  /**
   * @param {() => Device} device
   * @param {Crypto} crypto
   * @param {boolean} isSelf
   */
  row(device, crypto, isSelf) {
    const { deviceId, isMine, fingerprint, firstSeenMs } = device();
    return h(
      "li",
      { class: "row" },
      h("span", { class: () => `trust trust-${device().trust}` }, () => icon(markOf(device().trust))),
      h(
        "div",
        { class: "row-text" },
        h(
          "strong",
          null,
          () => t(`encryption.device.${device().trust}`),
          isMine ? ` (${t("encryption.thisDevice")})` : "",
        ),
        h("small", null, t("encryption.firstSeen", { when: moment(firstSeenMs) })),
        h(
          "details",
          null,
          h("summary", null, t("encryption.fingerprint")),
          h("code", null, inGroups(fingerprint)),
        ),
      ),
      isSelf && !isMine
        ? when(
            () => device().trust !== "verified",
            () =>
              h(
                "button",
                { onclick: () => this.act(verify(crypto, this.userId, deviceId)) },
                t("encryption.verify"),
              ),
          )
        : null,
    );
  }

  /** @param {Crypto} crypto */
  async read(crypto) {
    try {
      const { trust, devices } = await crypto.look(this.userId);
      this.trust.value = trust;
      this.devices.value = devices;
      this.error.value = "";
    } catch (error) {
      this.error.value = refused(error);
    }
  }

  /** @param {Promise<void>} done */
  async act(done) {
    try {
      await done;
      await this.read(/** @type {Crypto} */ (this.crypto));
    } catch (error) {
      this.error.value = refused(error);
    }
  }
}

/** @param {() => Trusted} trust */
export function trustLine(trust) {
  return h(
    "p",
    { class: () => `trust trust-${trust()}` },
    () => icon(markOf(trust())),
    () => t(`encryption.trust.${trust()}`),
  );
}

/** @param {Trusted} trust */
function markOf(trust) {
  if (trust === "verified") return "shield";
  return trust === "changed" ? "warning" : "lock";
}

/** @param {string} text */
function inGroups(text) {
  return (text.match(/.{1,4}/g) ?? []).join(" ");
}

customElements.define("sc-person-keys", PersonKeys);
