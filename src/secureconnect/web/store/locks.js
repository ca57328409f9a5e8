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
 * Names of locks that some tab holds; null where nobody can know.
 * @returns {Promise<Set<string> | null>}
 */
export async function held() {
  if (!navigator.locks) return null;
  const { held: all = [] } = await navigator.locks.query();
  return new Set(all.map((each) => each.name ?? ""));
}
