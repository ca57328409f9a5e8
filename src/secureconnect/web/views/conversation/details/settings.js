// What holds for everybody in a conversation. Who may not change it sees how it is.

import { app } from "../../../app.js";
import { t } from "../../../i18n/index.js";
import { confirm } from "../../../parts/dialog.js";
import { h, when } from "../../../parts/dom.js";
import { icon } from "../../../parts/icons.js";
import { signal } from "../../../store/signal.js";
import { attempt } from "./members.js";
import { may } from "../talk.js";

/**
 * @typedef {import("../../../store/types.js").Conversation} Conversation
 * @typedef {import("../../../store/types.js").Settings} Settings
 */

const DAY_S = 86_400;
const DISAPPEAR_S = [0, 300, 3_600, DAY_S, 7 * DAY_S, 28 * DAY_S];
const RETENTION_DAYS = [0, 7, 30, 90, 365];

/** @param {() => Conversation} conversation */
export function settings(conversation) {
  const error = signal("");
  const now = () => conversation().settings;
  const isFixed = () => !may(conversation(), "configure");
  const set = (/** @type {Partial<Settings>} */ body) =>
    attempt(error, async () => {
      const id = conversation().conversation_id;
      const told = await app.client.ask("PUT", `/v1/conversations/${id}/settings`, { body });
      app.state.conversations.change(id, (held) => ({ ...held, settings: told.settings ?? told }));
    });
  return h(
    "section",
    { class: "details-part" },
    h("h3", null, t("details.settings")),
    h("p", { class: "problem", role: "alert", hidden: () => !error.value }, () => error.value),
    when(
      () => isFixed(),
      () => h("small", null, t("details.settingsFixed")),
    ),
    encryption(conversation, isFixed, set),
    choice(
      "details.disappear",
      DISAPPEAR_S,
      isFixed,
      () => now().disappear_after_s ?? 0,
      timeText,
      (value) => set({ disappear_after_s: value }),
    ),
    choice(
      "details.retention",
      RETENTION_DAYS,
      isFixed,
      () => now().message_retention_days ?? 0,
      dayText,
      (value) => set({ message_retention_days: value }),
    ),
    conversation().type === "group"
      ? toggle(
          "details.history",
          isFixed,
          () => now().history_visible,
          (value) => set({ history_visible: value }),
        )
      : null,
    toggle(
      "details.recording",
      isFixed,
      () => now().recording_enabled,
      (value) => set({ recording_enabled: value }),
    ),
  );
}

/**
 * @param {() => Conversation} conversation
 * @param {() => boolean} isFixed
 * @param {(body: Partial<Settings>) => Promise<void>} set
 */
function encryption(conversation, isFixed, set) {
  void app.learnEncryption();
  const begin = async () => {
    const what = { title: t("details.encrypt"), text: t("details.encryptSays") };
    if (await confirm({ ...what, action: t("details.encrypt") })) await set({ is_e2ee_enabled: true });
  };
  return when(
    () => conversation().settings.is_e2ee_enabled,
    () => h("p", { class: "with-icon" }, icon("lock"), t("details.encrypted")),
    () =>
      when(
        () => !isFixed() && app.canEncrypt.value,
        () => h("button", { onclick: () => void begin() }, icon("lock"), t("details.encrypt")),
      ),
  );
}

/**
 * @param {string} key of its text
 * @param {() => boolean} isFixed
 * @param {() => boolean | undefined} now
 * @param {(value: boolean) => Promise<void>} set
 */
function toggle(key, isFixed, now, set) {
  return h(
    "label",
    { class: "switch" },
    h("input", {
      type: "checkbox",
      checked: () => now() ?? false,
      disabled: isFixed,
      onchange: async (/** @type {any} */ { target }) => {
        await set(target.checked);
        target.checked = now() ?? false;
      },
    }),
    h("span", null, t(key), h("small", null, t(`${key}Says`))),
  );
}

/**
 * @param {string} key
 * @param {readonly number[]} values
 * @param {() => boolean} isFixed
 * @param {() => number} now
 * @param {(value: number) => string} text
 * @param {(value: number) => Promise<void>} set
 */
function choice(key, values, isFixed, now, text, set) {
  // somebody else's client may have set what is not among ours
  const all = () => [...new Set([...values, now()])].sort((one, other) => one - other);
  const select = h(
    "select",
    {
      disabled: isFixed,
      onchange: async () => {
        await set(Number(select.value));
        select.value = String(now());
      },
    },
    () => all().map((each) => h("option", { value: each, selected: each === now() }, text(each))),
  );
  return h("label", { class: "field" }, h("span", null, t(key)), select);
}

/** @param {number} seconds */
function timeText(seconds) {
  if (seconds === 0) return t("details.never");
  if (seconds % DAY_S === 0) return t("details.days", { count: seconds / DAY_S });
  if (seconds % 3_600 === 0) return t("details.hours", { count: seconds / 3_600 });
  return t("details.minutes", { count: Math.round(seconds / 60) });
}

/** @param {number} days */
function dayText(days) {
  return days === 0 ? t("details.asServer") : t("details.days", { count: days });
}
