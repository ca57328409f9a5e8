// Content on its way to the address that was given for it, which may be one of the server or of the store beside it.
// XMLHttpRequest, for `fetch` does not tell how much has gone out.

import { Refusal, Unreachable } from "./client.js";

const SILENCE_MS = 60_000; // in which nothing has moved: given up

/**
 * Returns when it has arrived. Throws Refusal, Unreachable, or the reason of the signal.
 * @param {string} url
 * @param {Blob} content
 * @param {{ signal: AbortSignal, told: (bytes: number) => void }} how told: how much has gone out so far
 * @returns {Promise<void>}
 */
export function put(url, content, { signal, told }) {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const request = new XMLHttpRequest();
    let timer = 0;
    const listening = new AbortController();
    const end = (/** @type {() => void} */ settle) => {
      clearTimeout(timer);
      listening.abort();
      settle();
    };
    const giveUp = () => {
      request.abort();
      end(() => reject(signal.aborted ? signal.reason : new Unreachable()));
    };
    const moved = () => {
      clearTimeout(timer);
      timer = setTimeout(giveUp, SILENCE_MS);
    };
    request.upload.onprogress = ({ loaded }) => {
      moved();
      told(loaded);
    };
    request.onload = () => end(() => (request.status < 300 ? resolve() : reject(refusalOf(request))));
    request.onerror = () => end(() => reject(new Unreachable()));
    signal.addEventListener("abort", giveUp, { signal: listening.signal });
    request.open("PUT", new URL(url, location.origin));
    moved();
    request.send(content.slice(0, content.size, "")); // without a type of its own, which a store might be told to sign
  });
}

/** @param {XMLHttpRequest} request */
function refusalOf(request) {
  const wait = Number(request.getResponseHeader("retry-after"));
  return new Refusal(request.status, errorOf(request.responseText), wait > 0 ? wait : null);
}

/**
 * @param {string} text of the server as JSON, of a store as XML, of which nothing is needed
 * @returns {{ code?: string, message?: string }}
 */
function errorOf(text) {
  try {
    return JSON.parse(text).error ?? {};
  } catch {
    return {};
  }
}

/**
 * @param {number} ms
 * @param {AbortSignal} signal
 * @returns {Promise<void>}
 */
export function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, ms);
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    signal.addEventListener("abort", stop, { once: true });
  });
}
