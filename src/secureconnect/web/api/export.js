// Everything the server holds of one, as a zip file.

import { Refusal, Unreachable } from "./client.js";

/**
 * It is made while it is sent: nobody knows how long it will be. Throws Refusal, Unreachable, SignedOut, or an AbortError
 * of `signal`.
 * @param {import("./session.js").Session} session
 * @param {(count: number) => void} tell of the bytes that have come so far
 * @param {AbortSignal} signal
 * @returns {Promise<Blob>}
 */
export async function exported(session, tell, signal) {
  const headers = { Authorization: `Bearer ${await session.token()}` };
  try {
    const answer = await fetch("/v1/users/me/export", { headers, signal, cache: "no-store" });
    if (!answer.ok) throw new Refusal(answer.status, (await answer.json()).error ?? {}, null);
    if (answer.body === null) throw new Unreachable();
    let count = 0;
    const counted = new TransformStream({
      transform(chunk, onwards) {
        count += chunk.byteLength;
        tell(count);
        onwards.enqueue(chunk);
      },
    });
    return await new Response(answer.body.pipeThrough(counted), {
      headers: { "Content-Type": "application/zip" },
    }).blob();
  } catch (error) {
    if (error instanceof Refusal || signal.aborted) throw error;
    throw new Unreachable(); // or it broke off: an archive without an end does not open
  }
}
