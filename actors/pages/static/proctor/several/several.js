/**
 * Shows actions about many examinees: the confirmation, the progress, and the results.
 *
 * @typedef {import("./batch.js").Item} Item
 * @typedef {import("./batch.js").ActionBatch} ActionBatch
 * @typedef {import("./batch.js").BatchKind} BatchKind
 */

import { t } from "../../common/i18n.js";
import { element, setText } from "../../common/elements.js";
import { ExamDialog } from "./exam-dialog.js";

/** The buttons for those whom a search or filter shows. @type {readonly BatchKind[]} */
const KINDS = ["readmit", "finish", "resume", "extend_exam"];

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
 * @param {ActionBatch} batch
 * @param {boolean} ready whether the page is connected and up to date
 */
export function summaryOf(batch, ready) {
  const done = batch.itemsIn("done").length;
  const [refused, open, recorded] = [batch.itemsIn("refused"), batch.itemsIn("open"), batch.itemsIn("recorded")];
  const skipped = batch.itemsIn("skipped").length;
  const counted = { done, n: batch.size };
  if (!batch.answered) return t(`several.${ready ? "going" : "paused"}.${batch.kind}`, counted);
  const parts = [t(`several.done.${batch.kind}`, { n: done })];
  if (recorded.length > 0) parts.push(t("several.recorded", { n: recorded.length }));
  if (refused.length > 0) parts.push(t("several.refused", { n: refused.length, who: withReasons(refused) }));
  if (open.length > 0) parts.push(t("several.open", { n: open.length, who: namesOf(open.map((item) => item.examineeId)) }));
  if (skipped > 0) parts.push(t(`several.skipped.${batch.kind}`, { n: skipped }));
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

/** The buttons, the dialog that asks, and the line with the progress and the results. */
export class SeveralActions {
  /**
   * @param {{plan: () => import("../session/watched-plan.js").WatchedPlan, name: (id: string) => string,
   *   leave: () => void}} given `plan`: the shown one. `name`: of an examinee. `leave`: move the focus, for the focused
   *   element is gone
   */
  constructor(given) {
    this._given = given;
    /** The ids that a search or filter shows. @type {string[]} */ this._listed = [];
    /** The last run for those listed, until the list was chosen anew. @type {ActionBatch | null} */ this._ofListed = null;
    /** Runs that are not over yet: their end is announced. @type {Set<ActionBatch>} */ this._running = new Set();
    this._dialog = new ExamDialog();
    this._wire();
  }

  /** The action of the shown plan that has begun last. @returns {ActionBatch} */
  get _batch() {
    return this._given.plan().batch;
  }

  /** Return those whom an action is for. @param {BatchKind} kind @param {Iterable<string>} ids */
  candidates(kind, ids) {
    const plan = this._given.plan();
    return plan.canAct(kind) ? plan.batches[kind].candidates(ids) : [];
  }

  /** Offer the actions for those listed on the wall by a search or filter. @param {string[]} ids */
  offer(ids) {
    this._listed = ids;
    const row = element("several");
    const focused = row.contains(document.activeElement) ? document.activeElement : null;
    let offered = 0;
    for (const kind of KINDS) {
      const { length: n } = this.candidates(kind, ids);
      const button = element(`${kind}-listed`);
      button.hidden = n === 0;
      if (n > 0) setText(button, t(`several.${kind}`, { n }));
      offered += n;
    }
    row.hidden = offered === 0;
    if (focused instanceof HTMLElement && (row.hidden || focused.hidden)) this._given.leave();
  }

  /** Whether an action for all those listed is over. */
  get listedDone() {
    return this._ofListed?.over ?? false;
  }

  /** Forget for which list an action was: another one was chosen. */
  forgetListed() {
    this._ofListed = null;
  }

  /** Ask the proctor to confirm an action. @param {BatchKind} kind @param {Iterable<string>} ids */
  async ask(kind, ids) {
    const wanted = this.candidates(kind, ids);
    if (wanted.length === 0) return;
    const ofListed = ids === this._listed;
    const plan = this._given.plan();
    const answer = await this._dialog.ask({
      kind,
      question: t(`several.question.${kind}`, { n: wanted.length }),
      who: namesOf(wanted.map(this._given.name)),
      means: t(`several.means.${kind}`),
    });
    if (answer !== null) {
      this._begin(() => plan.begin(kind, wanted, answer.seconds));
      this._ofListed = ofListed ? this._batch : null;
    } else if (document.activeElement === null || document.activeElement === document.body) this._given.leave();
  }

  /**
   * Ask whether one examinee, or everybody, gets more time or is finished; return the seconds, `null`: no.
   * @param {"finish" | "extend_exam"} kind @param {string | null} who `null`: everybody
   */
  askOne(kind, who) {
    const scope = who === null ? "all" : "one";
    return this._dialog.ask({
      kind,
      question: t(`act.${kind}.question.${scope}`, { who: who ?? "" }),
      who: "",
      means: t(`act.${kind}.means.${scope}`),
    });
  }

  _wire() {
    for (const kind of KINDS) {
      element(`${kind}-listed`).addEventListener("click", () => void this.ask(kind, this._listed));
    }
    element("several-again").addEventListener("click", () => this._begin(() => this._batch.again()));
    element("several-dismiss").addEventListener("click", () => {
      this._batch.dismiss();
      this.show();
      this._given.leave();
    });
  }

  /** Begin, and move the focus to the progress line: the pressed button disappears. @param {() => void} work */
  _begin(work) {
    work();
    this._running.add(this._batch);
    this.show();
    this.offer(this._listed);
    if (!element("several-line").hidden) element("several-line").focus();
    else this._given.leave();
  }

  /** Draw everything, also after a change of language. */
  show() {
    const batch = this._batch;
    const line = element("several-line");
    line.hidden = batch.size === 0;
    if (line.hidden) return;
    const text = summaryOf(batch, this._given.plan().upToDate);
    const again = batch.itemsIn("refused").length + batch.itemsIn("open").length;
    line.dataset.tone = again > 0 && batch.answered ? "warn" : batch.over ? "good" : "info";
    setText(element("several-text"), text);
    const progress = /** @type {HTMLProgressElement} */ (element("several-progress"));
    progress.hidden = batch.over;
    progress.max = batch.size;
    progress.value = batch.itemsIn("done").length;
    const button = element("several-again");
    button.hidden = again === 0 || !batch.answered;
    setText(button, t("several.again", { n: again }));
    const dismiss = element("several-dismiss");
    dismiss.hidden = !batch.answered;
    this.announce(this._given.plan());
  }

  /** Announce the end of each run, also of a plan that is not shown. @param {import("../session/watched-plan.js").WatchedPlan} plan */
  announce(plan) {
    for (const batch of Object.values(plan.batches)) {
      if (!batch.over || !this._running.delete(batch)) continue;
      if (batch.size > 0) plan.say(`${summaryOf(batch, plan.upToDate)}.`);
    }
  }
}
