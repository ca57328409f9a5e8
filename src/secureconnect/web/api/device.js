// What the browser does for an installed page: a worker that keeps it, a number on its icon, and being woken by a push.

import { Signal } from "../store/signal.js";

/** @typedef {"unsupported" | "denied" | "off" | "on"} PushState */

const KEPT = "sc.push"; // the endpoint that the server was told of
const ALERTS = "sc.alerts"; // whether the system is to say what comes in while nobody looks

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
  /** @type {Signal<PushState>} what the system says while the page is there and nobody looks at it */
  alerts = new Signal(alertsNow());
  /** @type {Set<Notification>} without a worker, which would know them */
  #shown = new Set();
  /** @type {ServiceWorkerRegistration | null} */
  #registration = null;

  /**
   * @param {import("./client.js").Client} client
   * @param {(path: string) => void} open a place in the page that a notification names
   */
  constructor(client, open) {
    this.client = client;
    this.open = open;
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
    const isGranted = (await Notification.requestPermission()) === "granted";
    this.alerts.value = alertsNow();
    if (!isGranted) {
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

  /**
   * Have the system say what comes in while nobody looks. Asks for leave: call it from a click.
   * @param {boolean} isOn
   */
  async chooseAlerts(isOn) {
    localStorage.setItem(ALERTS, isOn ? "on" : "off");
    if (isOn) await Notification.requestPermission();
    this.alerts.value = alertsNow();
  }

  /**
   * @param {string} body
   * @param {string} tag the next one of the same takes its place
   * @param {string} path where in the page it is about
   */
  async alert(body, tag, path) {
    const how = { body, tag, data: path };
    if (this.#registration?.active) {
      await this.#registration.showNotification("SecureConnect", how);
      return;
    }
    const shown = new Notification("SecureConnect", how);
    this.#shown.add(shown);
    shown.onclose = () => this.#shown.delete(shown);
    shown.onclick = () => {
      window.focus();
      shown.close();
      this.open(path);
    };
  }

  /** Somebody looks at the page: there it is seen. */
  async silence() {
    for (const each of this.#shown) each.close();
    this.#shown.clear();
    for (const each of (await this.#registration?.getNotifications()) ?? []) each.close();
  }

  /** @param {number} count on the icon of the page; 0: none */
  badge(count) {
    const done = count ? navigator.setAppBadge?.(count) : navigator.clearAppBadge?.();
    done?.catch(() => {}); // it is not installed
  }
}

/** @returns {PushState} */
function alertsNow() {
  if (!("Notification" in globalThis)) return "unsupported";
  if (Notification.permission === "denied") return "denied";
  const isChosen = localStorage.getItem(ALERTS);
  return Notification.permission === "granted" && isChosen !== "off" ? "on" : "off";
}
