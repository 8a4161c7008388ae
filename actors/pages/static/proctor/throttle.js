/**
 * A throttle: does work at once on the first request, then at most once per interval. No request is lost. Pure but for the
 * timer.
 */

/** The pause is at least so many times as long as the work took, for slow computers. */
const SHARE = 10;

export class Pace {
  /**
   * @param {() => void} work
   * @param {number} every the least interval in ms
   * @param {() => number} [held] for how many ms to put the work off; 0: not at all
   * @param {number} [atMost] the longest that `held` may put the work off, in ms
   */
  constructor(work, every, held = () => 0, atMost = 0) {
    this._work = work;
    this._every = every;
    this._held = held;
    this._atMost = atMost;
    this._done = -Infinity;
    this._pause = every;
    /** The time of the first open request. @type {number | null} */ this._since = null;
    /** @type {ReturnType<typeof setTimeout> | undefined} */ this._timer = undefined;
  }

  /** Request the work: done now if allowed, else as soon as allowed. */
  ask() {
    if (this._since !== null) return; // its timer runs
    this._since = performance.now();
    this._try();
  }

  /** Do the work now. */
  now() {
    clearTimeout(this._timer);
    this._since = null;
    const began = (this._done = performance.now());
    this._work();
    this._pause = Math.max(this._every, SHARE * (performance.now() - began));
  }

  _try() {
    const at = performance.now();
    const since = this._since ?? at;
    const held = Math.min(this._held(), since + this._atMost - at);
    const wait = Math.max(this._done + this._pause - at, held);
    if (wait <= 0) this.now();
    else this._timer = setTimeout(() => this._try(), Math.ceil(wait));
  }
}
