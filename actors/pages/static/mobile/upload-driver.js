/**
 * Uploads one picture by the rules of `mobile/upload-rules.js`: runs the attempts and the timers.
 */

import { after, expired, hurry, restored, resume, sending } from "./upload-rules.js";

/** @typedef {import("./upload-rules.js").Upload} Upload */
/** @typedef {{result: Promise<import("./upload-rules.js").Result>, stop: () => void}} Try */

/**
 * @typedef {object} Environment given by the page, or by a test
 * @property {() => number} now ms since the epoch, by the server's clock
 * @property {() => number} random in [0, 1)
 * @property {(callback: () => void, ms: number) => any} setTimeout
 * @property {(timer: any) => void} clearTimeout
 */

/** Uploads one picture. Fires `change` when `upload` or `share` has changed. */
export class Sender extends EventTarget {
  /**
   * @param {(progress: (share: number) => void) => Try} send begins one try
   * @param {Environment} environment
   */
  constructor(send, environment) {
    super();
    this._send = send;
    this._environment = environment;
    /** @type {Upload | null} */ this.upload = null;
    /** The sent part of the attempt that is under way, 0 to 1. */
    this.share = 0;
    this._timer = null;
    /** @type {Try | null} */ this._try = null;
  }

  /** Start, or continue after a reload. @param {Upload} upload */
  start(upload) {
    this.stop();
    this._to(restored(upload, this._environment.now()));
  }

  /** Try at once: the network is back, or the page is visible again. */
  hurry() {
    if (this.upload !== null) this._to(hurry(this.upload, this._environment.now()));
  }

  /** Try again, with a new token or because a person asks for it. @param {number | null} deadline */
  resume(deadline) {
    if (this.upload !== null) this._to(resume(this.upload, this._environment.now(), deadline));
  }

  /** Take over a new deadline. @param {number | null} deadline */
  extend(deadline) {
    if (this.upload === null) return;
    if (this.upload.state === "late") this.resume(deadline);
    else this._to({ ...this.upload, deadline });
  }

  /** Stop until there is a new token: the old one has expired. */
  expire() {
    if (this.upload !== null) this._to(expired(this.upload));
  }

  /** Stop for good: nothing more is sent. */
  stop() {
    this._environment.clearTimeout(this._timer);
    this._timer = null;
    const ended = this._try;
    this._try = null;
    ended?.stop();
    this.upload = null;
    this.share = 0;
  }

  /** Go to a new state of the upload. @param {Upload} upload */
  _to(upload) {
    const same = upload === this.upload;
    this.upload = upload;
    this._environment.clearTimeout(this._timer);
    this._timer = null;
    if (upload.state === "ready") {
      this._timer = this._environment.setTimeout(() => this._begin(), Math.max(0, upload.nextAt - this._environment.now()));
    }
    if (!same) this.dispatchEvent(new Event("change"));
  }

  /** Begin a try. */
  _begin() {
    if (this.upload === null) return;
    this.share = 0;
    const attempt = this._send((share) => {
      if (this._try !== attempt) return;
      this.share = share;
      this.dispatchEvent(new Event("change"));
    });
    this._try = attempt;
    this._to(sending(this.upload));
    void attempt.result.then((result) => {
      if (this._try !== attempt || this.upload === null) return;
      this._try = null;
      this._to(after(this.upload, result, this._environment.now(), this._environment.random() * 2 - 1));
    });
  }
}
