// One tab at a time. Without TLS browsers have no locks; what is done here then is right without them, only done twice.

/**
 * @template T
 * @param {string} name
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
export async function exclusively(name, work) {
  return navigator.locks ? navigator.locks.request(name, work) : work();
}

/**
 * Hold a lock for as long as this tab lives.
 * @param {string} name
 */
export function holdForLife(name) {
  void navigator.locks?.request(name, () => new Promise(() => {}));
}

/** Whether it can be known which tabs there are. */
export const knowsTabs = Boolean(navigator.locks);

/**
 * Returns once nobody holds it. Rejects when the signal comes first.
 * @param {string} name
 * @param {AbortSignal} signal
 * @returns {Promise<void>}
 */
export async function whenFree(name, signal) {
  await navigator.locks.request(name, { signal }, async () => {});
}
