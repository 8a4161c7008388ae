/**
 * What this page has asked for, and what became of it: sent, in the log, in effect, or refused. Pure.
 *
 * `pending`: not answered yet. `accepted`: durably in the log. `confirmed`: its effect was told as an event (of a
 * message: the examinee has confirmed it). `refused`: with `why`. `unknown`: no answer in time; it may be in the log.
 *
 * @typedef {"notify" | "readmit" | "remove" | "extend_mobile_sync"} Kind
 * @typedef {"pending" | "accepted" | "confirmed" | "refused" | "unknown"} Outcome
 * @typedef {{id: string, kind: Kind, examineeId: string, by: string, at: number, text: string, seconds: number,
 *   outcome: Outcome, why: string}} Action
 */

/** Which event tells that an action is in effect. @type {Readonly<Record<Kind, string>>} */
const EFFECTS = Object.freeze({
  notify: "notice_confirmed",
  readmit: "examinee_readmitted",
  remove: "examinee_removed",
  extend_mobile_sync: "mobile_sync_status",
});

/** So many are remembered. */
const MOST = 500;

export class Actions {
  constructor() {
    /** @type {Map<string, Action>} */ this._all = new Map();
  }

  /**
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

  /** It is in the log. An effect that was told before that stands. @param {string} id */
  accepted(id) {
    const action = this._all.get(id);
    if (action?.outcome === "pending" || action?.outcome === "unknown") action.outcome = "accepted";
    return action ?? null;
  }

  /**
   * It was refused, or not answered in time.
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
   * An event: the effect of an action, if it names one.
   * @param {{type: string, data: Record<string, any>}} message
   * @returns {Action | null} the action that is in effect now
   */
  told({ type, data }) {
    const action = typeof data.actionId === "string" ? this._all.get(data.actionId) : undefined;
    if (!action || EFFECTS[action.kind] !== type || action.outcome === "confirmed") return null;
    action.outcome = "confirmed";
    return action;
  }

  /** Those about an examinee, the newest first. @param {string} examineeId */
  of(examineeId) {
    return [...this._all.values()].filter((one) => one.examineeId === examineeId).reverse();
  }
}
