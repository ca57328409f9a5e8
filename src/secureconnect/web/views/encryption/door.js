// Small and always there: who wants to compare pictures is let in, and then the rest is loaded.

import { app } from "../../app.js";
import { loadTexts, refused, t } from "../../i18n/index.js";
import { openDialog } from "../../parts/dialog.js";
import { h, part } from "../../parts/dom.js";
import { sheet } from "../../parts/sheet.js";
import { toast } from "../../parts/toast.js";
import { effect } from "../../store/signal.js";
import { known } from "../people.js";

const MOST_SHOWN = 100;

/** What views of encryption need, loaded once. */
export function loadEncryption() {
  return Promise.all([import("./verify.js"), loadTexts("encryption", "sas", "signin"), sheet("encryption")]);
}

/**
 * The keys of a person, and comparing with them.
 * @param {string} userId
 */
export async function showKeys(userId) {
  try {
    const [crypto] = await Promise.all([app.mine.secrecy.crypto(), loadEncryption()]);
    const { PersonKeys } = await import("./person.js");
    await openDialog(known(userId), () => part(PersonKeys, { crypto, userId }));
  } catch (error) {
    toast(refused(error));
  }
}

/** This browser has lost its keys: it becomes another device, and what waits to be sent stays. */
export async function beginAnew() {
  const [{ form, passwordField, whose }] = await Promise.all([
    import("../../parts/form.js"),
    loadEncryption(),
    loadTexts("form", "settings"),
    sheet("form"),
  ]);
  const action = t("encryption.beginAnew");
  const run = (/** @type {Record<string, string>} */ { password, totp_code }) =>
    app.session.signInAnew(totp_code ? { password, totp_code } : { password });
  await openDialog(action, () => [
    h("p", null, t("encryption.lostExplained")),
    form(
      { action, run },
      whose(app.state.me.peek()?.username),
      passwordField(t("settings.yourPassword"), { name: "password", autocomplete: "current-password" }),
    ),
  ]);
}

/** What would be lost by signing out, said before. */
async function unsavedKeys() {
  const { secrecy } = app.mine;
  const [crypto] = await Promise.all([secrecy.crypto(), loadTexts("encryption")]);
  return (await crypto.isBackedUp()) ? null : t("encryption.notBackedUp");
}

/** Follows whoever is signed in, for as long as the page lives. */
export function openEncryptionDoor() {
  app.losses.add(() => unsavedKeys().catch(() => null)); // without encryption there are no keys to lose
  /** @type {Set<string>} */
  const shown = new Set();
  effect(() => {
    const secrecy = app.account.value?.secrecy;
    for (const flow of secrecy?.flows.value ?? []) {
      if (flow.weStarted || flow.phase !== "requested" || shown.has(flow.flowId)) continue;
      if (shown.size < MOST_SHOWN) shown.add(flow.flowId);
      void show(/** @type {NonNullable<typeof secrecy>} */ (secrecy), flow);
    }
  });
}

/**
 * @param {import("../../crypto/secrecy.js").Secrecy} secrecy
 * @param {import("../../crypto/index.js").Flow} flow
 */
async function show(secrecy, flow) {
  const [[{ showFlow }], crypto] = await Promise.all([loadEncryption(), secrecy.crypto()]);
  await showFlow(crypto, flow);
  secrecy.dismiss(flow.flowId);
}
