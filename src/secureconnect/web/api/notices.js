// What one should know of: notifications, and what the administrators have told everybody.

import { computed, signal } from "../store/signal.js";

const LATEST = 50;
const MOST_DISMISSED = 100;
const DISMISSED = "dismissed";
const PAUSE_MS = 1_500; // after one has read something, until what was notified of it is read, too

export class Notices {
  #timer = 0;
  #dismissed = signal(/** @type {readonly string[]} */ ([]));
  /** the latest announcement that holds and was not dismissed */
  announcement = computed(() => {
    const now = Date.now();
    return this.state.announcements.value.find(
      ({ announcement_id, until }) =>
        !this.#dismissed.value.includes(announcement_id) && (until === null || Date.parse(until) > now),
    );
  });

  /**
   * @param {import("./client.js").Client} client
   * @param {import("./socket.js").ChatSocket} socket
   * @param {import("../store/state.js").State} state
   * @param {import("../store/disk.js").Disk} disk
   */
  constructor(client, socket, state, disk) {
    this.client = client;
    this.state = state;
    this.disk = disk;
    void disk.get("facts", DISMISSED).then((kept) => kept && (this.#dismissed.value = kept));
    socket.on("resumed", (event) => event.more || void this.read());
    socket.on("notifications_read", () => void this.read());
    socket.on("read", ({ user_id }) => {
      if (user_id !== state.me.peek()?.user_id || state.unreadNotifications.peek() === 0) return;
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => state.me.peek() && void this.read(), PAUSE_MS);
    });
  }

  /** As things are now, oneself included: whether the account is to go, and which role one has. */
  async read() {
    const before = this.state.me.peek();
    try {
      const [me, told, announced] = await Promise.all([
        this.client.ask("GET", "/v1/users/me"),
        this.client.ask("GET", "/v1/notifications", { query: { limit: LATEST } }),
        this.client.ask("GET", "/v1/announcements", { query: { limit: 20 } }),
      ]);
      if (this.state.me.peek() === before) {
        this.client.session.keepUser(me);
        this.state.me.value = me;
      } // else somebody has changed it meanwhile, and this may be older
      this.state.notifications.value = told.notifications;
      this.state.unreadNotifications.value = told.unread_count;
      this.state.announcements.value = announced.announcements;
    } catch {
      // with the next link
    }
  }

  /** @param {string} id */
  isDismissed(id) {
    return this.#dismissed.value.includes(id);
  }

  /** @param {string} id of an announcement, or of something else, that is not to be shown again */
  dismiss(id) {
    this.#dismissed.value = [...this.#dismissed.peek(), id].slice(-MOST_DISMISSED);
    void this.disk.put("facts", DISMISSED, this.#dismissed.peek()).catch(() => {});
  }

  /** @param {string} id of a notification */
  async markRead(id) {
    const at = new Date().toISOString();
    const wasUnread = this.state.notifications
      .peek()
      .some((each) => each.notification_id === id && each.read_at === null);
    if (!wasUnread) return;
    this.state.notifications.update((all) =>
      all.map((each) => (each.notification_id === id ? { ...each, read_at: at } : each)),
    );
    this.state.unreadNotifications.update((count) => Math.max(0, count - 1));
    await this.client.ask("POST", `/v1/notifications/${id}/read`);
  }

  async markAllRead() {
    await this.client.ask("POST", "/v1/notifications/read-all", { body: {} });
    await this.read();
  }
}
