/**
 * Readmitting many at once: one action for each of them, so that each is in the log, has one effect and its own answer.
 * Not all at the same time, for what a lost connection leaves unanswered is sent again in one go on the next one.
 * Pure but for its timer.
 *
 * `waiting`: not sent yet. `asked`: not answered yet. `recorded`: in the log. `done`: in effect. `refused`: with `why`.
 * `open`: no answer; it may be in the log. `spared`: was no longer shut out when its turn came, so nothing was sent.
 *
 * @typedef {"waiting" | "asked" | "recorded" | "done" | "refused" | "open" | "spared"} Step
 * @typedef {{examineeId: string, requestId: string, step: Step, why: string}} One
 * @typedef {{outcome: "accepted" | "refused" | "unknown", why: string}} Answer
 * @typedef {{
 *   ask: (examineeId: string, requestId: string) => Promise<Answer>,
 *   state: (examineeId: string) => import("../examinees.js").State | null,
 *   ready: () => boolean,
 *   changed: () => void,
 *   newId: () => string,
 *   now?: () => number,
 * }} Given `state`: as the plan says it now. `ready`: whether the plan is known as it is now, so that `state` can be
 *   trusted. `now`: ms.
 */

/** So many are unanswered at most. */
export const AT_ONCE = 16;
/** Half of what a server reads from one socket before it slows down: heartbeats and other actions have room. */
export const PER_SECOND = 50;

export class Readmission {
  /** @param {Given} given */
  constructor({ ask, state, ready, changed, newId, now = () => performance.now() }) {
    this._ask = ask;
    this._state = state;
    this._ready = ready;
    this._changed = changed;
    this._newId = newId;
    this._now = now;
    /** @type {Map<string, One>} by examineeId */ this._all = new Map();
    this._turns = AT_ONCE;
    this._filled = now();
    /** @type {ReturnType<typeof setTimeout> | undefined} */ this._timer = undefined;
  }

  /** Those of `ids` who can be readmitted: shut out by the attempt limit, and not in hand. @param {Iterable<string>} ids */
  candidates(ids) {
    return [...ids].filter((id) => this._state(id) === "exhausted" && !this._holds(id));
  }

  /** Who is tried again keeps the action's id, so this does not begin a second one. @param {string} id */
  _holds(id) {
    const step = this._all.get(id)?.step;
    return step === "waiting" || step === "asked" || step === "recorded" || step === "open";
  }

  /** Begin with these; what is under way goes on, what is over is forgotten. @param {string[]} ids */
  add(ids) {
    const wanted = this.candidates(ids);
    if (wanted.length === 0) return;
    if (this.over) this._forget((one) => one.step !== "open");
    for (const examineeId of wanted) {
      this._all.set(examineeId, { examineeId, requestId: this._newId(), step: "waiting", why: "" });
    }
    this.goOn();
  }

  /** Those refused or unanswered once more, with the same action ids. */
  again() {
    for (const one of this._all.values()) {
      if (one.step !== "refused" && one.step !== "open") continue;
      one.step = "waiting";
      one.why = "";
    }
    this.goOn();
  }

  /** What became of them has been read. */
  dismiss() {
    if (this.answered) this._forget(() => true);
  }

  /** @param {(one: One) => boolean} which */
  _forget(which) {
    for (const [id, one] of this._all) if (which(one)) this._all.delete(id);
  }

  /** The plan has changed, or is known again. */
  goOn() {
    for (const one of this._all.values()) this._look(one);
    this._send();
    this._changed();
  }

  /** Whether an action is in effect is seen by the plan, also when its event was missed. @param {One} one */
  _look(one) {
    if (one.step !== "recorded" && one.step !== "open") return;
    const state = this._state(one.examineeId);
    if (state === "exhausted") return;
    one.step = one.step === "open" && (state === "removed" || state === null) ? "spared" : "done";
  }

  _send() {
    if (!this._ready()) return; // nobody is let in by what was so before the connection was lost
    const now = this._now();
    this._turns = Math.min(AT_ONCE, this._turns + ((now - this._filled) * PER_SECOND) / 1000);
    this._filled = now;
    let asked = this._count("asked");
    for (const one of this._all.values()) {
      if (one.step !== "waiting") continue;
      if (this._state(one.examineeId) !== "exhausted") {
        one.step = "spared"; // somebody else let them in meanwhile, or removed them: that decision stands
        continue;
      }
      if (asked >= AT_ONCE) return; // an answer makes room
      if (this._turns < 1) {
        this._timer ??= setTimeout(() => {
          this._timer = undefined;
          this.goOn();
        }, Math.ceil(((1 - this._turns) * 1000) / PER_SECOND));
        return;
      }
      this._turns -= 1;
      asked += 1;
      one.step = "asked";
      void this._one(one);
    }
  }

  /** @param {One} one */
  async _one(one) {
    const { outcome, why } = await this._ask(one.examineeId, one.requestId);
    one.step = outcome === "accepted" ? "recorded" : outcome === "refused" ? "refused" : "open";
    one.why = why;
    this.goOn();
  }

  // -- how it stands -----------------------------------------------------------------------------------

  /** @param {Step} step */
  _count(step) {
    return this.those(step).length;
  }

  /** @param {Step} step @returns {One[]} */
  those(step) {
    return [...this._all.values()].filter((one) => one.step === step);
  }

  get size() {
    return this._all.size;
  }

  /** Nothing waits to be sent or answered. */
  get answered() {
    return this._count("waiting") + this._count("asked") === 0;
  }

  /** And what is in the log is in effect. */
  get over() {
    return this.answered && this._count("recorded") === 0;
  }
}
