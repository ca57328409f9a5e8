// Where the key of a recording is: in the message in which its recorder told it to the conversation.

/** @import { RecordingShape } from "./types.js" */
/** @import { Message } from "../store/types.js" */

const PAGE = 100;
const MOST_PAGES = 5; // behind the moment the recording began, in which its message came
const MARGIN_MS = 60_000; // between the clocks of two nodes

/** @typedef {(query: Record<string, string | number>) => Promise<{ messages: Message[] }>} Read */

/**
 * @param {Read} read messages of its conversation
 * @param {RecordingShape} recording
 * @param {number} lastSeq of the conversation
 * @returns {Promise<Message | null>} null: it was deleted, or is from before one came
 */
export async function messageOf(read, { recording_id, recorded_by, begun_at }, lastSeq) {
  let after = (await firstSince(read, Date.parse(begun_at ?? "") - MARGIN_MS, lastSeq)) - 1;
  for (let page = 0; page < MOST_PAGES; page += 1) {
    const { messages } = await read({ after_seq: after, limit: PAGE });
    const found = messages.find(
      (each) => each.client_message_id === recording_id && each.sender_id === recorded_by,
    );
    if (found) return found.deleted_at ? null : found;
    if (messages.length < PAGE) return null;
    after = messages[messages.length - 1].seq ?? Infinity;
  }
  return null;
}

/**
 * Halving what it may be: conversations are long.
 * @param {Read} read
 * @param {number} since in ms
 * @param {number} lastSeq
 */
async function firstSince(read, since, lastSeq) {
  let [low, high] = [1, lastSeq + 1];
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    const [message] = (await read({ after_seq: middle - 1, limit: 1 })).messages;
    if (!message || Date.parse(message.sent_at) >= since) high = middle;
    else low = (message.seq ?? middle) + 1;
  }
  return low;
}
