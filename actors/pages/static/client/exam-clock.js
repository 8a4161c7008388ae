// The clock of an exam, by the server's time: never by the clock of this computer, which people set. Pure: no DOM, no timers, no
// imports. `examAt` is the same as `exam_at` of `protocol/client/exam_clock.py`: a test compares them.

/**
 * Where the exam stands for this client. UNKNOWN: the server has not said yet. GRACE: the time is up, and answers may still be
 * handed in. OVER: the time and the grace are up, or the plan is closed.
 * @typedef {"UNKNOWN" | "BEFORE" | "RUNNING" | "GRACE" | "OVER"} ExamPhase
 */

/**
 * The data of `plan_state`; times are RFC 3339. An examinee gets their own times and `graceSeconds`,
 * a proctor the `policy`.
 * @typedef {{status: "SCHEDULED" | "OPEN" | "CLOSED", name?: string, startsAt?: string, endsAt?: string, graceSeconds?: number,
 *   policy?: {graceSeconds?: number}, serverTime?: string, version?: number}} PlanState
 */

/**
 * Return the phase at `now` (ms since the epoch, by the server), and the seconds until the next: until the start, the end, or
 * the end of the grace. `null`: nobody has set a time for it.
 * @param {PlanState | null} plan
 * @param {number | null} now
 * @returns {{phase: ExamPhase, seconds: number | null}}
 */
export function examAt(plan, now) {
  if (plan === null || now === null) return { phase: "UNKNOWN", seconds: null };
  if (plan.status === "CLOSED") return { phase: "OVER", seconds: null };
  const end = plan.endsAt ? Date.parse(plan.endsAt) : null;
  const closing = end === null ? null : end + 1000 * (plan.graceSeconds ?? plan.policy?.graceSeconds ?? 0);
  if (closing !== null && now >= closing) return { phase: "OVER", seconds: null };
  const start = plan.startsAt ? Date.parse(plan.startsAt) : null;
  if (start !== null && now < start) return { phase: "BEFORE", seconds: (start - now) / 1000 };
  if (start === null && plan.status === "SCHEDULED") return { phase: "BEFORE", seconds: null };
  if (end === null || closing === null) return { phase: "RUNNING", seconds: null };
  if (now < end) return { phase: "RUNNING", seconds: (end - now) / 1000 };
  return { phase: "GRACE", seconds: (closing - now) / 1000 };
}

/** When so many seconds are left, that is announced to screen readers. */
const ANNOUNCED_SECONDS = [600, 300];

/**
 * The minutes to announce, when the time left has become so short; `null`: none. The clock itself is not announced.
 * @param {number | null} before seconds left when this was asked last
 * @param {number | null} now
 */
export function minutesToAnnounce(before, now) {
  if (before === null || now === null) return null;
  return ANNOUNCED_SECONDS.some((mark) => before > mark && now <= mark) ? Math.ceil(now / 60) : null;
}

/**
 * Format a duration as a clock: "0:07", "12:30", "1:02:03". It is the same in all languages, and its width is steady.
 * @param {number} seconds negative counts as 0
 */
export function clockText(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (/** @type {number} */ n) => String(n).padStart(2, "0");
  return hours > 0 ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

/**
 * The server's time, from the moment at which a frame with `serverTime` arrived. In between a clock counts on that nobody can
 * set.
 *
 *   const clock = new ServerClock(() => performance.now());
 *   clock.restart(welcome.serverTime);
 *   clock.now(); // ms since the epoch
 */
export class ServerClock {
  /** How much the server is ahead of the steady clock, in ms. @type {number | null} */ #ahead = null;
  /** @type {() => number} */ #steady;

  /** @param {() => number} steady ms by a clock that nobody can set */
  constructor(steady) {
    this.#steady = steady;
  }

  /** Ms since the epoch by the server; `null`: not known. */
  now() {
    return this.#ahead === null ? null : this.#steady() + this.#ahead;
  }

  /** Begin anew with the time of a welcome. @param {unknown} serverTime RFC 3339 */
  restart(serverTime) {
    this.#ahead = this.#aheadBy(serverTime) ?? this.#ahead;
  }

  /**
   * Correct the clock by the time of a later frame. A frame that was long under way says too little, so the largest time
   * counts.
   * @param {unknown} serverTime RFC 3339
   */
  correct(serverTime) {
    const ahead = this.#aheadBy(serverTime);
    if (ahead !== null) this.#ahead = Math.max(ahead, this.#ahead ?? ahead);
  }

  /** @param {unknown} serverTime @returns {number | null} */
  #aheadBy(serverTime) {
    const at = typeof serverTime === "string" ? Date.parse(serverTime) : Number.NaN;
    return Number.isFinite(at) ? at - this.#steady() : null;
  }
}
