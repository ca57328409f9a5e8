// QR codes (ISO/IEC 18004) of one kind: bytes, version 10, error correction L, mask 0. That holds what an authenticator app
// is told, and on a screen nothing is gained by a smaller or a sturdier one.

const SIZE = 57; // modules in a row
const DATA = [68, 68, 69, 69]; // bytes of the blocks
const CHECKS = 18; // bytes of error correction in each
const ROOM = 274;
const MIDDLES = [6, 28, 50]; // of the small squares
const ON_RULER = 6 + 28; // two of those middles lie on the rulers; three would lie in the large squares
const LEVEL_AND_MASK = 0b01000;
const BYTES = 0b0100;
const FIELD = 0x11d; // of GF(256)

export const MOST_BYTES = ROOM - 3;

/** @typedef {(boolean | null)[][]} Modules rows of what is dark; null: not said yet */

/**
 * Rows of modules, true where they are dark, without the light border of four around them. Throws RangeError.
 * @param {string} text
 * @returns {boolean[][]}
 */
export function qrOf(text) {
  const bits = interleaved(dataOf(new TextEncoder().encode(text))).flatMap((byte) => digits(byte, 8));
  const modules = patterns();
  let at = 0;
  for (let pair = 0; pair < (SIZE - 1) / 2; pair += 1) {
    const right = SIZE - 1 - 2 * pair - (pair < (SIZE - 7) / 2 ? 0 : 1); // column 6 is a ruler
    for (let step = 0; step < SIZE; step += 1) {
      const y = pair % 2 ? step : SIZE - 1 - step;
      for (const x of [right, right - 1]) {
        if (modules[y][x] !== null) continue;
        modules[y][x] = (bits[at] === 1) !== ((y + x) % 2 === 0);
        at += 1;
      }
    }
  }
  return /** @type {boolean[][]} */ (modules);
}

/**
 * Mode, length, the text, and what fills up.
 * @param {Uint8Array} bytes
 */
function dataOf(bytes) {
  if (bytes.length > MOST_BYTES) throw new RangeError("too long for this kind of QR code");
  const length = [12, 8, 4, 0].map((shift) => (bytes.length >> shift) & 15);
  const halves = [BYTES, ...length, ...[...bytes].flatMap((byte) => [byte >> 4, byte & 15])];
  halves.push(0); // the end, which makes the halves even again
  const data = Array.from(
    { length: halves.length / 2 },
    (_, at) => (halves[2 * at] << 4) | halves[2 * at + 1],
  );
  for (let pad = 0xec; data.length < ROOM; pad ^= 0xec ^ 0x11) data.push(pad);
  return data;
}

/**
 * The blocks and then what corrects them, each column by column.
 * @param {number[]} data
 */
function interleaved(data) {
  let at = 0;
  const blocks = DATA.map((size) => data.slice(at, (at += size)));
  const checks = blocks.map(remainder);
  const columns = (/** @type {number[][]} */ rows, /** @type {number} */ length) =>
    digits(0, length).flatMap((_, column) => rows.flatMap((row) => row.slice(column, column + 1)));
  return [...columns(blocks, Math.max(...DATA)), ...columns(checks, CHECKS)];
}

/**
 * Reed-Solomon: what is left when the block is divided by the product of all (x - 2^i).
 * @param {number[]} block
 */
function remainder(block) {
  let divisor = [1];
  for (let power = 0, root = 1; power < CHECKS; power += 1, root = times(root, 2)) {
    divisor = [...divisor, 0].map((value, place) => value ^ (place ? times(divisor[place - 1], root) : 0));
  }
  const rest = [...block, ...digits(0, CHECKS)];
  block.forEach((_, place) => {
    const factor = rest[place];
    divisor.forEach((value, offset) => (rest[place + offset] ^= times(value, factor)));
  });
  return rest.slice(block.length);
}

/**
 * @param {number} one
 * @param {number} other
 */
function times(one, other) {
  let product = 0;
  for (const digit of digits(other, 8)) {
    product = (product << 1) ^ (product & 0x80 ? FIELD : 0) ^ (digit ? one : 0);
  }
  return product;
}

/**
 * What is there whatever is said.
 * @returns {Modules}
 */
function patterns() {
  const modules = /** @type {Modules} */ (digits(0, SIZE).map(() => Array(SIZE).fill(null)));
  for (const [y, x] of [[3, 3], [3, SIZE - 4], [SIZE - 4, 3]]) square(modules, y, x, 4, [2, 4]); // prettier-ignore
  for (let at = 8; at < SIZE - 8; at += 1) modules[6][at] = modules[at][6] = at % 2 === 0;
  for (const y of MIDDLES) {
    for (const x of MIDDLES) if (modules[y][x] === null || y + x === ON_RULER) square(modules, y, x, 2, [1]);
  }
  digits(checked(10, 12, 0x1f25), 18).forEach((bit, place) => {
    const [far, near] = [SIZE - 9 - (place % 3), 5 - Math.floor(place / 3)];
    modules[far][near] = modules[near][far] = bit === 1;
  });
  digits(checked(LEVEL_AND_MASK, 10, 0x537) ^ 0x5412, 15).forEach((bit, place) => {
    // once around the square at the top left, once shared by the others; the rulers are left out
    const [y, x] = place < 8 ? [8, place + (place > 5 ? 1 : 0)] : [14 - place + (place < 9 ? 1 : 0), 8];
    const [far, near] = place < 7 ? [SIZE - 1 - place, 8] : [8, SIZE - 15 + place];
    modules[y][x] = modules[far][near] = bit === 1;
  });
  modules[SIZE - 8][8] = true;
  return modules;
}

/**
 * Rings around a middle, as far as they are in the picture.
 * @param {Modules} modules
 * @param {number} y
 * @param {number} x
 * @param {number} reach
 * @param {number[]} light the rings that are not dark
 */
function square(modules, y, x, reach, light) {
  for (let down = -reach; down <= reach; down += 1) {
    for (let along = -reach; along <= reach; along += 1) {
      if (modules[y + down]?.[x + along] === undefined) continue;
      modules[y + down][x + along] = !light.includes(Math.max(Math.abs(down), Math.abs(along)));
    }
  }
}

/**
 * A number with the bits that let it be read when some are wrong.
 * @param {number} value
 * @param {number} count of those bits
 * @param {number} divisor
 */
function checked(value, count, divisor) {
  let rest = value << count;
  while (rest >> count) rest ^= divisor << (31 - Math.clz32(rest) - count);
  return (value << count) | rest;
}

/**
 * @param {number} value
 * @param {number} count
 */
function digits(value, count) {
  return Array.from({ length: count }, (_, place) => (value >> (count - 1 - place)) & 1);
}
