// What one is told of a conversation: whether it is muted, and of what one is notified. Nobody else learns of either.

import { app } from "../../../app.js";
import { moment, t } from "../../../i18n/index.js";
import { h, Part, when } from "../../../parts/dom.js";
import { signal } from "../../../store/signal.js";
import { attempt } from "./members.js";

const HOUR_MS = 3_600_000;
const CHOICES = /** @type {const} */ ([null, "all", "mentions", "none"]);

export class Notify extends Part {
  conversationId = "";
  error = signal("");
  /** undefined: not told yet */
  notify = signal(/** @type {(typeof CHOICES)[number] | undefined} */ (undefined));

  build() {
    const conversation = () => app.state.conversations.get(this.conversationId);
    const path = `/v1/conversations/${this.conversationId}/notifications`;
    void attempt(this.error, async () => {
      this.notify.value = (await app.client.ask("GET", path)).notify;
    });
    return h(
      "section",
      { class: "details-part" },
      h("h3", null, t("details.notify")),
      h("p", { class: "problem", role: "alert", hidden: () => !this.error.value }, () => this.error.value),
      when(
        () => conversation()?.is_muted,
        () => this.muted(conversation),
        () => this.mute(),
      ),
      when(
        () => this.notify.value !== undefined,
        () =>
          h(
            "label",
            { class: "field" },
            h("span", null, t("details.notifyOf")),
            h(
              "select",
              {
                onchange: (/** @type {any} */ { target }) =>
                  attempt(this.error, () => this.choose(path, CHOICES[target.selectedIndex])),
              },
              CHOICES.map((each) =>
                h(
                  "option",
                  { selected: this.notify.peek() === each },
                  t(`details.notifyOf.${each ?? "default"}`),
                ),
              ),
            ),
          ),
      ),
    );
  }

  /**
   * @param {string} path
   * @param {(typeof CHOICES)[number]} notify
   */
  async choose(path, notify) {
    await app.client.ask("PUT", path, { body: { notify } });
    this.notify.value = notify;
  }

  mute() {
    const hours = [1, 8];
    const until = (/** @type {number | null} */ count) =>
      attempt(this.error, async () => {
        const end = count === null ? null : new Date(Date.now() + count * HOUR_MS).toISOString();
        await this.#tell("POST", { body: { until: end } });
      });
    return h(
      "div",
      { class: "bond", role: "group", "aria-label": t("details.mute") },
      hours.map((count) =>
        h("button", { onclick: () => void until(count) }, t("details.muteHours", { count })),
      ),
      h("button", { onclick: () => void until(null) }, t("details.muteAlways")),
    );
  }

  /** @param {() => import("../../../store/types.js").Conversation | undefined} conversation */
  muted(conversation) {
    return [
      h("p", null, () => {
        const at = conversation()?.muted_until;
        return at ? t("details.mutedUntil", { at: moment(at) }) : t("details.muted");
      }),
      h(
        "button",
        { onclick: () => void attempt(this.error, () => this.#tell("DELETE", {})) },
        t("details.unmute"),
      ),
    ];
  }

  /**
   * @param {string} method
   * @param {import("../../../api/client.js").Asked} asked
   */
  async #tell(method, asked) {
    const id = this.conversationId;
    const told = await app.client.ask(method, `/v1/conversations/${id}/mute`, asked);
    app.state.conversations.change(id, (held) => ({
      ...held,
      is_muted: told.is_muted,
      muted_until: told.muted_until,
    }));
  }
}

customElements.define("sc-notify", Notify);
