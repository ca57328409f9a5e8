// IndexedDB, as far as it is used here.

/**
 * @template T
 * @param {IDBRequest<T>} request
 * @returns {Promise<T>}
 */
export function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/**
 * @param {IDBTransaction} transaction
 * @returns {Promise<void>} when it is committed
 */
export function committed(transaction) {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = transaction.onerror = () => reject(transaction.error);
  });
}

/**
 * @param {string} name
 * @param {(database: IDBDatabase) => void} make its stores, the first time and for a later version
 * @param {number} [version]
 * @returns {Promise<IDBDatabase>}
 */
export async function openDatabase(name, make, version = 1) {
  const request = indexedDB.open(name, version);
  request.onupgradeneeded = () => make(request.result);
  const database = await done(request);
  database.onversionchange = () => database.close(); // it is being deleted
  return database;
}

/**
 * @param {string} name
 * @returns {Promise<void>} when it is deleted, or will be as soon as nothing uses it any more
 */
export function deleteDatabase(name) {
  return new Promise((resolve, reject) => {
    const request = indexedDB.deleteDatabase(name);
    request.onsuccess = request.onblocked = () => resolve();
    request.onerror = () => reject(request.error);
  });
}
