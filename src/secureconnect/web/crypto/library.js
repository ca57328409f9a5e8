// The library of Olm and Megolm (WebAssembly), and what becomes of it when it breaks.
//
// A panic in WebAssembly leaves the memory of the module in an unknown state: nothing of it may be used again, and
// some of its promises never end. So whatever waits for it is rejected at once, and a fresh instance is loaded.

import { Problem } from "./problem.js";

/** @typedef {typeof import("../vendor/matrix-sdk-crypto-wasm/pkg/matrix_sdk_crypto_wasm.js")} Library */

const FOLDER = new URL("../vendor/matrix-sdk-crypto-wasm/pkg/", import.meta.url);
const SIGNS = /recursive use of an object|unreachable|memory access out of bounds|already borrowed/;

let loaded = 0;

/**
 * A fresh instance: what broke the one before is not in it.
 * @returns {Promise<Library>}
 */
export async function load() {
  const query = loaded++ === 0 ? "" : `?${loaded}`; // a module of another address is another module
  const url = new URL("matrix_sdk_crypto_wasm_bg.wasm", FOLDER);
  try {
    const glue = await import(new URL(`matrix_sdk_crypto_wasm_bg.js${query}`, FOLDER).href);
    const { instance } = await WebAssembly.instantiateStreaming(fetch(url), {
      "./matrix_sdk_crypto_wasm_bg.js": glue,
    });
    glue.__wbg_set_wasm(instance.exports);
    /** @type {() => void} */ (instance.exports.__wbindgen_start)();
    return glue;
  } catch (error) {
    throw new Problem("CRYPTO_MISSING", `The encryption module cannot be loaded: ${error}`);
  }
}

/** What the library says is for nobody: it names people, devices and sessions. */
export const SILENT = { debug() {}, info() {}, warn() {}, error() {} };

/**
 * @param {unknown} error
 * @returns {boolean}
 */
export function isPanic(error) {
  return error instanceof WebAssembly.RuntimeError || (error instanceof Error && SIGNS.test(error.message));
}

/** Watches over one instance of the library. */
export class Guard {
  /** @type {Set<(problem: Problem) => void>} */
  #waiting = new Set();
  #stopListening = new AbortController();
  isBroken = false;

  /** @param {() => void} onBroken called once, when the instance must not be used any more */
  constructor(onBroken) {
    this.onBroken = onBroken;
    const { signal } = this.#stopListening;
    // A panic inside of a task of the library reaches nobody else.
    addEventListener("error", (event) => this.#look(event, event.error), { signal });
    addEventListener("unhandledrejection", (event) => this.#look(event, event.reason), { signal });
  }

  /**
   * @template T
   * @param {() => T | Promise<T>} work
   * @returns {Promise<T>}
   */
  run(work) {
    if (this.isBroken) return Promise.reject(broken());
    return new Promise((resolve, reject) => {
      this.#waiting.add(reject);
      Promise.resolve()
        .then(work)
        .then(resolve, (error) => {
          if (isPanic(error)) this.break();
          reject(error);
        })
        .finally(() => this.#waiting.delete(reject));
    });
  }

  break() {
    if (this.isBroken) return;
    this.isBroken = true;
    for (const reject of this.#waiting) reject(broken());
    this.close();
    this.onBroken();
  }

  close() {
    this.#stopListening.abort();
  }

  /**
   * @param {Event} event
   * @param {unknown} error
   */
  #look(event, error) {
    if (!isPanic(error)) return;
    event.preventDefault();
    this.break();
  }
}

function broken() {
  return new Problem("CRYPTO_BROKEN", "The encryption module broke and is loaded again.", { passes: true });
}
