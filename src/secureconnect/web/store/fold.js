// Words as one compares them: without case, accents and width, so that `da nang` finds Đà Nẵng, as the server's search
// does.

/** @param {string} text */
export function fold(text) {
  return text.normalize("NFKD").replaceAll(/\p{M}/gu, "").toLowerCase().replaceAll("đ", "d");
}

/**
 * Whether each word of `wanted` begins a word of `text`.
 * @param {string} text folded
 * @param {string} wanted folded
 */
export function matches(text, wanted) {
  const padded = ` ${text}`;
  return wanted
    .split(/\s+/)
    .every((word) => word === "" || padded.includes(` ${word}`) || (word.length > 2 && text.includes(word)));
}
