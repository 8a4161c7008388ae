/**
 * Parts that the examinee's and the phone's page share: announcements for screen readers, countdowns, picture previews, the
 * wake lock, and the size limit of pictures.
 */

import { clock } from "./i18n.js";

const DEFAULT_MAX_BYTES = 8 * 1024 * 1024;
const LIMIT_SECONDS = 5;
const SAID_SECONDS = 20;

/** @param {string} id @returns {HTMLElement} */
export function byId(id) {
  const target = document.getElementById(id);
  if (target === null) throw new Error(`the page has no #${id}`);
  return target;
}

/**
 * Announce a text to screen readers, once. Texts of the same moment are added, not replaced. Each is removed after a while, so
 * that nobody who reads through the page finds old announcements.
 * @param {string} text
 */
export function announce(text) {
  const line = document.createElement("span");
  line.textContent = `${text} `;
  byId("said").append(line);
  setTimeout(() => line.remove(), SAID_SECONDS * 1000);
}

/** Countdowns by name. `tick` is called twice a second while there is at least one. */
export class Countdown {
  /** @param {() => void} tick */
  constructor(tick) {
    this._tick = tick;
    /** @type {Map<string, number>} */ this._moments = new Map();
    /** @type {ReturnType<typeof setInterval> | null} */ this._timer = null;
  }

  /** @param {string} name @param {number | null} moment ms since the epoch; `null`: stop */
  until(name, moment) {
    if (moment === null) this._moments.delete(name);
    else this._moments.set(name, moment);
    if (this._moments.size > 0) this._timer ??= setInterval(() => this._tick(), 500);
    else if (this._timer !== null) {
      clearInterval(this._timer);
      this._timer = null;
    }
  }

  /** Seconds until the moment, negative after it; `null`: no such countdown. @param {string} name @param {number} now */
  left(name, now) {
    const moment = this._moments.get(name);
    return moment === undefined ? null : (moment - now) / 1000;
  }

  /** Format as "1:05", rounded up to whole seconds. @param {number} seconds */
  static text(seconds) {
    return clock(Math.ceil(seconds));
  }
}

/** Shows a picture in several `<img>` elements and releases its memory afterwards. */
export class Thumbnail {
  /** @param {HTMLElement[]} images `<img>` */
  constructor(images) {
    this._images = /** @type {HTMLImageElement[]} */ (images);
    /** @type {string | null} */ this._url = null;
  }

  /** @param {Blob | null} blob */
  show(blob) {
    if (this._url !== null) URL.revokeObjectURL(this._url);
    this._url = blob === null ? null : URL.createObjectURL(blob);
    for (const image of this._images) {
      if (this._url === null) image.removeAttribute("src");
      else image.src = this._url;
    }
  }
}

/** Keeps the screen on where the browser can do that: a sleeping phone sends nothing. */
export function keepAwake() {
  /** @type {WakeLockSentinel | null} */
  let lock = null;
  let want = false;
  const update = async () => {
    if (!want) {
      const released = lock;
      lock = null;
      await released?.release();
    } else if (document.visibilityState === "visible" && (lock === null || lock.released)) {
      try {
        lock = (await navigator.wakeLock?.request("screen")) ?? null;
      } catch (error) {
        console.info("examwire: the screen may go dark:", String(error)); // for example in battery saver mode; the upload works without it
      }
      if (!want) await update();
    }
  };
  document.addEventListener("visibilitychange", () => void update());
  return {
    /** @param {boolean} wanted */
    async wanted(wanted) {
      if (want === wanted) return;
      want = wanted;
      await update();
    },
  };
}

/** Ask the server for its size limit of pictures, in bytes; without an answer use the default. */
export async function maxPictureBytes() {
  try {
    const signal = AbortSignal.timeout?.(LIMIT_SECONDS * 1000);
    const response = await fetch("/v1/endpoints", { cache: "no-store", signal });
    const { maxPictureBytes: limit } = await response.json();
    return Number.isSafeInteger(limit) && limit > 0 ? limit : DEFAULT_MAX_BYTES;
  } catch {
    return DEFAULT_MAX_BYTES; // the upload is refused if the picture is too large
  }
}
