/**
 * Loads pictures ahead of the proctor, some at a time, and forgets those that are far away.
 *
 * @typedef {{state: "loading" | "loaded" | "failed", url: string, why: string}} Loaded
 */

/** So many pictures are loaded at once. */
const AT_ONCE = 4;

/** Fires `change` when a picture was loaded, or could not be. */
export class PictureLoader extends EventTarget {
  /** @param {(path: string) => Promise<Response>} get asks the web server for something about the plan */
  constructor(get) {
    super();
    this._get = get;
    /** @type {Map<string, Loaded>} */ this._loaded = new Map();
    /** @type {import("./queue.js").Picture[]} */ this._wanted = [];
    this._running = 0;
  }

  /** Load these pictures in their order, and forget all others. @param {import("./queue.js").Picture[]} pictures */
  want(pictures) {
    this._wanted = pictures;
    const keys = new Set(pictures.map((picture) => picture.key));
    for (const [key, { url }] of this._loaded) {
      if (keys.has(key)) continue;
      if (url) URL.revokeObjectURL(url);
      this._loaded.delete(key);
    }
    this._loadMore();
  }

  /** Return a picture as far as it is loaded. @param {string} key @returns {Loaded | null} */
  find(key) {
    return this._loaded.get(key) ?? null;
  }

  /** Load a picture once more that could not be loaded. @param {string} key */
  again(key) {
    if (this._loaded.get(key)?.state === "failed") this._loaded.delete(key);
    this._loadMore();
  }

  _loadMore() {
    for (const picture of this._wanted) {
      if (this._running >= AT_ONCE) return;
      if (!this._loaded.has(picture.key)) void this._load(picture);
    }
  }

  /** @param {import("./queue.js").Picture} picture */
  async _load({ key, examineeId, captureId }) {
    /** @type {Loaded} */ const loaded = { state: "loading", url: "", why: "" };
    this._loaded.set(key, loaded);
    this._running += 1;
    try {
      const response = await this._get(`/captures/${encodeURIComponent(examineeId)}/${captureId}.jpg`);
      const url = URL.createObjectURL(await response.blob());
      if (this._loaded.get(key) === loaded) Object.assign(loaded, { state: "loaded", url });
      else URL.revokeObjectURL(url); // forgotten meanwhile
    } catch (error) {
      Object.assign(loaded, { state: "failed", why: String(/** @type {Error} */ (error).message) });
    }
    this._running -= 1;
    this.dispatchEvent(new Event("change"));
    this._loadMore();
  }
}
