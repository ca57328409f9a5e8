// All of calls that one sees, wherever one is in the page: what rings, what is about to begin, the call itself, and
// what became of it.

import { each, h, Part, part, when } from "../../parts/dom.js";
import { refused, t } from "../../i18n/index.js";
import { effect, signal } from "../../store/signal.js";
import { Media } from "../../call/media.js";
import { CallScreen } from "./screen.js";
import { Incoming } from "./incoming.js";
import { PreJoin } from "./prejoin.js";
import { nameOf, placeOf } from "./names.js";

/** @import { Calls, Wanted } from "../../call/calls.js" */

/** @typedef {{ text: string, again: Wanted | null }} Outcome again: what calling back is */

/** @type {Record<string, string>} by why the call is over */
const ENDED = {
  ended: "call.ended",
  unanswered: "call.unanswered",
  declined: "call.declined",
  busy: "call.busy",
  lost: "call.lost",
  elsewhere: "call.elsewhere",
};
const WORTH_ANOTHER = new Set(["unanswered", "declined", "busy", "lost"]);

export class Stage extends Part {
  calls = /** @type {Calls} */ (/** @type {unknown} */ (null)); // given

  build() {
    const { calls } = this;
    const outcome = signal(/** @type {Outcome | null} */ (null));
    const isEntering = signal(false);
    effect(() => this.#watch(outcome));
    effect(() => {
      const call = calls.missed.value;
      if (!call) return;
      calls.missed.value = null;
      const again = {
        conversationId: call.conversation_id,
        callId: null,
        withCamera: call.call_type === "video",
      };
      outcome.value = { text: t("call.missed", { name: nameOf(call.initiated_by) }), again };
    });

    const enter = async (/** @type {Wanted} */ wanted) => {
      if (isEntering.peek()) return;
      isEntering.value = true;
      outcome.value = null;
      const media = new Media();
      media.mute(wanted.isMuted === true);
      try {
        await media.open(wanted.withCamera);
        await calls.begin(wanted, media);
      } catch (error) {
        media.close();
        outcome.value = { text: refused(error), again: null };
      } finally {
        isEntering.value = false;
      }
    };

    return [
      each(
        () => (calls.incoming.value ? [calls.incoming.value] : []),
        (call) => call.call_id,
        (call) => {
          const record = call();
          const answer = (/** @type {boolean} */ withCamera) => {
            calls.silence();
            enter({ conversationId: record.conversation_id, callId: record.call_id, withCamera });
          };
          return part(Incoming, { calls, record, answer });
        },
      ),
      each(
        () => (calls.wanted.value ? [calls.wanted.value] : []),
        (wanted) => wanted.callId ?? wanted.conversationId,
        (wanted) => part(PreJoin, { calls, wanted: wanted() }),
      ),
      each(
        () => (calls.current.value ? [calls.current.value] : []),
        (call) => call.callId,
        (call) => part(CallScreen, { call: call() }),
      ),
      when(
        () => calls.left.value && !calls.current.value && !isEntering.value,
        () => comeBack(calls, enter),
      ),
      when(
        () => isEntering.value,
        () => h("div", { class: "call-note", role: "status" }, h("p", null, t("call.connecting"))),
      ),
      each(
        () => (outcome.value ? [outcome.value] : []),
        ({ text }) => text,
        (now) => this.#told(now(), () => (outcome.value = null)),
      ),
    ];
  }

  /**
   * What became of the call, once it is over.
   * @param {import("../../store/signal.js").Signal<Outcome | null>} outcome
   */
  #watch(outcome) {
    const { calls } = this;
    const call = calls.current.value;
    if (!call) return;
    outcome.value = null;
    if (!call.isOver.value) return;
    const why = call.end.peek() ?? "ended";
    const withCamera = call.record.peek().call_type === "video";
    const again = WORTH_ANOTHER.has(why)
      ? { conversationId: call.conversationId, callId: null, withCamera }
      : null;
    calls.clear();
    const name = placeOf(call.conversationId);
    if (why !== "own") outcome.value = { text: t(ENDED[why] ?? "call.ended", { name }), again };
  }

  /**
   * @param {Outcome} outcome
   * @param {() => void} close
   */
  #told({ text, again }, close) {
    const call = () => {
      close();
      if (again) this.calls.want(again);
    };
    return h(
      "div",
      { class: "call-note", role: "alert" },
      h("p", null, text),
      again && h("button", { type: "button", class: "primary", onclick: call }, t("call.callBack")),
      h("button", { type: "button", onclick: close }, t("call.close")),
    );
  }
}

/**
 * @param {Calls} calls
 * @param {(wanted: Wanted) => void} enter
 */
function comeBack(calls, enter) {
  const left = /** @type {Wanted} */ (calls.left.peek());
  return h(
    "div",
    { class: "call-note", role: "alert" },
    h("p", null, t("call.wasIn", { name: placeOf(left.conversationId) })),
    h("button", { type: "button", class: "primary", onclick: () => enter(left) }, t("call.return")),
    h("button", { type: "button", onclick: () => calls.leaveLeft() }, t("call.leave")),
  );
}

customElements.define("sc-calls", Stage);
