// What was recorded of the calls of a conversation, in its details.

import { app } from "../../app.js";
import { each, h, Part, when } from "../../parts/dom.js";
import { bytes, duration, refused, t } from "../../i18n/index.js";
import { signal } from "../../store/signal.js";
import { isModerator } from "./names.js";
import { play, save, titleOf } from "./player.js";

/** @import { CallShape, RecordingShape } from "../../call/types.js" */

const LATEST_CALLS = 30;
const AT_ONCE = 4;
const STATES = /** @type {Record<string, string>} */ ({
  asking: "call.recordingNow",
  recording: "call.recordingNow",
  stopped: "call.recordingFinishing",
  finishing: "call.recordingFinishing",
  partial: "call.recordingPartial",
});

export class Recordings extends Part {
  conversationId = "";

  build() {
    const list = signal(/** @type {RecordingShape[] | null} */ (null));
    const problem = signal("");
    const attempt = async (/** @type {() => Promise<unknown>} */ work) => {
      problem.value = "";
      try {
        await work();
      } catch (error) {
        problem.value = refused(error);
      }
    };
    const look = () => attempt(async () => (list.value = await recordingsOf(this.conversationId)));
    look();
    return h(
      "section",
      { class: "call-recordings", "aria-label": t("call.recordings") },
      h("h3", null, t("call.recordings")),
      h("p", { class: "problem", role: "alert", hidden: () => !problem.value }, () => problem.value),
      when(
        () => list.value?.length === 0,
        () => h("p", null, t("call.noRecordings")),
      ),
      h(
        "ul",
        null,
        each(
          () => list.value ?? [],
          (recording) => recording.recording_id,
          (recording) => row(recording, attempt, look),
        ),
      ),
    );
  }
}

/**
 * @param {() => RecordingShape} recording
 * @param {(work: () => Promise<unknown>) => Promise<void>} attempt
 * @param {() => void} look
 */
function row(recording, attempt, look) {
  const { recording_id, recorded_by, call_id, conversation_id } = recording();
  const path = `/v1/calls/${call_id}/recordings/${recording_id}`;
  const isKept = () => recording().file_id !== null;
  const mayDelete = recorded_by === app.session.userId || isModerator(conversation_id);
  return h(
    "li",
    null,
    h("p", null, titleOf(recording())),
    h("small", null, () => describe(recording())),
    h(
      "div",
      { class: "call-row" },
      when(isKept, () => [
        h("button", { type: "button", onclick: () => play(recording()) }, t("call.play")),
        h("button", { type: "button", onclick: () => attempt(() => save(recording())) }, t("call.download")),
      ]),
      when(
        () => mayDelete && isKept(),
        () =>
          h(
            "button",
            {
              type: "button",
              onclick: () => attempt(async () => (await app.client.ask("DELETE", path), look())),
            },
            t("call.delete"),
          ),
      ),
    ),
  );
}

/** @param {RecordingShape} recording */
function describe({ state, begun_at, ended_at, size_bytes, is_encrypted }) {
  const lasted =
    begun_at && ended_at ? (new Date(ended_at).getTime() - new Date(begun_at).getTime()) / 1000 : 0;
  const key = STATES[state];
  return [
    lasted && duration(lasted),
    size_bytes && bytes(size_bytes),
    key && t(key),
    is_encrypted && t("call.encrypted"),
  ]
    .filter(Boolean)
    .join(" · ");
}

/**
 * The newest first; of the latest calls, for each is asked by itself.
 * @param {string} conversationId
 * @returns {Promise<RecordingShape[]>}
 */
async function recordingsOf(conversationId) {
  const query = { conversation_id: conversationId, limit: LATEST_CALLS };
  const { calls } = await app.client.ask("GET", "/v1/calls", { query });
  const answered = calls.filter((/** @type {CallShape} */ call) => call.answered_at !== null);
  /** @type {RecordingShape[]} */
  const found = [];
  for (let first = 0; first < answered.length; first += AT_ONCE) {
    const some = answered.slice(first, first + AT_ONCE);
    const told = await Promise.all(
      some.map((/** @type {CallShape} */ { call_id }) =>
        app.client.ask("GET", `/v1/calls/${call_id}/recordings`),
      ),
    );
    found.push(...told.flatMap(({ recordings }) => recordings));
  }
  return found.filter(({ state }) => state !== "dropped");
}

customElements.define("sc-recordings", Recordings);
