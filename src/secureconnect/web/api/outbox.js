// One's own messages from the moment they are written until the server has stored or refused them. They are on the disk
// before they are sent, go out in order, conversation by conversation, and are sent again with the same
// `client_message_id` until there is an answer: the server stores each once, however often it comes. One with files
// goes out when they are there, and holds up nothing that is said meanwhile.

import { signal } from "../store/signal.js";
import { exclusively, holdForLife, knowsTabs, whenFree } from "../store/locks.js";
import { newId } from "./ids.js";

/**
 * @typedef {import("../store/types.js").Draft} Draft
 * @typedef {import("../store/types.js").Outgoing} Outgoing
 * @typedef {import("../store/types.js").Sending} Sending
 * @typedef {import("../store/types.js").Event} Event
 */

const MOST_WAITING = 500;
const MOST_KEPT_BYTES = 209_715_200; // of files that wait, on the disk: what is beyond is chosen again after a reload
const PAUSE_MS = 2_000; // before something the server was too busy for is tried again
const OTHER_TABS = "sc.outbox";

export class OutboxFull extends Error {
  constructor() {
    super("as many messages as may wait are waiting");
    this.code = "OUTBOX_FULL";
  }
}

export class Outbox {
  #tab = newId();
  /** @type {Set<string>} conversations of which a message is on its way */
  #busy = new Set();
  #changes = 0; // of what is held here: what was read from the disk before one is older
  /** @type {Set<string>} accepted before the link was lost: sent again, for it may have been lost with its node */
  #again = new Set();
  #channel = new BroadcastChannel(OTHER_TABS);
  /** @type {Set<string>} other tabs, whose end is waited for */
  #watched = new Set();
  #closing = new AbortController();

  /**
   * @param {import("../store/disk.js").Disk} disk
   * @param {import("./socket.js").ChatSocket} socket
   * @param {import("./uploads.js").Uploads} uploads
   * @param {(entry: Outgoing) => Promise<Event>} wrap makes the `chat` frame, encrypted where it has to be
   */
  constructor(disk, socket, uploads, wrap) {
    this.disk = disk;
    this.socket = socket;
    this.uploads = uploads;
    this.wrap = wrap;
    /** all that waits, in this tab and others, the oldest first */
    this.entries = signal(/** @type {readonly Outgoing[]} */ ([]));
    holdForLife(nameOf(this.#tab));
    socket.on("resumed", () => this.#sendAgain());
    socket.on("resuming", () => this.#sendAgain());
    socket.on("stored", (event) => void this.#settle(event.client_message_id));
    socket.on("chat", (event) => event.seq && void this.#settle(event.client_message_id, event.sender_id));
    socket.on("rejected", (event) => void this.#fail(event.client_message_id, event.code));
    this.#channel.onmessage = () => void this.#reload();
  }

  /** What an earlier load of the page, or a tab that is gone, has left. */
  async open() {
    await this.#reload();
    await this.#adoptAll();
    this.#pump();
  }

  close() {
    this.#channel.close();
    this.#closing.abort();
    this.uploads.close();
  }

  /** @param {string} conversationId */
  of(conversationId) {
    return this.entries.value.filter((each) => each.conversation_id === conversationId);
  }

  /**
   * Returns once it is kept; it is on its way then.
   * @param {Draft} draft
   * @param {ReadonlyMap<string, Blob>} [blobs] of its files, by `upload_id`
   * @returns {Promise<Outgoing>}
   */
  async add(draft, blobs = new Map()) {
    const waiting = this.entries.peek();
    if (waiting.length >= MOST_WAITING) throw new OutboxFull();
    const last = waiting.at(-1)?.queued_at ?? 0;
    const entry = /** @type {Outgoing} */ ({
      ...draft,
      client_message_id: newId(),
      queued_at: Math.max(Date.now(), last + 1), // two in one millisecond keep their order, on the disk too
      tab: this.#tab,
      state: draft.files?.length ? "uploading" : "waiting",
    });
    for (const [id, blob] of blobs) this.uploads.hold(id, blob);
    await this.#keep(entry, blobs);
    this.#pump();
    return entry;
  }

  /** @param {string} id its client_message_id */
  async retry(id) {
    const entry = this.#find(id);
    if (entry?.state !== "failed") return;
    await this.#keep({ ...entry, state: "waiting", code: undefined, tab: this.#tab });
    this.#pump();
  }

  /** @param {string} id of one that failed, or waits for its files */
  async discard(id) {
    const files = this.#find(id)?.files ?? [];
    for (const file of files) void this.uploads.abandon(file);
    await this.#settle(id);
  }

  /**
   * Go on with a file that was paused, has failed, or is here again.
   * @param {string} id
   * @param {string} uploadId
   * @param {Blob} [blob] as it was chosen again
   */
  async resumeFile(id, uploadId, blob) {
    if (blob) this.uploads.hold(uploadId, blob);
    await this.#changeFile(id, uploadId, { state: "waiting", code: undefined });
    this.#pump();
  }

  /**
   * @param {string} id
   * @param {string} uploadId
   */
  async pauseFile(id, uploadId) {
    this.uploads.stop(uploadId);
    await this.#changeFile(id, uploadId, { state: "paused" });
  }

  /**
   * Without its last file a message is not sent at all.
   * @param {string} id
   * @param {string} uploadId
   */
  async cancelFile(id, uploadId) {
    const entry = this.#find(id);
    const file = entry?.files?.find((each) => each.upload_id === uploadId);
    if (entry?.state !== "uploading" || !file) return;
    const files = entry.files?.filter((each) => each !== file) ?? [];
    if (!files.length) return this.discard(id);
    void this.uploads.abandon(file);
    await this.#keep({ ...entry, files });
    await this.disk.delete("blobs", uploadId);
    await this.#advance(id);
  }

  /**
   * @param {string} id
   * @param {string} uploadId
   * @param {Partial<Sending>} facts
   */
  async #changeFile(id, uploadId, facts) {
    const entry = this.#find(id);
    if (entry?.state !== "uploading") return;
    const files = entry.files?.map((each) => (each.upload_id === uploadId ? { ...each, ...facts } : each));
    await this.#keep({ ...entry, files, tab: this.#tab });
    await this.#advance(id);
  }

  /**
   * Its files may all be there.
   * @param {string} id
   */
  async #advance(id) {
    const entry = this.#find(id);
    if (entry?.state !== "uploading" || !entry.files?.every((each) => each.state === "done")) return;
    const file_ids = entry.files.map((each) => /** @type {string} */ (each.file_id));
    await this.#keep({ ...entry, file_ids, state: "waiting" });
    this.#pump();
  }

  /** @param {string} id */
  #find(id) {
    return this.entries.peek().find((each) => each.client_message_id === id);
  }

  /**
   * Seen at once, here; by other tabs when it is on the disk. Both begin in one turn, so that whatever is read from the
   * disk later has it.
   * @param {Outgoing} entry
   * @param {ReadonlyMap<string, Blob>} [blobs]
   */
  async #keep(entry, blobs = new Map()) {
    const id = entry.client_message_id;
    const others = this.entries.peek().filter((each) => each.client_message_id !== id);
    this.#hold([...others, entry]);
    const fit = this.#fitting(blobs);
    try {
      await this.disk.write(["outbox", "blobs"], ([entries, kept]) => {
        entries.put(entry, id);
        for (const [uploadId, blob] of fit) kept.put(blob, uploadId);
      });
    } finally {
      await this.#reload();
      this.#channel.postMessage("changed");
    }
  }

  /** @param {readonly Outgoing[]} entries */
  #hold(entries) {
    this.#changes += 1;
    this.entries.value = [...entries].sort((one, other) => one.queued_at - other.queued_at);
  }

  /**
   * Those that the disk has room for beside what waits already.
   * @param {ReadonlyMap<string, Blob>} blobs
   */
  #fitting(blobs) {
    const waiting = this.entries.peek().flatMap((each) => each.files ?? []);
    const others = waiting.filter((each) => !blobs.has(each.upload_id));
    let room = others.reduce((left, each) => left - each.size, MOST_KEPT_BYTES);
    return [...blobs].filter(([, blob]) => {
      const fits = blob.size <= room;
      if (fits) room -= blob.size;
      return fits;
    });
  }

  /**
   * The server has it, or nobody wants it any more.
   * @param {string} id
   * @param {string} [sender] of the message that was stored
   */
  async #settle(id, sender) {
    const entry = this.#find(id);
    if (!entry || (sender !== undefined && sender !== this.socket.session.userId)) return;
    this.#hold(this.entries.peek().filter((each) => each !== entry));
    for (const { upload_id } of entry.files ?? []) this.uploads.release(upload_id);
    await this.disk.write(["outbox", "blobs"], ([entries, blobs]) => {
      entries.delete(id);
      for (const { upload_id } of entry.files ?? []) blobs.delete(upload_id);
    });
    this.#channel.postMessage("changed");
    this.#pump();
  }

  /**
   * @param {string} id
   * @param {string} code
   */
  async #fail(id, code) {
    const entry = this.#find(id);
    if (entry) await this.#keep({ ...entry, state: "failed", code });
  }

  async #reload() {
    /** @type {Outgoing[]} */
    let kept;
    let seen;
    do {
      seen = this.#changes;
      kept = await this.disk.all("outbox");
    } while (seen !== this.#changes);
    this.#hold(kept);
    this.#watchOthers();
  }

  #watchOthers() {
    for (const { tab } of knowsTabs ? this.entries.peek() : []) {
      if (tab === this.#tab || this.#watched.has(tab)) continue;
      this.#watched.add(tab);
      void this.#inherit(tab).catch(() => {}); // signed out meanwhile
    }
  }

  /** @param {string} tab whose entries are taken over when it is gone */
  async #inherit(tab) {
    await whenFree(nameOf(tab), this.#closing.signal);
    await this.#adopt((each) => each === tab);
    this.#watched.delete(tab);
    this.#pump();
  }

  /**
   * Take over what these tabs have left.
   * @param {(tab: string) => boolean} isGone
   */
  async #adopt(isGone) {
    await exclusively("sc.adopt", async () => {
      await this.#reload(); // another tab may have been first
      const left = this.entries.peek().filter(({ tab }) => tab !== this.#tab && isGone(tab));
      for (const entry of left)
        await this.disk.put("outbox", entry.client_message_id, { ...entry, tab: this.#tab });
    });
    await this.#reload();
    this.#channel.postMessage("changed");
  }

  /** Where nobody knows which tabs there are: sending it twice stores it once. */
  async #adoptAll() {
    if (!knowsTabs) await this.#adopt(() => true);
  }

  /** The link is new. */
  #sendAgain() {
    this.#again = new Set(
      this.entries
        .peek()
        .filter((each) => each.state === "accepted")
        .map((each) => each.client_message_id),
    );
    void this.#adoptAll().then(() => this.#pump());
  }

  /** Send what may be sent now: of each conversation the oldest that waits. */
  #pump() {
    if (this.socket.link.peek() !== "online") return;
    const seen = new Set(this.#busy);
    for (const entry of this.entries.peek()) {
      if (entry.state === "uploading" && entry.tab === this.#tab) this.#upload(entry);
      if (seen.has(entry.conversation_id) || entry.tab !== this.#tab || !this.#isDue(entry)) continue;
      seen.add(entry.conversation_id);
      this.#busy.add(entry.conversation_id);
      void this.#send(entry);
    }
  }

  /** @param {Outgoing} entry */
  #isDue({ state, client_message_id }) {
    return state === "waiting" || (state === "accepted" && this.#again.has(client_message_id));
  }

  /** @param {Outgoing} entry */
  #upload({ client_message_id: id, files = [] }) {
    for (const file of files) {
      if (file.state !== "waiting") continue;
      void this.uploads.run(file, (facts) => this.#changeFile(id, file.upload_id, facts));
    }
  }

  /** @param {Outgoing} entry */
  async #send(entry) {
    const id = entry.client_message_id;
    this.#again.delete(id);
    let isTooEarly = false;
    try {
      const ack = await this.socket.ask(await this.wrap(entry));
      if (ack.status === "stored") await this.#settle(id);
      else if (this.#find(id)) await this.#keep({ ...entry, state: "accepted" });
    } catch (error) {
      const { passes, code } = /** @type {{ passes?: boolean, code?: string }} */ (error);
      isTooEarly = passes === true;
      if (!isTooEarly) await this.#fail(id, code ?? "UNKNOWN");
      if (code === undefined) reportError(error);
    } finally {
      this.#busy.delete(entry.conversation_id);
    }
    if (isTooEarly) setTimeout(() => this.#pump(), PAUSE_MS);
    else this.#pump();
  }
}

/** @param {string} tab */
function nameOf(tab) {
  return `sc.tab.${tab}`;
}
