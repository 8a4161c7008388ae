/**
 * When the exam begins and ends, for the plan and for each examinee, as `plan_state` says. The same rule as `phase_of` of
 * `protocol/rules/plan_state.py`. Pure: no DOM, no clock of its own; times are ms since the epoch.
 *
 * @typedef {"BEFORE" | "RUNNING" | "OVER"} Phase where an examinee is in the exam
 * @typedef {{startsAt?: string, endsAt?: string}} Times RFC 3339
 * @typedef {{status: "SCHEDULED" | "OPEN" | "CLOSED", name?: string, policy?: {graceSeconds?: number},
 *   ownTimes?: Record<string, Times>, closedAt?: string, closedBy?: string} & Times} PlanState the data of `plan_state`
 */

/** The times of a plan; of a plan that nobody has set up, the exam runs all the time. */
export class ExamTimes {
  /** @param {Record<string, any> | null} plan the newest `plan_state`; `null`: not known yet */
  constructor(plan) {
    const state = /** @type {PlanState} */ (plan ?? { status: "OPEN" });
    this.status = state.status;
    /** Whether somebody has set the plan up. */ this.known = Boolean(plan && (state.startsAt || state.endsAt || state.name || state.status !== "OPEN"));
    /** When it was closed. */ this.closed = parsed(state.closedAt);
    this.start = parsed(state.startsAt);
    this.end = parsed(state.endsAt);
    /** So long after its end (ms) the exam is over. */ this.grace = 1000 * (state.policy?.graceSeconds ?? 0);
    /** Own times by examineeId, of those whose times differ. @type {Map<string, {start: number | null, end: number | null}>} */
    this.own = new Map(Object.entries(state.ownTimes ?? {}).map(([id, own]) => (
      [id, { start: parsed(own.startsAt), end: parsed(own.endsAt) }])));
    /** The moments at which the exam begins or ends for somebody, in order. @type {number[]} */
    this._changes = [{ start: this.start, end: this.end }, ...this.own.values()]
      .flatMap(({ start, end }) => [start, end === null ? null : end + this.grace])
      .filter((moment) => moment !== null)
      .sort((a, b) => a - b);
  }

  /**
   * Return where an examinee is in the exam.
   * @param {string} examineeId @param {number} now
   * @returns {Phase}
   */
  phaseOf(examineeId, now) {
    return this._phase(this.own.get(examineeId), now);
  }

  /** Return where those without own times are in the exam. @param {number} now @returns {Phase} */
  phase(now) {
    return this._phase(undefined, now);
  }

  /** @param {{start: number | null, end: number | null} | undefined} own @param {number} now @returns {Phase} */
  _phase(own, now) {
    if (this.status === "CLOSED") return "OVER";
    const end = own === undefined ? this.end : own.end;
    if (end !== null && now >= end + this.grace) return "OVER";
    const ownStart = own?.start ?? null;
    if (ownStart !== null && ownStart !== this.start) return now < ownStart ? "BEFORE" : "RUNNING";
    return this.status === "SCHEDULED" && (this.start === null || now < this.start) ? "BEFORE" : "RUNNING";
  }

  /** Return when the exam ends for an examinee, without the grace; `null`: when somebody closes the plan. @param {string} examineeId */
  endOf(examineeId) {
    const own = this.own.get(examineeId);
    return own === undefined ? this.end : own.end;
  }

  /** Return when the exam begins for an examinee; `null`: no time is set. @param {string} examineeId */
  startOf(examineeId) {
    return this.own.get(examineeId)?.start ?? this.start;
  }

  /**
   * Return the start that an examinee has otherwise than the plan, and the end if it is later than the plan's; `null`: none.
   * @param {string} examineeId
   */
  differences(examineeId) {
    const own = this.own.get(examineeId);
    if (own === undefined) return NO_DIFFERENCE;
    const later = own.end !== null && (this.end === null || own.end > this.end);
    return { ownStart: own.start === this.start ? null : own.start, laterEnd: later ? own.end : null };
  }

  /** Return the first moment after `now` at which somebody's phase may change; `Infinity`: none. @param {number} now */
  nextChange(now) {
    return this._changes.find((moment) => moment > now) ?? Infinity;
  }

  /** How many have more time than the plan, and the latest of their ends; the count is 0 if the plan has no end. */
  get longer() {
    const { end } = this;
    const ends = [...this.own.values()].map((own) => own.end).filter((own) => own !== null && end !== null && own > end);
    return { count: ends.length, until: Math.max(...ends.map(Number)) };
  }
}

/** @type {Readonly<{ownStart: number | null, laterEnd: number | null}>} */
const NO_DIFFERENCE = Object.freeze({ ownStart: null, laterEnd: null });

/** @param {string | undefined} timestamp RFC 3339 @returns {number | null} */
function parsed(timestamp) {
  const moment = timestamp ? Date.parse(timestamp) : Number.NaN;
  return Number.isNaN(moment) ? null : moment;
}
