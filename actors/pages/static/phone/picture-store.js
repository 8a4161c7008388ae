/**
 * Stores the picture until the server has it, with its examinee and the state of the upload.
 *
 * In IndexedDB, so that it survives a reload, a crash, or a tab that the system has closed. Where IndexedDB is blocked (some
 * private modes) it is kept in memory only, and `lasting` is false.
 *
 * @typedef {object} Kept
 * @property {import("../mobile/code.js").Pass} pass
 * @property {string} code
 * @property {ArrayBuffer | null} picture JPEG; bytes instead of a Blob, which some browsers cannot keep
 * @property {import("../mobile/upload-rules.js").Upload | null} upload
 */

const DATABASE = "examwire-phone";
const STORE = "kept";
const KEY = "current";

export class PhoneStore {
  constructor() {
    this.lasting = true;
    /** @type {Kept | null} */ this._memory = null;
    /** @type {Promise<IDBDatabase> | null} */ this._database = null;
  }

  /** @returns {Promise<Kept | null>} */
  async read() {
    const kept = await this._run("readonly", (store) => store.get(KEY));
    return kept ?? this._memory;
  }

  /** Replace what is stored. @param {Kept} kept */
  async write(kept) {
    this._memory = kept;
    await this._run("readwrite", (store) => store.put(kept, KEY));
  }

  async forget() {
    this._memory = null;
    await this._run("readwrite", (store) => store.delete(KEY));
  }

  /**
   * @param {IDBTransactionMode} mode
   * @param {(store: IDBObjectStore) => IDBRequest} work
   * @returns {Promise<any>} the request's result once the transaction is complete; `undefined` where nothing lasts
   */
  async _run(mode, work) {
    try {
      this._database ??= opened();
      const database = await this._database;
      return await new Promise((resolve, reject) => {
        const transaction = database.transaction(STORE, mode);
        const request = work(transaction.objectStore(STORE));
        transaction.oncomplete = () => resolve(request.result);
        transaction.onabort = () => reject(transaction.error);
      });
    } catch (error) {
      // Blocked or full: the page keeps the picture in memory and asks the person not to close it.
      console.warn("examwire: nothing can be kept on this device:", error);
      this.lasting = false;
      return undefined;
    }
  }
}

/** @returns {Promise<IDBDatabase>} */
function opened() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE);
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
    request.onblocked = () => reject(new Error("another tab holds an older version"));
  });
}
