/**
 * Loads pictures ahead of the proctor, some at a time, and forgets those that are far away. Of each it makes a small one: a
 * dozen whole pictures side by side would take gigabytes of memory.
 *
 * @typedef {{state: "loading" | "loaded" | "failed", url: string, small: string, why: string}} Loaded `url`, `small`: the
 *   addresses of the whole picture and of the small one, which comes later; empty while there is none
 */

/** So many pictures are loaded at once. */
const AT_ONCE = 4;
/** The height of a small picture (px): three times its place on the page, for fine screens. */
const SMALL_HEIGHT = 192;

/** Fires `change` when a picture was loaded, or could not be. */
export class PictureLoader extends EventTarget {
  /** @param {(path: string) => Promise<Response>} get asks the web server for something about the plan */
  constructor(get) {
    super();
    this._get = get;
    /** @type {Map<string, Loaded>} */ this._loaded = new Map();
    /** @type {import("./queue.js").Picture[]} */ this._wanted = [];
    this._running = 0;
    /** Ends when all small pictures are made. @type {Promise<void>} */ this._shrinking = Promise.resolve();
  }

  /** Load these pictures in their order, and forget all others. @param {import("./queue.js").Picture[]} pictures */
  want(pictures) {
    this._wanted = pictures;
    const keys = new Set(pictures.map((picture) => picture.key));
    for (const [key, loaded] of this._loaded) {
      if (keys.has(key)) continue;
      this._loaded.delete(key);
      release(loaded);
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
    /** @type {Loaded} */ const loaded = { state: "loading", url: "", small: "", why: "" };
    this._loaded.set(key, loaded);
    this._running += 1;
    try {
      const response = await this._get(`/captures/${encodeURIComponent(examineeId)}/${captureId}.jpg`);
      const picture = await response.blob();
      if (this._loaded.get(key) === loaded) {
        Object.assign(loaded, { state: "loaded", url: URL.createObjectURL(picture) });
        this._shrinking = this._shrinking.then(() => this._shrink(key, loaded, picture));
      }
    } catch (error) {
      Object.assign(loaded, { state: "failed", why: String(/** @type {Error} */ (error).message) });
    }
    this._running -= 1;
    this.dispatchEvent(new Event("change"));
    this._loadMore();
  }

  /** Make the small picture. One at a time, for each takes the memory of the whole one. @param {string} key @param {Loaded} loaded @param {Blob} picture */
  async _shrink(key, loaded, picture) {
    if (this._loaded.get(key) !== loaded) return; // forgotten meanwhile
    try {
      loaded.small = URL.createObjectURL(await shrunk(picture));
    } catch (error) {
      console.info("examwire: no small picture:", String(error));
      loaded.small = loaded.url; // the browser can show the whole one, or says that it cannot
    }
    if (this._loaded.get(key) === loaded) this.dispatchEvent(new Event("change"));
    else release(loaded);
  }
}

/** Return a small copy of a picture. @param {Blob} picture @returns {Promise<Blob>} */
async function shrunk(picture) {
  const bitmap = await createImageBitmap(picture, { resizeHeight: SMALL_HEIGHT, resizeQuality: "medium" });
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  canvas.getContext("2d")?.drawImage(bitmap, 0, 0);
  bitmap.close();
  return new Promise((resolve, reject) => {
    canvas.toBlob((small) => (small ? resolve(small) : reject(new Error("the canvas gives no picture"))), "image/jpeg", 0.8);
  });
}

/** Free the memory of a picture. @param {Loaded} loaded */
function release({ url, small }) {
  for (const address of [url, small]) if (address) URL.revokeObjectURL(address);
}
