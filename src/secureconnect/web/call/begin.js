// How this device comes into a call.

import { newId } from "../api/ids.js";
import { batch } from "../store/signal.js";
import { Call } from "./call.js";

/** @import { Calls, Wanted } from "./calls.js" */
/** @import { JoinedCall } from "./types.js" */
/** @import { Media } from "./media.js" */

/**
 * As `Calls.begin`.
 * @param {Calls} calls
 * @param {Wanted} wanted
 * @param {Media} media
 * @param {AbortSignal} [cancelled]
 */
export async function begin(calls, wanted, media, cancelled) {
  const { ask, put, token, heldToken, userId, nameOf, connecting } = calls.given;
  const isUnwanted = () => cancelled?.aborted === true || calls.isClosed;
  const sealing = await sealingOf(calls, wanted.conversationId);
  if (isUnwanted()) return media.close();
  const joined = await enter(calls, wanted);
  if (isUnwanted()) {
    media.close();
    await ask("POST", `/v1/calls/${joined.call_id}/leave`).catch(() => {}); // its time runs out
    return;
  }
  const recording = { put, nameOf };
  const call = new Call({ ask, token, heldToken, joined, media, userId, sealing, connecting, recording });
  batch(() => {
    calls.note(joined.call);
    calls.wanted.value = null;
    calls.left.value = null;
    calls.current.value = call;
    if (calls.incoming.peek()?.call_id === call.callId) calls.hush();
  });
  if (joined.call.ended_at)
    call.heardOf(joined.call); // everybody was engaged
  else call.begin();
}

/**
 * @param {Calls} calls
 * @param {string} conversationId
 */
async function sealingOf({ given }, conversationId) {
  if (!(await given.isEncrypted(conversationId))) return null;
  const sealing = given.sealing(conversationId);
  if (sealing === null)
    throw Object.assign(new Error("this page cannot encrypt"), { code: "ENCRYPTION_MISSING" });
  await sealing.ready();
  return sealing;
}

/**
 * `CALL_UNDER_WAY` turns into coming to that one.
 * @param {Calls} calls
 * @param {Wanted} wanted
 * @returns {Promise<JoinedCall>}
 */
async function enter({ given: { ask } }, { conversationId, callId, withCamera, calleeIds }) {
  if (callId) return ask("POST", `/v1/calls/${callId}/join`);
  const call_type = withCamera ? "video" : "audio";
  const body = { conversation_id: conversationId, call_type, callee_ids: calleeIds };
  try {
    return await ask("POST", "/v1/calls/initiate", { body, idempotencyKey: newId() });
  } catch (error) {
    const { code, details } = /** @type {{ code?: string, details?: Record<string, string> }} */ (error);
    if (code !== "CALL_UNDER_WAY" || !details?.call_id) throw error;
    return ask("POST", `/v1/calls/${details.call_id}/join`);
  }
}
