// What the browser does for an installed page: a worker that keeps it, a number on its icon, and being woken by a push.

import { Signal } from "../store/signal.js";

/** @typedef {"unsupported" | "denied" | "off" | "on"} PushState */

const KEPT = "sc.push"; // the endpoint that the server was told of

/** Scripts come from the page's own server alone. */
const trusted = /** @type {any} */ (globalThis).trustedTypes?.createPolicy("sc", {
  createScriptURL: (/** @type {string} */ url) => {
    if (url !== "/sw.js") throw new TypeError(`not a script of the page: ${url}`);
    return url;
  },
});

export class Device {
  /** @type {Signal<PushState>} */
  push = new Signal(/** @type {PushState} */ ("unsupported"));
  /** @type {ServiceWorkerRegistration | null} */
  #registration = null;

  /**
   * @param {import("./client.js").Client} client
   * @param {(path: string) => void} open a place in the page that a notification names
   */
  constructor(client, open) {
    this.client = client;
    navigator.serviceWorker?.addEventListener(
      "message",
      ({ data }) => data.type === "open" && open(data.path),
    );
  }

  /**
   * Without TLS there is none of it.
   * @param {string | null} language what was chosen in the settings
   */
  async begin(language) {
    if (!navigator.serviceWorker) return;
    const url = trusted ? trusted.createScriptURL("/sw.js") : "/sw.js";
    try {
      this.#registration = await navigator.serviceWorker.register(url);
    } catch {
      return; // the server is away, or the browser forbids it: the next load of the page tries again
    }
    await caches.open("sc.chosen").then((cache) => cache.put("/sc.language", new Response(language ?? "")));
    if (this.#registration?.pushManager && "Notification" in globalThis) await this.#look();
  }

  async #look() {
    const subscription = await this.#registration?.pushManager.getSubscription();
    const isKnown = subscription && localStorage.getItem(KEPT) === subscription.endpoint;
    if (Notification.permission === "denied") this.push.value = "denied";
    else this.push.value = isKnown && Notification.permission === "granted" ? "on" : "off";
  }

  /**
   * Have this device woken. Asks whoever is there for leave: call it from a click.
   * @param {string} publicKey of the server: `vapid_public_key`
   */
  async enablePush(publicKey) {
    if (this.#registration === null) return;
    if ((await Notification.requestPermission()) !== "granted") {
      await this.#look();
      return;
    }
    const { pushManager } = this.#registration;
    const subscription =
      (await pushManager.getSubscription()) ??
      (await pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: publicKey }));
    const { endpoint, keys } = subscription.toJSON();
    const body = { service: "webpush", endpoint, p256dh: keys?.p256dh, auth: keys?.auth };
    await this.client.ask("POST", "/v1/notifications/devices", { body });
    localStorage.setItem(KEPT, subscription.endpoint);
    this.push.value = "on";
  }

  /** Have it woken no more. */
  async disablePush() {
    await this.client.ask("DELETE", "/v1/notifications/devices");
    await this.forgetPush();
  }

  /** After signing out: the server has forgotten it. */
  async forgetPush() {
    localStorage.removeItem(KEPT);
    const subscription = await this.#registration?.pushManager?.getSubscription();
    await subscription?.unsubscribe();
    if (this.push.peek() === "on") this.push.value = "off";
  }

  /** @param {number} count on the icon of the page; 0: none */
  badge(count) {
    const done = count ? navigator.setAppBadge?.(count) : navigator.clearAppBadge?.();
    done?.catch(() => {}); // it is not installed
  }
}
