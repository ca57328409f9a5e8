// Two people, or two devices of one, compare seven pictures: whoever sees the same has nobody between them.

import { refused, t } from "../../i18n/index.js";
import { openDialog } from "../../parts/dialog.js";
import { h } from "../../parts/dom.js";
import { icon } from "../../parts/icons.js";
import { onEnd, signal } from "../../store/signal.js";
import { known } from "../people.js";

/**
 * @typedef {import("../../crypto/index.js").Crypto} Crypto
 * @typedef {import("../../crypto/index.js").Flow} Flow
 */

/**
 * Ask somebody, or another device of one's own, and show what comes of it.
 * @param {Crypto} crypto
 * @param {string} userId
 * @param {string | null} [deviceId] null: whichever answers
 */
export async function verify(crypto, userId, deviceId = null) {
  await showFlow(crypto, await crypto.verification.begin(userId, deviceId));
}

/**
 * Somebody asks.
 * @param {Crypto} crypto
 * @param {Flow} first
 */
export async function showFlow(crypto, first) {
  const { verification } = crypto;
  const flow = signal(first);
  const error = signal("");
  const act = (/** @type {Promise<void>} */ done) => {
    error.value = "";
    done.catch((problem) => (error.value = refused(problem)));
  };
  const who = first.isSelf ? t("encryption.yourOtherDevice") : known(first.userId);
  await openDialog(t("encryption.verifyTitle", { name: who }), (close) => {
    onEnd(crypto.on("verification", (next) => next.flowId === first.flowId && (flow.value = next)));
    onEnd(() => {
      const { phase, flowId } = flow.peek();
      if (phase !== "done" && phase !== "cancelled") void verification.cancel(flowId).catch(() => {});
    });
    return h(
      "div",
      { class: "verify" },
      h("p", { class: "problem", role: "alert", hidden: () => !error.value }, () => error.value),
      h("div", { "aria-live": "polite" }, () => stepOf(flow.value, who, verification, act, () => close())),
    );
  });
}

/**
 * @param {Flow} flow
 * @param {string} who
 * @param {Crypto["verification"]} verification
 * @param {(done: Promise<void>) => void} act
 * @param {() => void} close
 */
function stepOf({ flowId, phase, weStarted, emojis, cancelled }, who, verification, act, close) {
  switch (phase) {
    case "requested":
      if (weStarted) return h("p", null, t("encryption.askedThem", { name: who }));
      return [
        h("p", null, t("encryption.theyAsk", { name: who })),
        h(
          "footer",
          { class: "dialog-foot" },
          h("button", { onclick: close }, t("encryption.notNow")),
          h(
            "button",
            { class: "primary", onclick: () => act(verification.accept(flowId)) },
            t("encryption.compare"),
          ),
        ),
      ];
    case "compare":
      return [
        h("p", null, t("encryption.compareExplained", { name: who })),
        h(
          "ol",
          { class: "sas" },
          (emojis ?? []).map(({ index, symbol }) =>
            h(
              "li",
              null,
              h("span", { class: "sas-symbol", "aria-hidden": "true" }, symbol),
              h("span", null, t(`sas.${index}`)),
            ),
          ),
        ),
        h(
          "footer",
          { class: "dialog-foot" },
          h(
            "button",
            { class: "danger", onclick: () => act(verification.cancel(flowId, true)) },
            t("encryption.different"),
          ),
          h(
            "button",
            { class: "primary", onclick: () => act(verification.confirm(flowId)) },
            t("encryption.same"),
          ),
        ),
      ];
    case "done":
      return [
        h("p", { class: "verified" }, icon("shield"), t("encryption.verifiedNow", { name: who })),
        h("button", { class: "primary", onclick: close }, t("common.close")),
      ];
    case "cancelled":
      return [
        h("p", null, t(`encryption.ended.${endOf(cancelled?.code)}`)),
        h("button", { onclick: close }, t("common.close")),
      ];
    default:
      return h("p", { "aria-busy": "true" }, t("encryption.waitFor", { name: who }));
  }
}

/** @param {string | undefined} code */
function endOf(code) {
  if (code === "m.mismatched_sas") return "mismatch";
  if (code === "m.timeout") return "timeout";
  return code === "m.accepted" ? "elsewhere" : "cancelled";
}
