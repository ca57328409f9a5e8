// Plays and saves what was recorded of a call. What is encrypted is fetched whole, and opened and checked here.

import { app } from "../../app.js";
import { Unreachable } from "../../api/client.js";
import { h, when } from "../../parts/dom.js";
import { moment, refused, t } from "../../i18n/index.js";
import { recordedIn } from "../../store/attachments.js";
import { onEnd, scope, signal } from "../../store/signal.js";
import { messageOf } from "../../call/recorded.js";
import { modal } from "./modal.js";
import { nameOf } from "./names.js";

/** @import { RecordingShape } from "../../call/types.js" */
/** @import { FileKey } from "../../store/types.js" */
/** @import { Recorded } from "../../store/attachments.js" */

const SAVED_WITHIN_MS = 60_000; // the browser has taken over what it saves

/** @param {RecordingShape} recording */
export function titleOf({ started_at, recorded_by }) {
  return t("call.recordingOf", { time: moment(started_at), name: nameOf(recorded_by) });
}

/**
 * One of which a message tells. Throws what there is instead.
 * @param {Recorded} recorded
 * @param {string} by the sender: nobody else tells keys of what one has recorded
 */
export async function playTold({ recording_id, call_id, key }, by) {
  const { recordings } = await app.client.ask("GET", `/v1/calls/${call_id}/recordings`);
  const recording = /** @type {RecordingShape[]} */ (recordings).find(
    (each) => each.recording_id === recording_id && each.recorded_by === by,
  );
  if (!recording || recording.state === "dropped") throw { code: "RECORDING_GONE" };
  if (recording.file_id === null) throw { code: "RECORDING_UNFINISHED" };
  play(recording, key);
}

/**
 * @param {RecordingShape} recording finished
 * @param {FileKey | null} [key] if it is known
 */
export function play(recording, key = null) {
  const [dialog, end] = scope(() => player(recording, key, () => close()));
  const close = () => {
    dialog.remove();
    end();
  };
  document.body.append(dialog);
}

/**
 * @param {RecordingShape} recording
 * @param {FileKey | null} key
 * @param {() => void} close
 */
function player(recording, key, close) {
  const src = signal("");
  const note = signal(recording.is_encrypted ? t("call.openingRecording") : "");
  const ended = new AbortController();
  onEnd(() => ended.abort());
  contentOf(recording, key, ended.signal).then(
    ({ address, isWhole }) => {
      src.value = address;
      note.value = isWhole ? "" : t("call.endMissing");
    },
    (error) => (note.value = refused(error)),
  );
  return modal(
    { label: titleOf(recording), class: "call-player", close },
    h("p", { role: "status", hidden: () => !note.value }, () => note.value),
    when(
      () => src.value,
      () =>
        h("video", {
          src: src.peek(),
          controls: true,
          autoplay: true,
          playsinline: true,
          onerror: () => (note.value = t("call.notPlayed")),
        }),
    ),
    h("button", { type: "button", onclick: close }, t("call.close")),
  );
}

/** The browser saves it. @param {RecordingShape} recording finished */
export async function save(recording) {
  const ended = new AbortController();
  const { address } = await contentOf(recording, null, ended.signal);
  const name = `${t("call.recordingName")} ${recording.started_at.slice(0, 10)}.webm`;
  h("a", { href: address, download: recording.is_encrypted ? name : "" }).click();
  setTimeout(() => ended.abort(), SAVED_WITHIN_MS);
}

/**
 * An address for the browser, good until the signal.
 * @param {RecordingShape} recording
 * @param {FileKey | null} key
 * @param {AbortSignal} ended
 * @returns {Promise<{ address: string, isWhole: boolean }>} isWhole: of what is encrypted one sees whether it ends early
 */
async function contentOf(recording, key, ended) {
  const { call_id, recording_id, is_encrypted, media_type } = recording;
  const found = is_encrypted ? (key ?? (await keyOf(recording))) : null;
  const path = `/v1/calls/${call_id}/recordings/${recording_id}/download-url`;
  const { download_url } = await app.client.ask("GET", path);
  if (found === null) return { address: new URL(download_url, location.href).href, isWhole: true };
  const { openedRecording } = await import("../../crypto/recordings.js");
  const answer = await fetch(download_url, { credentials: "omit", cache: "no-store", signal: ended }).catch(
    () => null,
  );
  if (!answer?.ok || !answer.body) throw new Unreachable();
  const { blob, isWhole } = await openedRecording(answer.body, found, media_type);
  const address = URL.createObjectURL(blob);
  const revoke = () => URL.revokeObjectURL(address);
  if (ended.aborted) revoke();
  ended.addEventListener("abort", revoke);
  return { address, isWhole };
}

/**
 * @param {RecordingShape} recording
 * @returns {Promise<FileKey>}
 */
async function keyOf(recording) {
  const { conversation_id, recording_id } = recording;
  const read = (/** @type {Record<string, string | number>} */ query) =>
    app.client.ask("GET", "/v1/messages", { query: { conversation_id, ...query } });
  const lastSeq = app.state.conversations.peek(conversation_id)?.last_seq ?? 0;
  const message = await messageOf(read, recording, lastSeq);
  const opened = message && (await app.mine.secrecy.open(message));
  const told = opened && "payload" in opened ? recordedIn(opened.payload.recording) : null;
  if (told?.recording_id !== recording_id) throw { code: "RECORDING_KEY_MISSING" };
  return told.key;
}
