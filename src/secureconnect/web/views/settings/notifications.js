// What one wants to know at once, what later, and when to be left alone.

import { app } from "../../app.js";
import { refused, t } from "../../i18n/index.js";
import { h, Part, when } from "../../parts/dom.js";
import { choiceField, field, form, switchField } from "../../parts/form.js";
import { toast } from "../../parts/toast.js";
import { signal } from "../../store/signal.js";
import { section, told } from "./page.js";

/**
 * @typedef {object} Preferences
 * @property {Record<string, string>} kinds
 * @property {{ start: string, end: string, time_zone: string } | null} quiet_hours
 * @property {string} groups
 * @property {string} calls
 */

const PREFERENCES = "/v1/notifications/preferences";
const KINDS = ["message", "mention", "reply", "reaction", "added", "missed_call", "announcement"];
const WAYS = ["push", "list", "off"];
const GROUPS = ["all", "mentions"];
const CALLS = ["outside_quiet_hours", "always", "never"];
const NIGHT = { start: "22:00", end: "07:00" };

export class Page extends Part {
  build() {
    return [thisDevice(), told(() => app.client.ask("GET", PREFERENCES), choices)];
  }
}

/** Whether this very browser is woken. */
function thisDevice() {
  const { device, state } = app;
  const error = signal("");
  const turn = async (/** @type {any} */ { target }) => {
    error.value = "";
    try {
      if (target.checked) await device.enablePush(state.server.peek()?.vapid_public_key ?? "");
      else await device.disablePush();
    } catch (problem) {
      error.value = refused(problem);
    }
    target.checked = device.push.peek() === "on";
  };
  const alert = async (/** @type {any} */ { target }) => {
    await device.chooseAlerts(target.checked);
    target.checked = device.alerts.peek() === "on";
  };
  const isPossible = () =>
    ["on", "off"].includes(device.push.value) && Boolean(state.server.value?.vapid_public_key);
  return section(
    t("settings.thisDevice"),
    when(
      () => ["on", "off"].includes(device.alerts.value),
      () =>
        switchField(
          t("settings.alertMe"),
          { checked: () => device.alerts.value === "on", onchange: alert },
          t("settings.alertHint"),
        ),
    ),
    when(
      isPossible,
      () => switchField(t("settings.wakeMe"), { checked: () => device.push.value === "on", onchange: turn }),
      () =>
        h("p", null, t(device.alerts.value === "denied" ? "settings.pushDenied" : "settings.pushMissing")),
    ),
    h("p", { class: "problem", role: "alert", hidden: () => !error.value }, () => error.value),
  );
}

/** @param {Preferences} now */
function choices({ kinds, quiet_hours, groups, calls }) {
  const isQuiet = signal(quiet_hours !== null);
  const zone = quiet_hours?.time_zone ?? Intl.DateTimeFormat().resolvedOptions().timeZone;
  const run = async (/** @type {any} */ given) => {
    const { start, end } = given;
    const body = {
      kinds: Object.fromEntries(KINDS.map((kind) => [kind, given[kind]])),
      quiet_hours: isQuiet.peek() ? { start, end, time_zone: zone } : null,
      groups: given.groups,
      calls: given.calls,
    };
    await app.client.ask("PUT", PREFERENCES, { body });
    toast(t("settings.saved"));
  };
  const ways = WAYS.map((way) => /** @type {[string, string]} */ ([way, t(`settings.way.${way}`)]));
  return form(
    { action: t("common.save"), run },
    section(
      t("settings.kinds"),
      h("p", null, h("small", null, t("settings.kindsHint"))),
      h(
        "div",
        { class: "kinds" },
        KINDS.map((kind) =>
          choiceField(t(`settings.kind.${kind}`), { name: kind, value: kinds[kind] }, ways),
        ),
      ),
    ),
    section(
      t("settings.devicesWoken"),
      choiceField(
        t("settings.groups"),
        { name: "groups", value: groups },
        GROUPS.map((each) => [each, t(`settings.groups.${each}`)]),
      ),
      choiceField(
        t("settings.calls"),
        { name: "calls", value: calls },
        CALLS.map((each) => [each, t(`settings.calls.${each}`)]),
      ),
    ),
    section(
      t("settings.quietHours"),
      switchField(
        t("settings.quietOn"),
        {
          checked: isQuiet.peek(),
          onchange: (/** @type {any} */ { target }) => (isQuiet.value = target.checked),
        },
        t("settings.quietHint"),
      ),
      when(
        () => isQuiet.value,
        () =>
          h(
            "div",
            { class: "kinds" },
            field(t("settings.from"), {
              name: "start",
              type: "time",
              required: true,
              value: quiet_hours?.start ?? NIGHT.start,
            }),
            field(t("settings.to"), {
              name: "end",
              type: "time",
              required: true,
              value: quiet_hours?.end ?? NIGHT.end,
            }),
            h("small", null, t("settings.zone", { zone })),
          ),
      ),
    ),
  );
}

customElements.define("sc-settings-notifications", Page);
