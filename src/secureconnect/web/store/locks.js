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

/**
 * Hold a lock beside others who hold it. Returns what lets it go.
 * @param {string} name
 */
export function holdUntil(name) {
  /** @type {() => void} */
  let leave = () => {};
  const left = new Promise((resolve) => (leave = () => resolve(null)));
  void navigator.locks?.request(name, { mode: "shared" }, () => left);
  return leave;
}

/**
 * Whether any tab holds it.
 * @param {string} name
 */
export async function isHeld(name) {
  const { held = [] } = (await navigator.locks?.query()) ?? {};
  return held.some((each) => each.name === name);
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
