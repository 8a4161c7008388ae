/**
 * How often: work that many things ask for is done at once the first time, then with a pause, and nothing that was asked
 * for is forgotten. Pure but for the timer.
 */

/** A computer that is slow at it does it less often: it gets so many times as long a pause. */
const SHARE = 10;

export class Pace {
  /**
   * @param {() => void} work
   * @param {number} every ms from one time to the next, at least
   * @param {() => number} [held] how many ms it should wait for something else; 0: for nothing
   * @param {number} [atMost] ms for which `held` may put it off
   */
  constructor(work, every, held = () => 0, atMost = 0) {
    this._work = work;
    this._every = every;
    this._held = held;
    this._atMost = atMost;
    this._done = -Infinity;
    this._pause = every;
    /** Since when it is asked for. @type {number | null} */ this._since = null;
    /** @type {ReturnType<typeof setTimeout> | undefined} */ this._timer = undefined;
  }

  /** It is to be done: now if it may be, else as soon as it may. */
  ask() {
    if (this._since !== null) return; // its timer runs
    this._since = performance.now();
    this._try();
  }

  /** Do it now, whatever it was put off for. */
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
