/**
 * The actions of this page and their outcomes: sent, in the log, in effect, or refused. Pure.
 *
 * `pending`: not answered yet. `accepted`: stored in the log. `confirmed`: the event of its effect has arrived (for a
 * message: the examinee has confirmed it). `refused`: with `why`. `unknown`: no answer in time; it may be in the log.
 *
 * @typedef {"notify" | "readmit" | "remove" | "extend_mobile_sync" | "finish" | "resume" | "extend_exam"} Kind
 * @typedef {"pending" | "accepted" | "confirmed" | "refused" | "unknown"} Outcome
 * @typedef {{id: string, kind: Kind, examineeId: string | null, by: string, at: number, text: string, seconds: number,
 *   outcome: Outcome, why: string}} Action `examineeId`: `null` for everybody
 */

/** The event that shows the effect of an action. @type {Readonly<Record<Kind, string>>} */
const EFFECTS = Object.freeze({
  notify: "notice_confirmed",
  readmit: "examinee_readmitted",
  remove: "examinee_removed",
  extend_mobile_sync: "mobile_sync_status",
  finish: "examinee_finished",
  resume: "examinee_resumed",
  extend_exam: "", // `plan_state` does not say which action has changed it
});

/** The most actions that are kept. */
const MOST = 500;

/** The actions of this page, by their id. */
export class Actions {
  constructor() {
    /** @type {Map<string, Action>} */ this._all = new Map();
  }

  /**
   * Note that an action is sent.
   * @param {Pick<Action, "id" | "kind" | "examineeId" | "by" | "at"> & Partial<Action>} what
   * @returns {Action}
   */
  begin(what) {
    /** @type {Action} */
    const action = { text: "", seconds: 0, outcome: "pending", why: "", ...what };
    this._all.set(action.id, action);
    if (this._all.size > MOST) this._all.delete(/** @type {string} */ (this._all.keys().next().value));
    return action;
  }

  /** Note that an action is in the log; one that is in effect stays so. @param {string} id */
  accepted(id) {
    const action = this._all.get(id);
    if (action?.outcome === "pending" || action?.outcome === "unknown") action.outcome = "accepted";
    return action ?? null;
  }

  /**
   * Note that an action was refused, or not answered in time.
   * @param {string} id
   * @param {string} code of the server; TIMEOUT: it may have had its effect all the same
   * @param {string} why
   */
  failed(id, code, why) {
    const action = this._all.get(id);
    if (!action || action.outcome === "confirmed") return action ?? null;
    action.outcome = code === "TIMEOUT" ? "unknown" : "refused";
    action.why = why;
    return action;
  }

  /**
   * Handle an event, which may show the effect of an action.
   * @param {{type: string, data: Record<string, any>}} message
   * @returns {Action | null} the action that is in effect now
   */
  receive({ type, data }) {
    const action = typeof data.actionId === "string" ? this._all.get(data.actionId) : undefined;
    if (!action || EFFECTS[action.kind] !== type || action.outcome === "confirmed") return null;
    action.outcome = "confirmed";
    return action;
  }

  /** The actions about an examinee, or (`null`) about everybody; the newest first. @param {string | null} examineeId */
  of(examineeId) {
    return [...this._all.values()].filter((action) => action.examineeId === examineeId).reverse();
  }
}
