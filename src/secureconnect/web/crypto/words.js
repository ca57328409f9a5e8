// The words of a text, as the server's search takes them (chat/search/words.py): without case, marks and width, so
// that Vietnamese is found without its accents; what is written without blanks (Chinese, Thai …) character by character.

const LONGEST = 64; // characters of a word; the rest of it is not looked at
const MOST = 2_000; // words of a text

/** @type {Record<string, string>} no form of them has the mark apart */
const WITHOUT_MARK = { đ: "d", ł: "l", ø: "o", ħ: "h", ŧ: "t", ı: "i" };
const UNSEEN = /[\p{Mn}\p{Me}\p{Cf}]/u;
const ALONE =
  /[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff]|[\u{20000}-\u{3ffff}]/u;
const EMOJI = /\p{So}/u;
const WORD = /[\p{L}\p{N}\p{M}]/u;

/**
 * @param {string} text
 * @returns {string[]} folded, in their order
 */
export function words(text) {
  /** @type {string[]} */
  const found = [];
  let letters = "";
  const end = () => {
    if (letters) found.push([...letters].slice(0, LONGEST).join(""));
    letters = "";
  };
  for (const char of folded(text)) {
    if (UNSEEN.test(char)) continue;
    const isWord = WORD.test(char);
    const isAlone = EMOJI.test(char) || (isWord && ALONE.test(char));
    if (isAlone || !isWord) end();
    if (isAlone) found.push(char);
    else if (isWord) letters += WITHOUT_MARK[char] ?? char;
    if (found.length >= MOST) break;
  }
  end();
  return found.slice(0, MOST);
}

/** @param {string} text */
function folded(text) {
  return text.normalize("NFKD").toLowerCase().replaceAll("ß", "ss").replaceAll("ς", "σ").normalize("NFKD");
}
