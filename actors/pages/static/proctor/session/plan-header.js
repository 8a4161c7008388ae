/**
 * The header of the shown plan: whether the exam runs, its clock by the servers' time, and more time for everybody.
 *
 * @typedef {import("./watched-plan.js").WatchedPlan} WatchedPlan
 * @typedef {import("./exam-times.js").ExamTimes} ExamTimes
 */

import { clock, duration, shortTime, t, time } from "../../common/i18n.js";
import { element, setText } from "../../common/elements.js";
import { labelText } from "../texts.js";

const TONES = Object.freeze({ BEFORE: "info", RUNNING: "good", OVER: "quiet" });

/**
 * Return the sentence of the plan's clock: until the beginning or the end, who has more time, since when it is over.
 * @param {ExamTimes} times @param {number} now ms since the epoch, by the servers' clock
 */
export function clockText(times, now) {
  const { start, end, grace, longer } = times;
  const phase = times.phase(now);
  if (phase === "BEFORE") return start === null ? "" : t("exam.startsIn", { clock: clock(Math.ceil((start - now) / 1000)) });
  const sentences = [];
  if (times.status === "CLOSED") {
    const since = times.closed ?? end;
    return since === null ? "" : t("exam.overSince", { time: shortTime(since) });
  }
  if (end === null) return t("exam.noEnd");
  if (phase === "OVER") sentences.push(t("exam.overSince", { time: shortTime(end) }));
  else if (now < end) sentences.push(t("exam.left", { clock: clock(Math.ceil((end - now) / 1000)) }));
  else sentences.push(t("exam.grace", { clock: clock(Math.ceil((end + grace - now) / 1000)) }));
  if (longer.count > 0) sentences.push(t("exam.longer", { n: longer.count, time: shortTime(longer.until) }));
  return sentences.join(", ");
}

/** Say whom alone the proctor sees. @param {Record<string, string[]> | null} scope */
function scopeText(scope) {
  const labels = Object.entries(scope ?? {}).flatMap(([name, values]) => values.map((value) => labelText(name, value)));
  return labels.length === 0 ? "" : t("exam.scope", { labels: labels.join(", ") });
}

/** Draws the header; call `show` each second. */
export class PlanHeader {
  /** Draw. @param {WatchedPlan} plan */
  show(plan) {
    const { times } = plan;
    const now = plan.now();
    const phase = times.phase(now);
    // A plan that nobody has set up has no beginning and no end.
    element("exam").hidden = !times.known && plan.scope === null;
    setText(element("exam-scope"), scopeText(plan.scope));
    const status = element("exam-status");
    status.dataset.tone = TONES[phase];
    status.hidden = !times.known;
    setText(status, t(`exam.${phase}`));
    setText(element("exam-clock"), times.known ? clockText(times, now) : "");
    const extend = element("extend-all");
    extend.hidden = !plan.canAct("extend_exam") || plan.scope !== null; // there are others whom this proctor does not see
    this._showAction(plan);
  }

  /** Say what has become of the latest action for everybody. @param {WatchedPlan} plan */
  _showAction(plan) {
    const [action] = plan.actions.of(null);
    const line = element("exam-action");
    line.hidden = action === undefined;
    if (action === undefined) return;
    const what = t("did.extend_exam.all", { duration: duration(action.seconds) });
    line.dataset.outcome = action.outcome;
    const state = action.outcome === "pending" && !plan.client.connected ? "did.waiting" : `did.${action.outcome}`;
    setText(line, `${what}: ${t(state, { why: action.why })} (${time(action.at)})`);
  }
}
