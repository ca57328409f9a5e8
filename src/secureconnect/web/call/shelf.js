// Parts of recordings that the server has not acknowledged, in IndexedDB: a reload or a crash loses none.

const NAME = "sc.recordings";
const MOST_PARTS = 400; // that wait: about half an hour of a server that is away
const KEPT_MS = 24 * 60 * 60 * 1000; // after that no server takes them

/**
 * made: parts so far.  isWhole: no further one comes.
 * @typedef {{ recordingId: string, callId: string, userId: string, startedAt: number, made: number,
 *   isWhole: boolean }} Entry
 * @typedef {{ recordingId: string, number: number, content: ArrayBuffer }} Part
 */

export class FullError extends Error {}

/**
 * @template T
 * @param {IDBRequest<T>} request
 * @returns {Promise<T>}
 */
function answerOf(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/**
 * @param {IDBTransaction} unit
 * @returns {Promise<void>} when it is on the disk
 */
function committed(unit) {
  return new Promise((resolve, reject) => {
    unit.oncomplete = () => resolve();
    unit.onabort = unit.onerror = () => reject(unit.error);
  });
}

export class Shelf {
  /** @param {IDBDatabase} db */
  constructor(db) {
    this.db = db;
  }

  static async open() {
    const opening = indexedDB.open(NAME, 1);
    opening.onupgradeneeded = () => {
      opening.result.createObjectStore("entries", { keyPath: "recordingId" });
      opening.result.createObjectStore("parts", { keyPath: ["recordingId", "number"] });
    };
    const db = await answerOf(opening);
    db.onversionchange = () => db.close(); // it is deleted: somebody signs out
    return new Shelf(db);
  }

  unit() {
    const unit = this.db.transaction(["entries", "parts"], "readwrite");
    return { unit, entries: unit.objectStore("entries"), parts: unit.objectStore("parts") };
  }

  /** @param {Omit<Entry, "startedAt" | "made" | "isWhole">} of */
  async begin(of) {
    const { unit, entries } = this.unit();
    entries.put({ ...of, startedAt: Date.now(), made: 0, isWhole: false });
    await committed(unit);
  }

  /**
   * @param {string} recordingId
   * @param {ArrayBuffer} content
   * Throws FullError when too many wait.
   */
  async add(recordingId, content) {
    const { unit, entries, parts } = this.unit();
    const entry = /** @type {Entry | undefined} */ (await answerOf(entries.get(recordingId)));
    if (!entry) return; // it was dropped: the server wants no more of it
    if ((await answerOf(parts.count())) >= MOST_PARTS) throw new FullError();
    entry.made += 1;
    entries.put(entry);
    parts.put({ recordingId, number: entry.made, content });
    await committed(unit);
  }

  /** No further part comes. @param {string} recordingId */
  async finish(recordingId) {
    const { unit, entries } = this.unit();
    const entry = await answerOf(entries.get(recordingId));
    if (entry) entries.put({ ...entry, isWhole: true });
    await committed(unit);
  }

  /** What a page that is no more has left behind is whole; what is too old, or another person's, goes. @param {string} userId */
  async tidy(userId) {
    const { unit, entries, parts } = this.unit();
    for (const entry of /** @type {Entry[]} */ (await answerOf(entries.getAll()))) {
      if (entry.userId === userId && Date.now() - entry.startedAt < KEPT_MS)
        entries.put({ ...entry, isWhole: true });
      else {
        entries.delete(entry.recordingId);
        parts.delete(partsOf(entry.recordingId));
      }
    }
    await committed(unit);
  }

  /** The one begun first, and its next part, if there is one yet. */
  async next() {
    const { entries, parts } = this.unit();
    const all = /** @type {Entry[]} */ (await answerOf(entries.getAll()));
    const entry = all.sort((one, other) => one.startedAt - other.startedAt)[0];
    if (!entry) return null;
    const [part] = /** @type {Part[]} */ (await answerOf(parts.getAll(partsOf(entry.recordingId), 1)));
    return { entry, part: part ?? null };
  }

  /** @param {Part} part acknowledged */
  async remove(part) {
    const { unit, parts } = this.unit();
    parts.delete([part.recordingId, part.number]);
    await committed(unit);
  }

  /** @param {string} recordingId */
  async drop(recordingId) {
    const { unit, entries, parts } = this.unit();
    entries.delete(recordingId);
    parts.delete(partsOf(recordingId));
    await committed(unit);
  }
}

/** @param {string} recordingId */
function partsOf(recordingId) {
  return IDBKeyRange.bound([recordingId, 0], [recordingId, Infinity]);
}
