/**
 * Maps the phase of the exam to what the examinee's page shows: the clock, and the state of the connection before the start and
 * after the end. Pure: no DOM, no clock.
 */

/** @typedef {import("../examwire.js").ExamPhase} ExamPhase */
/** @typedef {import("../examwire.js").Finish} Finish */
/** @typedef {import("./connection-texts.js").View} View */

/** From so many seconds the clock is highlighted. */
export const SOON_SECONDS = 300;

/** The views after the end, by its reason. @type {Record<Finish["reason"], string>} */
const ENDS = { HANDED_IN: "finished", DECIDED: "decided", PLAN_ENDED: "over" };

/**
 * Change the view of the connection before the start and after the end: nothing is wrong then, so nothing is red, and after the
 * end the connection does not matter any more.
 * @param {View} view
 * @param {ExamPhase} phase
 * @param {Finish["reason"] | null} endReason
 * @returns {View}
 */
export function viewInExam(view, phase, endReason) {
  if (endReason !== null) {
    return { tone: "good", icon: "good", key: ENDS[endReason], button: null, next: null, asksToken: false, asks: null };
  }
  if (phase !== "BEFORE") return view;
  const key = view.key === "connected" ? "waiting" : view.key;
  return { ...view, key, tone: view.tone === "bad" ? "warn" : view.tone };
}

/**
 * What the clock shows: text keys with the time left, which is `null` when there is none.
 * `clock`: the large line; `text`: below it; `at`: the moment that the text names.
 * @typedef {{tone: "info" | "warn" | "quiet", clock: string, seconds: number | null, text: string, at: string | null}} ClockView
 */

/**
 * @param {{phase: ExamPhase, seconds: number | null}} exam
 * @param {import("../examwire.js").PlanState | null} plan
 * @returns {ClockView | null} `null`: there is nothing to show
 */
export function clockView({ phase, seconds }, plan) {
  const startsAt = plan?.startsAt ?? null;
  const endsAt = plan?.endsAt ?? null;
  switch (phase) {
    case "UNKNOWN":
      return null;
    case "BEFORE":
      if (seconds === null) return { tone: "info", clock: "exam.notBegun", seconds, text: "exam.beginsByProctor", at: null };
      return { tone: "info", clock: "exam.startsIn", seconds, text: "exam.begins", at: startsAt };
    case "RUNNING": {
      if (seconds === null) return { tone: "info", clock: "exam.running", seconds, text: "exam.noEnd", at: null };
      return { tone: seconds > SOON_SECONDS ? "info" : "warn", clock: "exam.left", seconds, text: "exam.until", at: endsAt };
    }
    case "GRACE":
      return { tone: "warn", clock: "exam.grace", seconds, text: "exam.handInNow", at: endsAt };
    case "OVER":
      return { tone: "quiet", clock: "exam.timeUp", seconds: null, text: "exam.ending", at: null };
  }
}
