// The service worker: the page is there without a network, and a device that is woken says so.
//
// It keeps one edition of the page whole, under the version that is a hash of it. What the server tells is not kept
// here: that is the page's own affair (store/snapshot.js).

/** @type {ServiceWorkerGlobalScope} */
const worker = /** @type {any} */ (self);

const VERSION = "{{version}}";
const FILES = /** @type {string[]} */ (/** @type {unknown} */ ("{{files}}"));
const CACHE = `sc.page.${VERSION}`;
const PAGE = "/";
const PATIENCE_MS = 3_000; // for the page from the network, before the one that is kept is shown
const RETURN_MS = 6_000; // in which a page that is loaded anew is here again
const LOOK_MS = 500;
const NOT_PAGES = /^\/(v1|docs|app|health|livez|readyz|metrics|openapi)/;

/** @type {Record<string, Record<string, string>>} by language: without what was said, which a push does not know */
const TEXTS = {
  en: {
    message: "New message",
    messageFrom: "New message: {name}",
    call: "Incoming call",
    callFrom: "Incoming call: {name}",
    missed_call: "Missed call",
    missed_callFrom: "Missed call: {name}",
    call_cancelled: "The call is over",
    call_cancelledFrom: "The call is over: {name}",
  },
  vi: {
    message: "Tin nhắn mới",
    messageFrom: "Tin nhắn mới: {name}",
    call: "Cuộc gọi đến",
    callFrom: "Cuộc gọi đến: {name}",
    missed_call: "Cuộc gọi nhỡ",
    missed_callFrom: "Cuộc gọi nhỡ: {name}",
    call_cancelled: "Cuộc gọi đã kết thúc",
    call_cancelledFrom: "Cuộc gọi đã kết thúc: {name}",
  },
};

worker.addEventListener("install", (event) => event.waitUntil(keep()));
worker.addEventListener("activate", (event) => event.waitUntil(takeOver()));
worker.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  if (event.request.method !== "GET" || url.origin !== location.origin) return;
  if (event.request.mode === "navigate" && !NOT_PAGES.test(url.pathname))
    event.respondWith(page(event.request));
  else if (url.pathname.startsWith("/app/")) event.respondWith(file(event.request));
});
worker.addEventListener("message", (event) => {
  if (event.data?.type === "gone") event.waitUntil(leave(event.data));
});
worker.addEventListener("push", (event) => event.waitUntil(wake(event.data?.json() ?? {})));
worker.addEventListener("notificationclick", (event) => {
  event.notification.close();
  event.waitUntil(open(event.notification.data));
});

/**
 * A tab that was in a call was closed, or is loaded anew. If it does not come back, the others need not wait for it.
 * @param {{ callId: string, token: string }} gone
 */
async function leave({ callId, token }) {
  for (let waitedMs = 0; waitedMs < RETURN_MS; waitedMs += LOOK_MS) {
    const windows = await worker.clients.matchAll({ type: "window", includeUncontrolled: true });
    const isBack = await Promise.race([
      new Promise((resolve) => setTimeout(() => resolve(false), LOOK_MS)),
      ...windows.map((each) => isInCall(each, callId)),
    ]);
    if (isBack) return;
  }
  const headers = { Authorization: `Bearer ${token}` };
  await fetch(`/v1/calls/${callId}/leave`, { method: "POST", headers }).catch(() => {}); // its time runs out
}

/**
 * Resolves if it is; one that is being loaded does not answer.
 * @param {WindowClient} page
 * @param {string} callId
 * @returns {Promise<boolean>}
 */
function isInCall(page, callId) {
  const { port1, port2 } = new MessageChannel();
  const answered = new Promise((resolve) => (port1.onmessage = () => resolve(true)));
  page.postMessage({ type: "in call?", callId }, [port2]);
  return answered;
}

async function keep() {
  const cache = await caches.open(CACHE);
  await cache.addAll([PAGE, ...FILES]);
  await worker.skipWaiting();
}

async function takeOver() {
  const names = await caches.keys();
  const old = names.filter((name) => name.startsWith("sc.page.") && name !== CACHE);
  await Promise.all(old.map((name) => caches.delete(name)));
  await worker.clients.claim();
}

/**
 * The server's page: the newest. Where it does not come, the one that is kept.
 * @param {Request} request
 */
async function page(request) {
  try {
    const answer = await fetch(request, { signal: AbortSignal.timeout(PATIENCE_MS) });
    if (answer.status < 500) return answer;
  } catch {
    // no network, or a server that is away
  }
  return (await caches.match(PAGE)) ?? Response.error();
}

/**
 * A file of the page: what is under its address never changes.
 * @param {Request} request
 */
async function file(request) {
  const kept = await caches.match(request);
  if (kept) return kept;
  const answer = await fetch(request);
  if (answer.ok && answer.status === 200) {
    const copy = answer.clone();
    const cache = await caches.open(CACHE);
    if (new URL(request.url).pathname.startsWith(`/app/${VERSION}/`)) await cache.put(request, copy);
  }
  return answer;
}

/** @param {{ kind?: string, conversation_id?: string, call_id?: string }} told */
async function wake({ kind = "message", conversation_id, call_id }) {
  const windows = await worker.clients.matchAll({ type: "window" });
  if (windows.some((each) => each.focused)) return; // whoever is there sees it
  const isCall = kind.startsWith("call_") || kind === "missed_call";
  const word = kind === "call_incoming" ? "call" : isCall ? kind : "message";
  const name = await nameOf(conversation_id);
  const texts = TEXTS[await language()];
  await worker.registration.showNotification("SecureConnect", {
    body: (name ? texts[`${word}From`] : texts[word]).replace("{name}", () => name),
    tag: (isCall ? call_id : null) ?? conversation_id ?? "sc", // the next one of the same takes its place
    requireInteraction: kind === "call_incoming",
    silent: kind === "call_cancelled",
    data: conversation_id ? `/c/${conversation_id}` : "/",
  });
  await navigator.setAppBadge?.();
}

/** @param {string} path */
async function open(path) {
  const windows = await worker.clients.matchAll({ type: "window" });
  const [first] = windows;
  if (first === undefined) await worker.clients.openWindow(path);
  else {
    await first.focus().catch(() => {}); // the system does not want it: it is opened there all the same
    first.postMessage({ type: "open", path });
  }
}

/** What was chosen in the page's settings, else what the browser speaks. */
async function language() {
  const chosen = await (await caches.match("/sc.language"))?.text();
  return (chosen || navigator.language).toLowerCase().startsWith("vi") ? "vi" : "en";
}

/**
 * What the conversation was called when the page saw it last.
 * @param {string | undefined} conversationId
 * @returns {Promise<string>}
 */
async function nameOf(conversationId) {
  const databases = await indexedDB.databases();
  const own = databases.find(({ name }) => /^sc\.[0-9a-f-]{36}$/.test(name ?? ""))?.name;
  if (own === undefined || conversationId === undefined) return "";
  const me = own.slice("sc.".length);
  return new Promise((resolve) => {
    const asked = indexedDB.open(own);
    asked.onerror = () => resolve("");
    asked.onsuccess = () => {
      const db = asked.result;
      const read = db.transaction("conversations").objectStore("conversations").get(conversationId);
      read.onerror = () => resolve("");
      read.onsuccess = () => {
        const { title, participants = [] } = read.result?.conversation ?? {};
        const other = participants.find((/** @type {any} */ each) => each.user_id !== me);
        resolve(title ?? other?.display_name ?? "");
      };
      db.onversionchange = () => db.close();
      read.transaction?.addEventListener("complete", () => db.close());
    };
  });
}
