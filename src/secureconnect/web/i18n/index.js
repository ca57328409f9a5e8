// The words of the page, in the language of whoever reads it, and how dates, times and sizes are written there.

/** @typedef {string | { one?: string, other: string }} Text one form, or those of a plural by `count` */
/** @typedef {Record<string, Text>} Area */

export const LANGUAGES = /** @type {const} */ (["en", "vi"]);
const KEPT = "sc.language";

/** @type {Map<string, Area>} */
const areas = new Map();

/** Chosen in the settings, or what the browser asks for first. */
export const language = choose();

/** @returns {(typeof LANGUAGES)[number]} */
function choose() {
  const asked = [localStorage.getItem(KEPT), ...navigator.languages];
  for (const each of asked) {
    const found = LANGUAGES.find((known) => each?.toLowerCase().startsWith(known));
    if (found) return found;
  }
  return "en";
}

/**
 * For the next load of the page; null: what the browser asks for.
 * @param {string | null} wanted
 */
export function chooseLanguage(wanted) {
  if (wanted === null) localStorage.removeItem(KEPT);
  else localStorage.setItem(KEPT, wanted);
}

/** @returns {string | null} what was chosen in the settings */
export function chosenLanguage() {
  return localStorage.getItem(KEPT);
}

/**
 * Must have been awaited before a text of these areas is asked for.
 * @param {...string} names
 */
export async function loadTexts(...names) {
  await Promise.all(
    names.map(async (name) => {
      if (areas.has(name)) return;
      const { default: texts } = await import(`./${language}/${name}.js`);
      areas.set(name, texts);
    }),
  );
}

/**
 * The text `area.name`, with each `{value}` put in; `count` chooses among the forms of a plural.
 * @param {string} key
 * @param {Record<string, string | number>} [values]
 */
export function t(key, values = {}) {
  const found = lookUp(key);
  if (found === undefined) throw new Error(`no text ${key}`);
  const text = typeof found === "string" ? found : pluralOf(found, Number(values.count));
  return text.replaceAll(/\{(\w+)\}/g, (whole, name) => {
    const value = values[name];
    return value === undefined ? whole : typeof value === "number" ? number(value) : value;
  });
}

/**
 * @param {string} key
 * @returns {Text | undefined}
 */
function lookUp(key) {
  const dot = key.indexOf(".");
  return areas.get(key.slice(0, dot))?.[key.slice(dot + 1)];
}

/**
 * @param {{ one?: string, other: string }} forms
 * @param {number} count
 */
function pluralOf(forms, count) {
  return plurals.select(count) === "one" ? (forms.one ?? forms.other) : forms.other;
}

/**
 * One sentence about what was refused, or did not come through.
 * @param {unknown} error
 * @returns {string}
 */
export function refused(error) {
  const { code, message, retryAfterS } =
    /** @type {{ code?: unknown, message?: string, retryAfterS?: number }} */ (error);
  if (typeof code !== "string") return t("error.UNKNOWN"); // the browser's own errors have numbers
  const text = lookUp(`error.${code}`);
  if (text === undefined) return (language === "en" && message) || t("error.UNKNOWN"); // it is in English
  const seconds = retryAfterS ?? 60;
  const time = timeOfDay(Date.now() + seconds * 1000);
  return t(`error.${code}`, { seconds, minutes: Math.ceil(seconds / 60), time });
}

/** How things are written: as the browser's own kind of that language has it, en-GB for one. */
const locale = navigator.languages.find((each) => each.toLowerCase().startsWith(language)) ?? language;
const plurals = new Intl.PluralRules(language);
const numbers = new Intl.NumberFormat(locale);
const clock = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit" });
const weekdays = new Intl.DateTimeFormat(locale, { weekday: "long" });
const dates = new Intl.DateTimeFormat(locale, { day: "numeric", month: "long", year: "numeric" });
const shortDates = new Intl.DateTimeFormat(locale, { day: "numeric", month: "short" });
const moments = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "short" });
const relative = new Intl.RelativeTimeFormat(locale, { numeric: "auto" });
const DAY_MS = 86_400_000;

/** @param {number} value */
export function number(value) {
  return numbers.format(value);
}

/** @param {string | number | Date} at */
export function timeOfDay(at) {
  return clock.format(new Date(at));
}

/** @param {string | number | Date} at */
export function moment(at) {
  return moments.format(new Date(at));
}

/**
 * Days between the two, by the calendar of this machine.
 * @param {Date} at
 * @param {Date} now
 */
function daysAgo(at, now) {
  const midnight = (/** @type {Date} */ when) =>
    new Date(when.getFullYear(), when.getMonth(), when.getDate()).getTime();
  return Math.round((midnight(now) - midnight(at)) / DAY_MS);
}

/**
 * "today", "yesterday", "Monday", "3 March 2026".
 * @param {string | number | Date} at
 */
export function dayName(at) {
  const when = new Date(at);
  const ago = daysAgo(when, new Date());
  if (ago === 0 || ago === 1) return relative.format(-ago, "day");
  return ago > 1 && ago < 7 ? weekdays.format(when) : dates.format(when);
}

/**
 * As short as a list has room for: the time of today, else the day.
 * @param {string | number | Date} at
 */
export function shortMoment(at) {
  const when = new Date(at);
  const ago = daysAgo(when, new Date());
  if (ago === 0) return timeOfDay(when);
  return ago === 1 ? relative.format(-1, "day") : shortDates.format(when);
}

const UNITS = /** @type {const} */ (["byte", "kilobyte", "megabyte", "gigabyte"]);

/** @param {number} count */
export function bytes(count) {
  let unit = 0;
  let value = count;
  while (value >= 1000 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const format = {
    style: /** @type {const} */ ("unit"),
    unit: UNITS[unit],
    maximumFractionDigits: value < 10 && unit ? 1 : 0,
  };
  return new Intl.NumberFormat(locale, format).format(value);
}

const STEPS = /** @type {[number, Intl.RelativeTimeFormatUnit][]} */ ([
  [60, "second"],
  [60, "minute"],
  [24, "hour"],
  [30, "day"],
  [12, "month"],
  [Infinity, "year"],
]);

/**
 * "5 minutes ago", "in 2 days".
 * @param {string | number | Date} at
 */
export function ago(at) {
  let value = (new Date(at).getTime() - Date.now()) / 1000;
  for (const [size, unit] of STEPS) {
    if (Math.abs(value) < size) return relative.format(Math.round(value), unit);
    value /= size;
  }
  return "";
}

/**
 * 1:05, 1:02:03.
 * @param {number} seconds
 */
export function duration(seconds) {
  const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, Math.floor(seconds) % 60];
  const shown = parts[0] ? parts : parts.slice(1);
  return shown.map((part, place) => (place ? String(part).padStart(2, "0") : String(part))).join(":");
}
