/**
 * Sends an action about many examinees, one for each, so that each is in the log and has its own effect and answer. Only a few
 * are sent at a time, for after a lost connection all unanswered ones are sent again at once.
 * Pure but for its timer.
 *
 * `waiting`: not sent yet. `asked`: not answered yet. `recorded`: in the log. `done`: in effect. `refused`: with `why`.
 * `open`: no answer; it may be in the log. `skipped`: the action was no longer for this examinee, so nothing was sent.
 *
 * @typedef {"readmit" | "finish" | "resume" | "extend_exam"} BatchKind
 * @typedef {"waiting" | "asked" | "recorded" | "done" | "refused" | "open" | "skipped"} Step
 * @typedef {{examineeId: string, requestId: string, step: Step, why: string}} Item
 * @typedef {{outcome: "accepted" | "refused" | "unknown", why: string}} Answer
 * @typedef {{
 *   kind: BatchKind,
 *   ask: (examineeId: string, requestId: string, seconds: number) => Promise<Answer>,
 *   state: (examineeId: string) => import("../examinees.js").State | null,
 *   ready: () => boolean,
 *   changed: () => void,
 *   newId: () => string,
 *   now?: () => number,
 * }} Given `state`: as the plan says it now. `ready`: whether the plan is known as it is now, so that `state` can be
 *   trusted. `now`: ms.
 */

/** The states of examinees for whom an action is not. @type {readonly State[]} */
const ENDED = ["finished", "over", "removed"];

/** @typedef {import("../examinees.js").State} State */

/** Whether an action is for examinees in a state. @type {Readonly<Record<BatchKind, (state: State | null) => boolean>>} */
export const APPLIES = Object.freeze({
  readmit: (state) => state === "exhausted",
  finish: (state) => state !== null && !ENDED.includes(state),
  resume: (state) => state === "finished",
  extend_exam: (state) => state !== null && !["over", "removed"].includes(state),
});

/** The most unanswered actions. */
export const AT_ONCE = 16;
/** Actions per second: half of what a server reads from one socket, so heartbeats and other actions have room. */
export const PER_SECOND = 50;

/** One kind of action about many examinees; calls `changed` after each step. */
export class ActionBatch {
  /** @param {Given} given */
  constructor({ kind, ask, state, ready, changed, newId, now = () => performance.now() }) {
    this.kind = kind;
    /** How much longer (seconds), of an extension. */ this.seconds = 0;
    this._applies = APPLIES[kind];
    this._ask = ask;
    this._state = state;
    this._ready = ready;
    this._changed = changed;
    this._newId = newId;
    this._now = now;
    /** @type {Map<string, Item>} by examineeId */ this._all = new Map();
    /** How many actions may be sent now: grows by `PER_SECOND`. */ this._budget = AT_ONCE;
    this._budgetUpdated = now();
    /** @type {ReturnType<typeof setTimeout> | undefined} */ this._timer = undefined;
  }

  /** The `ids` that the action is for, and for whom it is not under way. @param {Iterable<string>} ids */
  candidates(ids) {
    return [...ids].filter((id) => this._applies(this._state(id)) && !this._isUnderWay(id));
  }

  /** Whether an examinee's action is under way; `again()` repeats it with the same id. @param {string} id */
  _isUnderWay(id) {
    const step = this._all.get(id)?.step;
    return step === "waiting" || step === "asked" || step === "recorded" || step === "open";
  }

  /**
   * Add examinees; actions under way continue, finished ones are removed.
   * @param {string[]} ids @param {number} [seconds] of an extension
   */
  add(ids, seconds = 0) {
    this.seconds = seconds;
    const added = this.candidates(ids);
    if (added.length === 0) return;
    if (this.over) this._forget((item) => item.step !== "open");
    for (const examineeId of added) {
      this._all.set(examineeId, { examineeId, requestId: this._newId(), step: "waiting", why: "" });
    }
    this.goOn();
  }

  /** Repeat the refused and unanswered actions, with the same ids. */
  again() {
    for (const item of this._all.values()) {
      if (item.step !== "refused" && item.step !== "open") continue;
      item.step = "waiting";
      item.why = "";
    }
    this.goOn();
  }

  /** Remove the results: they were read. */
  dismiss() {
    if (this.answered) this._forget(() => true);
  }

  /** Remove items. @param {(item: Item) => boolean} which */
  _forget(which) {
    for (const [id, item] of this._all) if (which(item)) this._all.delete(id);
  }

  /** Continue: the plan has changed, or is up to date again. */
  goOn() {
    for (const item of this._all.values()) this._update(item);
    this._send();
    this._changed();
  }

  /** Update an action by the plan, which shows its effect even if its event was missed. @param {Item} item */
  _update(item) {
    if (item.step !== "recorded" && item.step !== "open") return;
    const state = this._state(item.examineeId);
    if (this.kind === "extend_exam") {
      if (item.step === "recorded") item.step = "done"; // no state shows it
      return;
    }
    if (this._applies(state)) return;
    item.step = item.step === "open" && (state === "removed" || state === null) ? "skipped" : "done";
  }

  /** Send the actions that are allowed now. */
  _send() {
    if (!this._ready()) return; // the plan is out of date: do not act on it
    const now = this._now();
    this._budget = Math.min(AT_ONCE, this._budget + ((now - this._budgetUpdated) * PER_SECOND) / 1000);
    this._budgetUpdated = now;
    let unanswered = this._count("asked");
    for (const item of this._all.values()) {
      if (item.step !== "waiting") continue;
      if (!this._applies(this._state(item.examineeId))) {
        item.step = "skipped"; // another proctor has decided about them: keep that decision
        continue;
      }
      if (unanswered >= AT_ONCE) return; // the next answer continues
      if (this._budget < 1) {
        this._timer ??= setTimeout(() => {
          this._timer = undefined;
          this.goOn();
        }, Math.ceil(((1 - this._budget) * 1000) / PER_SECOND));
        return;
      }
      this._budget -= 1;
      unanswered += 1;
      item.step = "asked";
      void this._sendOne(item);
    }
  }

  /** Send one action, and note its answer. @param {Item} item */
  async _sendOne(item) {
    const { outcome, why } = await this._ask(item.examineeId, item.requestId, this.seconds);
    item.step = outcome === "accepted" ? "recorded" : outcome === "refused" ? "refused" : "open";
    item.why = why;
    this.goOn();
  }

  // -- the progress ------------------------------------------------------------------------------------

  /** Count the actions in a step. @param {Step} step */
  _count(step) {
    return this.itemsIn(step).length;
  }

  /** Return the actions in a step. @param {Step} step @returns {Item[]} */
  itemsIn(step) {
    return [...this._all.values()].filter((item) => item.step === step);
  }

  get size() {
    return this._all.size;
  }

  /** Whether every action is answered. */
  get answered() {
    return this._count("waiting") + this._count("asked") === 0;
  }

  /** Whether every action is answered and in effect. */
  get over() {
    return this.answered && this._count("recorded") === 0;
  }
}
