/**
 * What proctors are doing with an examinee, so that two do not do the same. This page says what its proctor does for as long
 * as it lasts; what the others do is forgotten when they do not say it again. Pure but for `send` and the clock.
 *
 * @typedef {"looking" | "writing" | "nothing"} Doing
 */

import { ACTIVITY_SECONDS, FORGET_ACTIVITY_SECONDS } from "../../examwire.js";
import { person, t } from "../../common/i18n.js";

/** Says what the proctor of this page does: at once when it changes, and again as long as it lasts. */
export class OwnActivity {
  /** @param {() => number} [now] ms */
  constructor(now = () => performance.now()) {
    this._now = now;
    /** @type {{examineeId: string, doing: Doing} | null} */ this._said = null;
    this._saidAt = -Infinity;
  }

  /**
   * @param {string | null} examineeId whose panel is open
   * @param {Doing} doing
   * @param {(examineeId: string, doing: Doing) => boolean} send
   */
  update(examineeId, doing, send) {
    const before = this._said;
    if (before !== null && before.examineeId !== examineeId) {
      send(before.examineeId, "nothing");
      this._said = null;
    }
    if (examineeId === null) return;
    const again = this._now() - this._saidAt >= ACTIVITY_SECONDS * 1000;
    if (this._said?.doing === doing && !again) return;
    this._said = { examineeId, doing };
    if (send(examineeId, doing)) this._saidAt = this._now();
  }
}

/** Knows what the other proctors of a plan are doing. */
export class OtherActivities {
  /** @param {() => number} [now] ms */
  constructor(now = () => performance.now()) {
    this._now = now;
    /** By the socket of the proctor. @type {Map<string, {examineeId: string, by: string, byName?: string, doing: Doing, at: number}>} */
    this._all = new Map();
  }

  /**
   * Handle a `proctor_activity`.
   * @param {{examineeId: string, by: string, byName?: string, socketId: string, doing: Doing}} data
   * @returns {string[]} the examinees about whom something has changed
   */
  receive({ examineeId, by, byName, socketId, doing }) {
    const before = this._all.get(socketId);
    if (doing === "nothing") {
      if (before?.examineeId !== examineeId) return [];
      this._all.delete(socketId);
      return [examineeId];
    }
    this._all.set(socketId, { examineeId, by, byName, doing, at: this._now() });
    if (before?.examineeId === examineeId && before.doing === doing) return [];
    return before ? [before.examineeId, examineeId] : [examineeId];
  }

  /** Forget those who were not heard for a while. @returns {string[]} the examinees about whom something has changed */
  forget() {
    const since = this._now() - FORGET_ACTIVITY_SECONDS * 1000;
    const gone = [...this._all].filter(([, { at }]) => at < since);
    for (const [socketId] of gone) this._all.delete(socketId);
    return gone.map(([, { examineeId }]) => examineeId);
  }

  /**
   * Say what the others are doing with an examinee; empty: nothing.
   * @param {string} examineeId @param {string} own the proctor of this page, who may have a second page
   */
  textOf(examineeId, own) {
    const others = [...this._all.values()].filter((one) => one.examineeId === examineeId && one.by !== own);
    const texts = new Set(others.map(({ by, byName, doing }) => (
      t(doing === "writing" ? "activity.writing" : "activity.looking", { by: person(by, byName) }))));
    return [...texts].sort().join(" · ");
  }
}
