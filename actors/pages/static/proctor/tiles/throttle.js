/**
 * Limits how often work is done: at once on the first request, then at most once per interval. No request is lost. Pure but
 * for the timer.
 */

/** The pause is at least so many times as long as the work, so that slow computers have time for the rest. */
const PAUSE_FACTOR = 10;

export class Throttle {
  /**
   * @param {() => void} work
   * @param {number} interval the shortest time between two runs, in ms
   * @param {() => number} [delay] returns for how many ms to delay the work; 0: not at all
   * @param {number} [longestDelay] the longest that `delay` may delay the work, in ms
   */
  constructor(work, interval, delay = () => 0, longestDelay = 0) {
    this._work = work;
    this._interval = interval;
    this._delay = delay;
    this._longestDelay = longestDelay;
    this._lastRun = -Infinity;
    this._pause = interval;
    /** The time of the first open request. @type {number | null} */ this._since = null;
    /** @type {ReturnType<typeof setTimeout> | undefined} */ this._timer = undefined;
  }

  /** Request the work: it is done now if allowed, else as soon as allowed. */
  ask() {
    if (this._since !== null) return; // a timer is running
    this._since = performance.now();
    this._try();
  }

  /** Do the work now. */
  now() {
    clearTimeout(this._timer);
    this._since = null;
    const began = (this._lastRun = performance.now());
    this._work();
    this._pause = Math.max(this._interval, PAUSE_FACTOR * (performance.now() - began));
  }

  /** Do the work if it is allowed now, else set the timer. */
  _try() {
    const now = performance.now();
    const since = this._since ?? now;
    const delay = Math.min(this._delay(), since + this._longestDelay - now);
    const wait = Math.max(this._lastRun + this._pause - now, delay);
    if (wait <= 0) this.now();
    else this._timer = setTimeout(() => this._try(), Math.ceil(wait));
  }
}
