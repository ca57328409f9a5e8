// The style sheets of rooms that are entered rarely.

/** @type {Map<string, Promise<void>>} */
const sheets = new Map();

/**
 * Returns once `styles/<name>.css` counts. Rejects when it could not be had.
 * @param {string} name
 * @returns {Promise<void>}
 */
export function sheet(name) {
  let loading = sheets.get(name);
  if (loading === undefined) {
    loading = load(name);
    loading.catch(() => sheets.delete(name));
    sheets.set(name, loading);
  }
  return loading;
}

/**
 * @param {string} name
 * @returns {Promise<void>}
 */
function load(name) {
  const link = document.createElement("link");
  link.rel = "stylesheet";
  link.href = new URL(`../styles/${name}.css`, import.meta.url).href;
  return new Promise((resolve, reject) => {
    link.onload = () => resolve();
    link.onerror = () => {
      link.remove();
      reject(new Error(`no style sheet ${name}`));
    };
    document.head.append(link);
  });
}
