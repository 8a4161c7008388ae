/**
 * Small things of the examinee's and the phone's page: what is said aloud, countdowns, a picture that is shown, the screen
 * that stays on, the limit.
 */

import { clock } from "./i18n.js";

const DEFAULT_MAX_BYTES = 8 * 1024 * 1024;
const LIMIT_SECONDS = 5;
const SAID_SECONDS = 20;

/** @param {string} id @returns {HTMLElement} */
export function byId(id) {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no #${id}`);
  return found;
}

/**
 * For screen readers, once. What is said in the same moment stands beside it, not in its place; and nothing stays there,
 * for who walks over the page must not come upon what is no longer so.
 * @param {string} text
 */
export function announce(text) {
  const line = document.createElement("span");
  line.textContent = `${text} `;
  byId("said").append(line);
  setTimeout(() => line.remove(), SAID_SECONDS * 1000);
}

/** Moments that are counted down to; `tick` is called twice a second while there is one. */
export class Countdown {
  /** @param {() => void} tick */
  constructor(tick) {
    this._tick = tick;
    /** @type {Map<string, number>} */ this._moments = new Map();
    /** @type {ReturnType<typeof setInterval> | null} */ this._timer = null;
  }

  /** @param {string} name @param {number | null} moment ms since the epoch; `null`: no longer */
  until(name, moment) {
    if (moment === null) this._moments.delete(name);
    else this._moments.set(name, moment);
    if (this._moments.size > 0) this._timer ??= setInterval(() => this._tick(), 500);
    else if (this._timer !== null) {
      clearInterval(this._timer);
      this._timer = null;
    }
  }

  /** Seconds until then, negative after it; `null`: not counted. @param {string} name @param {number} now */
  left(name, now) {
    const moment = this._moments.get(name);
    return moment === undefined ? null : (moment - now) / 1000;
  }

  /** "1:05"; a second that has begun counts. @param {number} seconds */
  static text(seconds) {
    return clock(Math.ceil(seconds));
  }
}

/** A picture shown in several places, whose memory is given back. */
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

/** The screen stays on while it is wanted, where the browser can do that: a phone that sleeps sends nothing. */
export function keepAwake() {
  /** @type {WakeLockSentinel | null} */
  let lock = null;
  let want = false;
  const update = async () => {
    if (!want) {
      const held = lock;
      lock = null;
      await held?.release();
    } else if (document.visibilityState === "visible" && (lock === null || lock.released)) {
      try {
        lock = (await navigator.wakeLock?.request("screen")) ?? null;
      } catch (error) {
        console.info("examwire: the screen may go dark:", String(error)); // battery saver; nothing depends on it
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

/** The largest picture that the server takes, in bytes; its default when it cannot be asked now. */
export async function maxPictureBytes() {
  try {
    const signal = AbortSignal.timeout?.(LIMIT_SECONDS * 1000);
    const response = await fetch("/v1/endpoints", { cache: "no-store", signal });
    const { maxPictureBytes: limit } = await response.json();
    return Number.isSafeInteger(limit) && limit > 0 ? limit : DEFAULT_MAX_BYTES;
  } catch {
    return DEFAULT_MAX_BYTES; // the upload says the same, if it is too large
  }
}
