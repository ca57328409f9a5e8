// Signing out: what is kept in this browser goes with it, so one is told what would be lost.

import { app } from "../../app.js";
import { t } from "../../i18n/index.js";
import { openDialog } from "../../parts/dialog.js";
import { h, when } from "../../parts/dom.js";
import { form, switchField } from "../../parts/form.js";
import { signal } from "../../store/signal.js";

/** Asks, and does it. */
export async function leave() {
  const waiting = app.mine.outbox.entries.peek().length;
  const losses = (await Promise.all([...app.losses].map((ask) => ask()))).filter((each) => each !== null);
  if (app.mine.calls.hasUnsent()) losses.unshift(t("settings.unsentRecording"));
  if (waiting) losses.unshift(t("settings.unsent", { count: waiting }));
  const isCutOff = signal(false);
  await openDialog(t("settings.signOut"), (close) => {
    const run = async (/** @type {any} */ given) => {
      try {
        await app.session.signOut(given.everywhere ? "logout-all" : "logout");
      } catch (error) {
        isCutOff.value = true;
        throw error;
      }
      close();
    };
    const leaveHere = () => {
      close();
      app.session.leave();
    };
    return [
      h("p", null, t("settings.signOutHint")),
      losses.map((loss) => h("p", { class: "problem" }, loss)),
      form(
        { action: t("settings.signOut"), run, isDanger: losses.length > 0 },
        switchField(t("settings.everywhere"), { name: "everywhere" }),
      ),
      when(
        () => isCutOff.value,
        () => [
          h("p", null, t("settings.cutOff")),
          h("button", { type: "button", onclick: leaveHere }, t("settings.leaveHere")),
        ],
      ),
    ];
  });
}
