// Where one is signed in.

import { deviceName } from "../../api/session.js";
import { app } from "../../app.js";
import { ago, refused, t } from "../../i18n/index.js";
import { confirm, openDialog } from "../../parts/dialog.js";
import { each, h, Part, when } from "../../parts/dom.js";
import { field, form } from "../../parts/form.js";
import { footOf, Paged } from "../../parts/paged.js";
import { toast } from "../../parts/toast.js";
import { signal } from "../../store/signal.js";

/**
 * @typedef {object} DeviceSession
 * @property {string} session_id
 * @property {string | null} device_name
 * @property {string} user_agent
 * @property {string} address
 * @property {string} created_at
 * @property {string} last_seen_at
 * @property {boolean} is_current
 */

const PAGE = 50;

export class Page extends Part {
  isBusy = signal(false);
  /** @type {Paged<DeviceSession>} */
  sessions = new Paged(async (cursor) => {
    const query = { limit: PAGE, cursor };
    const { sessions, next_cursor } = await app.client.ask("GET", "/v1/auth/sessions", { query });
    return { items: sessions, next_cursor };
  });

  build() {
    const { items } = this.sessions;
    void this.sessions.load();
    return [
      h("p", null, t("settings.devicesHint")),
      h(
        "ul",
        { class: "rows" },
        each(
          () => items.value,
          (one) => one.session_id,
          (one) => this.row(one),
        ),
      ),
      footOf(this.sessions, t("settings.noDevices")),
      when(
        () => items.value.length > 1,
        () =>
          h(
            "footer",
            { class: "form-foot" },
            h(
              "button",
              { type: "button", disabled: () => this.isBusy.value, onclick: () => this.endOthers() },
              t("settings.endOthers"),
            ),
          ),
      ),
    ];
  }

  /** @param {() => DeviceSession} one */
  row(one) {
    const { is_current } = one();
    return h(
      "li",
      { class: "row" },
      h(
        "div",
        { class: "row-text" },
        h("strong", null, () => nameOf(one())),
        is_current ? h("small", { class: "mark" }, t("settings.thisDevice")) : null,
        h("small", null, () => t("settings.seen", { when: ago(one().last_seen_at), address: one().address })),
      ),
      h(
        "div",
        { class: "row-actions" },
        h(
          "button",
          {
            type: "button",
            onclick: () => this.rename(one()),
            "aria-label": () => t("settings.renameThe", { name: nameOf(one()) }),
          },
          t("settings.rename"),
        ),
        is_current
          ? null
          : h(
              "button",
              {
                type: "button",
                onclick: () => this.end(one()),
                "aria-label": () => t("settings.endThe", { name: nameOf(one()) }),
              },
              t("settings.end"),
            ),
      ),
    );
  }

  /** @param {DeviceSession} session */
  async rename(session) {
    await openDialog(t("settings.rename"), (close) =>
      form(
        {
          action: t("common.save"),
          run: async (given) => {
            const body = { device_name: given.device_name };
            await app.client.ask("PATCH", `/v1/auth/sessions/${session.session_id}`, { body });
            close();
            await this.sessions.load();
          },
        },
        field(t("settings.deviceName"), {
          name: "device_name",
          value: nameOf(session),
          required: true,
          maxlength: 100,
        }),
      ),
    );
  }

  /** @param {DeviceSession} session */
  async end(session) {
    const isSure = await confirm({
      title: t("settings.endThe", { name: nameOf(session) }),
      text: t("settings.endHint"),
      action: t("settings.end"),
      isDanger: true,
    });
    if (isSure) await this.endAll([session]);
  }

  async endOthers() {
    const isSure = await confirm({
      title: t("settings.endOthers"),
      text: t("settings.endOthersHint"),
      action: t("settings.endOthers"),
      isDanger: true,
    });
    if (!isSure) return;
    while (this.sessions.hasMore.peek() && !this.sessions.error.peek()) await this.sessions.more();
    await this.endAll(this.sessions.items.peek().filter((each) => !each.is_current));
  }

  /** @param {DeviceSession[]} ended */
  async endAll(ended) {
    this.isBusy.value = true;
    try {
      for (const { session_id } of ended) await app.client.ask("DELETE", `/v1/auth/sessions/${session_id}`);
      toast(t("settings.ended", { count: ended.length }));
    } catch (error) {
      toast(refused(error));
    } finally {
      this.isBusy.value = false;
      await this.sessions.load();
    }
  }
}

/** @param {DeviceSession} session */
function nameOf({ device_name, user_agent }) {
  return device_name ?? (user_agent ? deviceName(user_agent) : t("settings.unnamed"));
}

customElements.define("sc-settings-devices", Page);
