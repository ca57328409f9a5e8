// Values that tell whoever reads them when they change. `signal` holds one, `computed` works one out, `effect` does
// something with them, and a `scope` ends all that was begun in it.
//
// A change only marks what depends on it; `computed` works anew when it is next read, and effects run once, after the
// last change of a `batch` or of the current task's turn, if something they have read is really another.

/** @type {Reader | null} what runs now, and is told of what it reads */
let reader = null;
/** @type {Scope | null} what owns the effects that are begun now */
let owner = null;
/** @type {Set<Effect>} */
const waiting = new Set();
let batches = 0;
let isFlushing = false;

const MOST_RUNS = 10_000; // of effects in one flush: beyond, they set each other off for ever

/** @typedef {{ version: number, readers: Set<Reader>, refresh(): void }} Source */
/** @typedef {{ sources: Map<Source, number>, invalidate(): void }} Reader */

/** @param {Source} source */
function observe(source) {
  if (reader === null) return;
  source.readers.add(reader);
  reader.sources.set(source, source.version);
}

/** @param {Iterable<Reader>} readers */
function tell(readers) {
  for (const each of [...readers]) each.invalidate();
  if (batches === 0) flush();
}

/** @param {Reader} of */
function hasNews(of) {
  for (const [source, seen] of of.sources) {
    source.refresh();
    if (source.version !== seen) return true;
  }
  return false;
}

/** @param {Reader} of */
function forgetSources(of) {
  for (const source of of.sources.keys()) source.readers.delete(of);
  of.sources.clear();
}

/**
 * @template T
 * @param {Reader | null} as
 * @param {() => T} work
 */
function readAs(as, work) {
  const before = reader;
  reader = as;
  try {
    return work();
  } finally {
    reader = before;
  }
}

function flush() {
  if (isFlushing) return;
  isFlushing = true;
  let runs = 0;
  try {
    for (const effect of waiting) {
      waiting.delete(effect);
      if (++runs > MOST_RUNS) throw new Error("effects set each other off without an end");
      try {
        effect.run();
      } catch (error) {
        reportError(error); // of this one alone: the others go on
      }
    }
  } finally {
    isFlushing = false;
  }
}

/** @template T */
export class Signal {
  /** @param {T} now */
  constructor(now) {
    this.now = now;
    this.version = 0;
    /** @type {Set<Reader>} */
    this.readers = new Set();
  }

  refresh() {}

  get value() {
    observe(this);
    return this.now;
  }

  set value(next) {
    if (Object.is(next, this.now)) return;
    this.now = next;
    this.version += 1;
    tell(this.readers);
  }

  /** The value, without being told of the next one. */
  peek() {
    return this.now;
  }

  /** @param {(now: T) => T} change */
  update(change) {
    this.value = change(this.now);
  }
}

/** @template T */
class Computed {
  /** @param {() => T} work */
  constructor(work) {
    this.work = work;
    this.version = 0;
    this.isFresh = false;
    /** @type {Set<Reader>} */
    this.readers = new Set();
    /** @type {Map<Source, number>} */
    this.sources = new Map();
    /** @type {T | undefined} */
    this.now = undefined;
  }

  refresh() {
    if (this.isFresh) return;
    if (this.sources.size === 0 || hasNews(this)) {
      forgetSources(this);
      const next = readAs(this, this.work);
      if (this.version === 0 || !Object.is(next, this.now)) {
        this.now = next;
        this.version += 1;
      }
    }
    this.isFresh = true;
  }

  get value() {
    this.refresh();
    observe(this);
    return /** @type {T} */ (this.now);
  }

  peek() {
    this.refresh();
    return /** @type {T} */ (this.now);
  }

  invalidate() {
    if (!this.isFresh) return;
    this.isFresh = false;
    for (const each of [...this.readers]) each.invalidate();
  }

  dispose() {
    forgetSources(this);
    this.isFresh = false;
  }
}

class Scope {
  constructor() {
    /** @type {(() => void)[]} */
    this.ends = [];
  }

  dispose() {
    const ends = this.ends;
    this.ends = [];
    for (const end of ends.reverse()) end();
  }
}

class Effect extends Scope {
  /** @param {() => void} work */
  constructor(work) {
    super();
    this.work = work;
    this.isOver = false;
    /** @type {Map<Source, number>} */
    this.sources = new Map();
    this.execute();
  }

  invalidate() {
    waiting.add(this);
  }

  run() {
    if (!this.isOver && hasNews(this)) this.execute();
  }

  execute() {
    super.dispose();
    forgetSources(this);
    readAs(this, () => within(this, this.work));
  }

  dispose() {
    this.isOver = true;
    waiting.delete(this);
    forgetSources(this);
    super.dispose();
  }
}

/**
 * @template T
 * @param {Scope | null} scope
 * @param {() => T} work
 */
function within(scope, work) {
  const before = owner;
  owner = scope;
  try {
    return work();
  } finally {
    owner = before;
  }
}

/**
 * @template T
 * @param {T} value
 */
export function signal(value) {
  return new Signal(value);
}

/**
 * A value worked out of others, when it is read and one of them has changed.
 * @template T
 * @param {() => T} work
 * @returns {{ readonly value: T, peek(): T }}
 */
export function computed(work) {
  const made = new Computed(work);
  onEnd(() => made.dispose());
  return made;
}

/**
 * Do it now, and again whenever something it has read is another. What it begins ends before it runs again.
 * @param {() => void} work
 * @returns {() => void} ends it; so does the end of the scope it was begun in
 */
export function effect(work) {
  const made = new Effect(work);
  const end = () => made.dispose();
  onEnd(end);
  return end;
}

/**
 * Several changes, told once.
 * @template T
 * @param {() => T} work
 */
export function batch(work) {
  batches += 1;
  try {
    return work();
  } finally {
    batches -= 1;
    if (batches === 0) flush();
  }
}

/**
 * Read without being told of changes.
 * @template T
 * @param {() => T} work
 */
export function untracked(work) {
  return readAs(null, work);
}

/**
 * All effects begun in `work` end with the function that is returned beside its result.
 * @template T
 * @param {() => T} work
 * @returns {[T, () => void]}
 */
export function scope(work) {
  const made = new Scope();
  const result = readAs(null, () => within(made, work));
  return [result, () => made.dispose()];
}

/**
 * @param {() => void} end called when the scope that is open now ends
 */
export function onEnd(end) {
  owner?.ends.push(end);
}
