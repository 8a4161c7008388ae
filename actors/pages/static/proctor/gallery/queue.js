/**
 * The pictures of a plan that a proctor goes through: which are to be looked at, which one is shown, and what was decided here.
 * Pure: no DOM, no network.
 *
 * @typedef {import("../../client/plan-view.js").Capture} Capture
 * @typedef {{examineeId: string, captures: Capture[]}} Owner
 * @typedef {"accepted" | "rejected"} Verdict
 * @typedef {Capture & {key: string, examineeId: string}} Picture
 */

/** Goes through pictures one by one. A decision counts at once, before the server has answered. */
export class PictureQueue {
  constructor() {
    /** All known pictures, the oldest first. @type {Map<string, Picture>} */ this._known = new Map();
    /** What was decided here and is not told by the server yet. @type {Map<string, Verdict>} */ this._decided = new Map();
    /** The keys of the pictures that are gone through, in order. @type {string[]} */ this._list = [];
    this._at = 0;
    /** Whose pictures are gone through; `null`: those of all that nobody has looked at. @type {string | null} */
    this.owner = null;
  }

  /** Take over what is known of a plan. @param {Iterable<Owner>} owners */
  update(owners) {
    const pictures = [];
    for (const { examineeId, captures } of owners) {
      for (const capture of captures) pictures.push({ ...capture, examineeId, key: `${examineeId} ${capture.captureId}` });
    }
    pictures.sort((a, b) => compare(a.time, b.time) || compare(a.key, b.key));
    this._known = new Map(pictures.map((picture) => [picture.key, picture]));
    for (const [key, verdict] of this._decided) {
      const told = this._known.get(key)?.verdict;
      if (told === verdict || !this._known.has(key)) this._decided.delete(key);
    }
    const current = this.current?.key;
    const kept = this._list.filter((key) => this._known.has(key));
    const listed = new Set(kept);
    // What is new comes last, so that the place of the proctor stays.
    const added = pictures.filter((picture) => !listed.has(picture.key) && this._belongs(picture));
    this._list = [...kept, ...added.map((picture) => picture.key)];
    const at = current === undefined ? this._at : this._list.indexOf(current);
    this._at = clamp(at < 0 ? this._at : at, this._list.length);
  }

  /**
   * Begin to go through the pictures that nobody has looked at, or through those of one examinee, the newest first.
   * @param {string | null} owner
   */
  begin(owner = null) {
    this.owner = owner;
    this._list = [...this._known.values()].filter((picture) => this._belongs(picture)).map((picture) => picture.key);
    this._at = owner === null ? 0 : clamp(this._list.length - 1, this._list.length);
  }

  /** @param {Picture} picture */
  _belongs(picture) {
    return this.owner === null ? this.verdictOf(picture) === null : picture.examineeId === this.owner;
  }

  /** The number of pictures that nobody has looked at. */
  get waiting() {
    return [...this._known.values()].filter((picture) => this.verdictOf(picture) === null).length;
  }

  /** The pictures that are gone through. @returns {Picture[]} */
  get pictures() {
    return this._list.flatMap((key) => this._known.get(key) ?? []);
  }

  /** The place of the shown picture. */
  get at() {
    return this._at;
  }

  /** The shown picture. @returns {Picture | null} */
  get current() {
    return this._known.get(this._list[this._at] ?? "") ?? null;
  }

  /** Return what is said about a picture, here or by the server. @param {Picture} picture @returns {Verdict | null} */
  verdictOf(picture) {
    return this._decided.get(picture.key) ?? picture.verdict ?? null;
  }

  /** Show the picture so many places on. @param {number} step */
  move(step) {
    this._at = clamp(this._at + step, this._list.length);
  }

  /** Show a picture. @param {string} key */
  show(key) {
    const at = this._list.indexOf(key);
    if (at >= 0) this._at = at;
  }

  /**
   * Note what was decided about the shown picture, and show the next one that nobody has looked at.
   * @param {Verdict} verdict
   * @returns {Picture | null} the picture; `null`: there is none, or that was said of it already
   */
  decide(verdict) {
    const { current } = this;
    if (current === null || this.verdictOf(current) === verdict) return null;
    this._decided.set(current.key, verdict);
    const open = this.pictures.map((picture) => this.verdictOf(picture) === null);
    const next = open.indexOf(true, this._at);
    const first = open.indexOf(true);
    if (next >= 0 || first >= 0) this._at = next >= 0 ? next : first;
    return current;
  }

  /** Take a decision back that the server did not take. @param {string} key */
  failed(key) {
    this._decided.delete(key);
  }

  /** The pictures to load: the shown one, then those that follow, then those before. @param {number} ahead @param {number} behind */
  wanted(ahead, behind) {
    const { pictures } = this;
    const after = pictures.slice(this._at, this._at + 1 + ahead);
    return [...after, ...pictures.slice(Math.max(0, this._at - behind), this._at).reverse()];
  }
}

/** @param {number} at @param {number} length */
function clamp(at, length) {
  return Math.max(0, Math.min(at, length - 1));
}

/** @param {string} a @param {string} b */
function compare(a, b) {
  return a < b ? -1 : a > b ? 1 : 0;
}
