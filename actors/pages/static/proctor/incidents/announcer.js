/**
 * Announces to screen readers what has happened on the wall, in summaries of all plans.
 *
 * @typedef {import("../session/watched-plan.js").WatchedPlan} WatchedPlan
 */

import { t } from "../../common/i18n.js";
import { element } from "../../common/elements.js";

/** The least seconds between two summaries: people switch off a screen reader that speaks all the time. */
const EVERY_SECONDS = 5;
/** The number of results is announced when the typing has stopped for so long (ms). */
const TYPING_MS = 700;

/** Writes into the live region of the page. */
export class Announcer {
  /** @param {WatchedPlan[]} plans @param {() => WatchedPlan} shown the plan that is shown */
  constructor(plans, shown) {
    this._plans = plans;
    this._shown = shown;
    this._nextAt = 0;
    /** @type {ReturnType<typeof setTimeout> | undefined} */ this._results = undefined;
  }

  /** Announce a sentence with the next summary. @param {string} sentence */
  say(sentence) {
    this._shown().say(sentence);
  }

  /** Announce how many examinees a search has found: the latest number only, and at once. @param {() => number} count */
  resultsSoon(count) {
    clearTimeout(this._results);
    this._results = setTimeout(() => {
      this.say(t("said.found", { n: count() }));
      this._announce();
    }, TYPING_MS);
  }

  /** Call it each second. */
  tick() {
    if (performance.now() >= this._nextAt) this._announce();
  }

  /** Announce everything that was not announced yet. */
  _announce() {
    const summaries = this._plans.map((plan) => this.named(plan, plan.summary.take())).filter(Boolean);
    if (summaries.length === 0) return;
    this._nextAt = performance.now() + EVERY_SECONDS * 1000;
    element("live").textContent = summaries.join(" ");
  }

  /** Put the name of a plan in front of a sentence if there are several plans. @param {WatchedPlan} plan @param {string} sentence */
  named(plan, sentence) {
    return this._plans.length > 1 && sentence ? t("said.of", { plan: plan.name, what: sentence }) : sentence;
  }
}
