/**
 * Shows the readmission of many examinees: the confirmation, the progress, and the results.
 *
 * @typedef {import("./batch.js").Item} Item
 * @typedef {import("./batch.js").Readmission} Readmission
 */

import { t } from "../../common/i18n.js";
import { element, setText } from "../../common/elements.js";

/** The most names that are listed; the others are counted. */
const MOST_NAMES = 5;

/**
 * List some names, and how many more there are.
 * @param {string[]} names
 */
export function namesOf(names) {
  const first = names.slice(0, MOST_NAMES).join(", ");
  return names.length > MOST_NAMES ? t("several.more", { who: first, n: names.length - MOST_NAMES }) : first;
}

/**
 * Describe the progress in one line.
 * @param {Readmission} readmission
 * @param {boolean} ready whether the page is connected and up to date
 */
export function summaryOf(readmission, ready) {
  const done = readmission.itemsIn("done").length;
  const [refused, open, recorded] = [readmission.itemsIn("refused"), readmission.itemsIn("open"), readmission.itemsIn("recorded")];
  const skipped = readmission.itemsIn("skipped").length;
  const counted = { done, n: readmission.size };
  if (!readmission.answered) return t(ready ? "several.going" : "several.paused", counted);
  const parts = [t("several.done", { n: done })];
  if (recorded.length > 0) parts.push(t("several.recorded", { n: recorded.length }));
  if (refused.length > 0) parts.push(t("several.refused", { n: refused.length, who: withReasons(refused) }));
  if (open.length > 0) parts.push(t("several.open", { n: open.length, who: namesOf(open.map((item) => item.examineeId)) }));
  if (skipped > 0) parts.push(t("several.skipped", { n: skipped }));
  return parts.join(", ");
}

/** Group the refused by reason. @param {Item[]} refused */
function withReasons(refused) {
  const reasons = [...new Set(refused.map((item) => item.why))];
  return reasons.map((why) => {
    const who = namesOf(refused.filter((item) => item.why === why).map((item) => item.examineeId));
    return why ? `${who} (${why})` : who;
  }).join("; ");
}

/** The dialog that asks, and the line with the progress and the results. */
export class ReadmitMany {
  /**
   * @param {{plan: () => import("../session/watched-plan.js").WatchedPlan, name: (id: string) => string,
   *   leave: () => void}} given `plan`: the shown one. `name`: of an examinee. `leave`: move the focus, for the focused
   *   element is gone
   */
  constructor(given) {
    this._given = given;
    /** The ids that a search or filter shows. @type {string[]} */ this._listed = [];
    /** The ids in the open dialog. @type {string[]} */ this._asked = [];
    /** Runs that are not over yet: their end is announced. @type {Set<Readmission>} */ this._running = new Set();
    this._wire();
  }

  /** That of the shown plan. @returns {Readmission} */
  get _readmission() {
    return this._given.plan().readmission;
  }

  /** Return those who can be readmitted. @param {Iterable<string>} ids */
  candidates(ids) {
    return this._readmission.candidates(ids);
  }

  /** Offer to readmit those listed on the wall by a search or filter. @param {string[]} ids */
  offer(ids) {
    this._listed = ids;
    const { length: n } = this.candidates(ids);
    const row = element("several");
    const focused = row.contains(document.activeElement);
    row.hidden = n === 0;
    if (n > 0) setText(element("readmit-listed"), t("several.readmit", { n }));
    else if (focused) this._given.leave();
  }

  /** Ask the proctor to confirm. @param {Iterable<string>} ids */
  ask(ids) {
    const wanted = this.candidates(ids);
    if (wanted.length === 0) return;
    this._asked = wanted;
    const dialog = /** @type {HTMLDialogElement} */ (element("several-dialog"));
    dialog.returnValue = "no";
    setText(element("several-question"), t("several.question", { n: wanted.length }));
    setText(element("several-who"), namesOf(wanted.map(this._given.name)));
    dialog.showModal();
  }

  _wire() {
    const dialog = /** @type {HTMLDialogElement} */ (element("several-dialog"));
    dialog.addEventListener("close", () => {
      const ids = this._asked;
      this._asked = [];
      if (dialog.returnValue === "yes") this._begin(() => this._readmission.add(ids));
      else if (document.activeElement === null || document.activeElement === document.body) this._given.leave();
    });
    element("readmit-listed").addEventListener("click", () => this.ask(this._listed));
    element("several-again").addEventListener("click", () => this._begin(() => this._readmission.again()));
    element("several-dismiss").addEventListener("click", () => {
      this._readmission.dismiss();
      this.show();
      this._given.leave();
    });
  }

  /** Begin, and move the focus to the progress line: the pressed button disappears. @param {() => void} work */
  _begin(work) {
    this._running.add(this._readmission);
    work();
    this.offer(this._listed);
    if (!element("several-line").hidden) element("several-line").focus();
    else this._given.leave();
  }

  /** Draw everything, also after a change of language. */
  show() {
    const readmission = this._readmission;
    const line = element("several-line");
    line.hidden = readmission.size === 0;
    if (line.hidden) return;
    const text = summaryOf(readmission, this._given.plan().upToDate);
    const again = readmission.itemsIn("refused").length + readmission.itemsIn("open").length;
    line.dataset.tone = again > 0 && readmission.answered ? "warn" : readmission.over ? "good" : "info";
    setText(element("several-text"), text);
    const progress = /** @type {HTMLProgressElement} */ (element("several-progress"));
    progress.hidden = readmission.over;
    progress.max = readmission.size;
    progress.value = readmission.itemsIn("done").length;
    const button = element("several-again");
    button.hidden = again === 0 || !readmission.answered;
    setText(button, t("several.again", { n: again }));
    const dismiss = element("several-dismiss");
    dismiss.hidden = !readmission.answered;
    this.announce(this._given.plan());
  }

  /** Announce the end of a run, also of a plan that is not shown. @param {import("../session/watched-plan.js").WatchedPlan} plan */
  announce(plan) {
    const { readmission } = plan;
    if (!readmission.over || !this._running.delete(readmission)) return;
    if (readmission.size > 0) plan.say(`${summaryOf(readmission, plan.upToDate)}.`);
  }
}
