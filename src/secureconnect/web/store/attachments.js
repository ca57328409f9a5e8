// The files of messages: what a message says of them, and what they are.

/**
 * @typedef {import("./types.js").Attachment} Attachment
 * @typedef {import("./types.js").Message} Message
 * @typedef {import("./types.js").Outgoing} Outgoing
 * @typedef {import("./types.js").Sending} Sending
 * @typedef {"image" | "video" | "audio" | "file"} Kind
 */

const MOST = 1_000; // of one message; the server takes fewer
const MOST_DESCRIBED = 20; // files of a message that is not encrypted: its metadata has little room
const MOST_NAME_CHARS = 100; // there; the file itself has its whole name
const MOST_PX = 100_000;
const RASTER = /^image\/(png|jpeg|gif|webp|avif)$/; // a picture that is drawn; SVG is a program
const PLAYED = /^(video|audio)\/[\w.+-]+$/;

/**
 * As what it is shown.
 * @param {string | undefined} contentType
 * @returns {Kind}
 */
export function kindOf(contentType = "") {
  if (RASTER.test(contentType)) return "image";
  return PLAYED.test(contentType) ? /** @type {Kind} */ (contentType.split("/")[0]) : "file";
}

/**
 * What a message is that carries these: of one kind, or files.
 * @param {readonly { content_type: string }[]} files
 * @returns {Kind}
 */
export function kindOfAll(files) {
  const kinds = new Set(files.map((each) => kindOf(each.content_type)));
  const [only] = kinds;
  return kinds.size === 1 && only ? only : "file";
}

/**
 * What goes into a message of which all files are there: into its metadata, or with their keys into what is encrypted.
 * @param {readonly Sending[]} files
 * @returns {Attachment[]}
 */
export function describe(files) {
  const told = files.some((each) => each.secret) ? files : files.slice(0, MOST_DESCRIBED);
  return told.map(({ file_id, name, size, content_type, width, height, secret }) => ({
    file_id: /** @type {string} */ (file_id),
    name: secret ? name : [...name].slice(-MOST_NAME_CHARS).join(""),
    size,
    content_type,
    ...(width && height ? { width, height } : {}),
    ...secret,
  }));
}

/**
 * The files that a message carries, with what it says of them.
 * @param {readonly string[]} ids
 * @param {unknown} described as somebody else's client wrote it
 * @returns {Attachment[]}
 */
export function attachmentsOf(ids, described) {
  const known = new Map();
  if (Array.isArray(described)) {
    for (const each of described.slice(0, MOST)) {
      const read = readDescribed(each);
      if (read) known.set(read.file_id, read);
    }
  }
  return ids.map((id) => known.get(id) ?? { file_id: id });
}

/**
 * The files of an encrypted message: those alone that it says itself, whatever the server puts beside it.
 * @param {unknown} described
 */
export function sealedAttachments(described) {
  const ids = Array.isArray(described) ? described.map((each) => each?.file_id) : [];
  return attachmentsOf(
    ids.slice(0, MOST).filter((id) => typeof id === "string"),
    described,
  );
}

/**
 * @param {any} given
 * @returns {Attachment | null}
 */
function readDescribed(given) {
  if (typeof given?.file_id !== "string") return null;
  const { file_id, name, size, content_type, width, height, cipher, key, iv, part_bytes } = given;
  const isSized = isPx(width) && isPx(height);
  return {
    file_id,
    name: typeof name === "string" ? name : undefined,
    size: Number.isSafeInteger(size) && size >= 0 ? size : undefined,
    content_type: typeof content_type === "string" ? content_type : undefined,
    ...(isSized ? { width, height } : {}),
    ...(typeof cipher === "string" ? { cipher, key, iv, part_bytes } : {}),
  };
}

/**
 * A recording of a call whose key the message tells.
 * @typedef {{ recording_id: string, call_id: string, key: import("./types.js").FileKey }} Recorded
 */

const ID = /^[0-9a-f-]{36}$/;

/**
 * @param {any} given as somebody else's client wrote it
 * @returns {Recorded | null}
 */
export function recordedIn(given) {
  const { recording_id, call_id, cipher, key, iv, part_bytes } = given ?? {};
  const isSound = ID.test(recording_id) && ID.test(call_id) && typeof cipher === "string";
  return isSound ? { recording_id, call_id, key: { cipher, key, iv, part_bytes } } : null;
}

/** @param {unknown} value */
function isPx(value) {
  return Number.isInteger(value) && Number(value) > 0 && Number(value) <= MOST_PX;
}
