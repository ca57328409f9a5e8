// A device that nobody touches goes to sleep, and a phone takes the camera with it: not during a call.

/** @returns {() => void} lets it sleep */
export function stayAwake() {
  if (!navigator.wakeLock) return () => {};
  /** @type {WakeLockSentinel | null} */
  let lock = null;
  let isOver = false;
  const take = async () => {
    if (document.visibilityState !== "visible" || (lock && !lock.released)) return;
    try {
      lock = await navigator.wakeLock.request("screen");
      if (isOver) await lock.release();
    } catch {
      // a battery that is nearly empty
    }
  };
  document.addEventListener("visibilitychange", take); // the browser takes it back from a page that nobody sees
  void take();
  return () => {
    isOver = true;
    document.removeEventListener("visibilitychange", take);
    void lock?.release();
  };
}
